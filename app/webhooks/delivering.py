"""Delivering what waits in the outbox, some at a time. Any number of processes may do so at once."""

import asyncio
import logging
import time
from datetime import timedelta

from app.connecting import Connector
from app.threads import RunInThread
from app.webhooks.sending import send
from app.webhooks.signing import signed_headers
from jobs.errors import StorageError
from jobs.models import utc_now
from jobs.outages import OUTAGE
from jobs.webhooks.deliveries import Attempt, ClaimedDelivery, Deliveries
from jobs.webhooks.sealing import SecretUnreadable

logger = logging.getLogger(__name__)

AT_ONCE = 16
# How long what is on the way may go on once it shall end; what doesn't is attempted by the next process.
GRACE_S = 3.0
# What can't be signed waits for somebody to mend that.
UNSIGNED_WAIT = timedelta(minutes=1)


class Deliverer:
    """Sends what is due; `threads` runs what blocks."""

    def __init__(self, deliveries: Deliveries, connector: Connector, threads: RunInThread) -> None:
        self._deliveries = deliveries
        self._connector = connector
        self._threads = threads
        self._on_the_way: dict[asyncio.Task[None], ClaimedDelivery] = {}

    async def deliver_due(self) -> None:
        """Begin to send all that is due, as soon as there is room; comes back when nothing more waits for that."""
        while True:
            room = AT_ONCE - len(self._on_the_way)
            if room == 0:
                await asyncio.wait(self._on_the_way, return_when=asyncio.FIRST_COMPLETED)
                continue
            claimed = await self._threads(self._deliveries.claim, room)
            for one in claimed:
                task = asyncio.create_task(self._deliver(one))
                self._on_the_way[task] = one
                task.add_done_callback(lambda task: self._on_the_way.pop(task, None))
            if len(claimed) < room:
                return

    async def stop(self) -> None:
        """Let what is on the way come to its end for a moment, and give the rest back."""
        left = dict(self._on_the_way)
        if not left:
            return
        await asyncio.wait(left, timeout=GRACE_S)
        for task, claimed in left.items():
            if not task.done():
                task.cancel()
                await asyncio.wait({task})
                try:
                    await self._threads(self._deliveries.give_back, claimed)
                except StorageError as error:
                    # Its claim ends by itself.
                    logger.warning("%s can't be given back: %s", claimed.id, error)

    async def _deliver(self, claimed: ClaimedDelivery) -> None:
        try:
            await self._attempt(claimed)
            OUTAGE.worked("deliveries")
        except SecretUnreadable as error:
            logger.error("%s waits: %s", claimed.id, error)
            await self._threads(self._deliveries.give_back, claimed, UNSIGNED_WAIT)
        except StorageError as error:
            # What became of it can't be kept, so it will be sent again, as all others that are on the way.
            OUTAGE.failed("deliveries", error)
        except Exception:
            # Its claim ends, and it is tried again.
            logger.exception("%s can't be delivered", claimed.id)

    async def _attempt(self, claimed: ClaimedDelivery) -> None:
        secrets = await self._threads(self._deliveries.opened, claimed)
        at = utc_now()
        headers = signed_headers(claimed.id, int(time.time()), claimed.body, secrets)
        sent = await send(self._connector, claimed.url, headers, claimed.body)
        attempt = Attempt(
            at.isoformat().replace("+00:00", "Z"), sent.seconds, sent.status_code, sent.error, sent.response
        )
        if sent.error is None:
            await self._threads(self._deliveries.taken, claimed, attempt)
            return
        logger.info("%s wasn't taken by %s: %s", claimed.id, claimed.endpoint_id, sent.error)
        disabled = await self._threads(self._deliveries.missed, claimed, attempt, sent.retry_after)
        if disabled is not None:
            logger.warning("the webhook endpoint %s is disabled: %s", claimed.endpoint_id, disabled)
