"""Endpoints of webhooks and their deliveries. `endpoints.py` is made of this file by `client/generate.py`.

What a receiver needs, the verification of signatures, is `das_client.webhooks`.
"""

from collections.abc import AsyncIterator, Sequence
from typing import Any, Literal, Unpack

from das_client import models as m
from das_client.async_reading import AsyncReading
from das_client.call import Call, path

WHERE = "/v1/webhook-endpoints"


class AsyncEndpoints(AsyncReading):
    """Addresses that hear of what happens."""

    async def create_webhook(
        self, url: str, *, events: Sequence[str] | None = None, description: str | None = None
    ) -> m.EndpointWithSecret:
        """Have events sent to an address, all of them by default. Its `secret` is in this answer only."""
        body = {"url": url, "events": None if events is None else list(events), "description": description}
        return await self._read(m.EndpointWithSecret, Call("POST", WHERE, body=body, repeats=False))

    async def webhooks(self) -> list[m.Endpoint]:
        """Your endpoints, the oldest first."""
        return (await self._read(m.EndpointList, Call("GET", WHERE))).items

    async def webhook(self, endpoint_id: str) -> m.Endpoint:
        """One endpoint, with why it is disabled if it is."""
        return await self._read(m.Endpoint, Call("GET", path(WHERE, endpoint_id)))

    async def change_webhook(self, endpoint_id: str, **changes: Unpack[m.WebhookChanges]) -> m.Endpoint:
        """Enable or disable an endpoint, or let it hear of other events; what is left out stays."""
        body: dict[str, Any] = dict(changes)
        return await self._read(m.Endpoint, Call("PATCH", path(WHERE, endpoint_id), body=body))

    async def delete_webhook(self, endpoint_id: str) -> None:
        """Remove an endpoint with its deliveries, also those that wait."""
        await self._send(Call("DELETE", path(WHERE, endpoint_id)))

    async def rotate_webhook(self, endpoint_id: str, *, overlap_s: int = 86400) -> m.EndpointWithSecret:
        """Give an endpoint another secret; for `overlap_s` seconds deliveries are signed with both."""
        call = Call(
            "POST", path(WHERE, endpoint_id) + "/rotate-secret", body={"overlap": overlap_s}, repeats=False
        )
        return await self._read(m.EndpointWithSecret, call)

    async def test_webhook(self, endpoint_id: str) -> m.Delivery:
        """Have a `webhook.test` delivered, whichever events it hears of."""
        return await self._read(m.Delivery, Call("POST", path(WHERE, endpoint_id) + "/test", repeats=False))

    async def deliveries(
        self, endpoint_id: str, *, state: Literal["pending", "delivered", "failed"] | None = None
    ) -> AsyncIterator[m.Delivery]:
        """What was sent to an endpoint or waits for that, the newest first, with every attempt."""
        async for page in self._pages(
            m.DeliveryList, path(WHERE, endpoint_id) + "/deliveries", {"state": state}
        ):
            for item in page.items:
                yield item

    async def redeliver(self, endpoint_id: str, delivery_id: str) -> m.Delivery:
        """Send a delivery once more, now, under the same `webhook-id`."""
        where = path(WHERE, endpoint_id) + path("/deliveries", delivery_id) + "/redeliver"
        return await self._read(m.Delivery, Call("POST", where, repeats=False))
