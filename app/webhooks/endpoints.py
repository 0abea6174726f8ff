"""What can be done with webhooks: the use cases of `/v1/webhook-endpoints`."""

from datetime import timedelta

from starlette.concurrency import run_in_threadpool

from app.addresses import AddressRefused, Target, parse
from app.callers import Caller
from app.problems import FieldProblem, Problem, bad_parameter, invalid
from app.service import Service
from app.webhooks.schemas import (
    Delivery,
    DeliveryList,
    DeliveryQuery,
    Endpoint,
    EndpointChange,
    EndpointList,
    EndpointRequest,
    EndpointWithSecret,
    SecretRotation,
)
from jobs.errors import BadCursor
from jobs.webhooks.deliveries import DeliveryNotFound
from jobs.webhooks.endpoints import Change, EndpointNotFound, EndpointRefused
from jobs.webhooks.models import WebhookEndpoint

NO_ENDPOINT = "There is no webhook endpoint with this id."
UNREGISTERED = (
    "has to be the address of one of your webhook endpoints; POST /v1/webhook-endpoints registers one."
)


async def create(service: Service, caller: Caller, wanted: EndpointRequest) -> EndpointWithSecret:
    """Make an endpoint, whose address may be connected to as it stands now; it is looked at again whenever it is."""
    target = await _reachable(service, wanted.url)
    try:
        issued = await run_in_threadpool(
            service.store.webhook_endpoints.create,
            caller.owner,
            target.url,
            wanted.events,
            wanted.description,
            caller.actor,
        )
    except EndpointRefused as error:
        raise _conflict(error) from error
    return EndpointWithSecret.issued(issued)


async def chosen(service: Service, caller: Caller, url: str | None) -> str | None:
    """The id of the caller's endpoint of this address, which alone shall hear of something; raises `Problem`."""
    if url is None:
        return None
    try:
        address = parse(url).url
    except AddressRefused:
        # Nor was it registered then.
        raise invalid("webhook_url", UNREGISTERED) from None
    found = await run_in_threadpool(service.store.webhook_endpoints.at, caller.owner, address)
    if found is None:
        raise invalid("webhook_url", UNREGISTERED)
    if not found.enabled:
        raise invalid("webhook_url", f"is the address of {found.id}, which is disabled: enable it first.")
    return found.id


async def listed(service: Service, caller: Caller) -> EndpointList:
    """The caller's endpoints."""
    found = await run_in_threadpool(service.store.webhook_endpoints.list, caller.owner)
    return EndpointList(items=[Endpoint.of(one) for one in found])


async def told(service: Service, caller: Caller, endpoint_id: str) -> Endpoint:
    """One of the caller's endpoints."""
    return Endpoint.of(await _find(service, caller, endpoint_id))


async def change(service: Service, caller: Caller, endpoint_id: str, wanted: EndpointChange) -> Endpoint:
    """Enable or disable an endpoint, or let it hear of other events."""
    change = Change(
        enabled=wanted.enabled,
        events=("events" in wanted.model_fields_set, wanted.events),
        description=("description" in wanted.model_fields_set, wanted.description),
    )
    try:
        changed = await run_in_threadpool(
            service.store.webhook_endpoints.change, caller.owner, endpoint_id, change, caller.actor
        )
    except EndpointNotFound as error:
        raise Problem("not-found", NO_ENDPOINT) from error
    return Endpoint.of(changed)


async def rotate(
    service: Service, caller: Caller, endpoint_id: str, wanted: SecretRotation
) -> EndpointWithSecret:
    """Give an endpoint another secret; the old one signs as well for a while."""
    try:
        issued = await run_in_threadpool(
            service.store.webhook_endpoints.rotate,
            caller.owner,
            endpoint_id,
            timedelta(seconds=wanted.overlap),
            caller.actor,
        )
    except EndpointNotFound as error:
        raise Problem("not-found", NO_ENDPOINT) from error
    return EndpointWithSecret.issued(issued)


async def delete(service: Service, caller: Caller, endpoint_id: str) -> None:
    """Remove an endpoint with its deliveries."""
    try:
        await run_in_threadpool(
            service.store.webhook_endpoints.delete, caller.owner, endpoint_id, caller.actor
        )
    except EndpointNotFound as error:
        raise Problem("not-found", NO_ENDPOINT) from error


async def test(service: Service, caller: Caller, endpoint_id: str) -> Delivery:
    """Have something delivered to an endpoint."""
    try:
        return Delivery.of(
            await run_in_threadpool(service.store.webhook_endpoints.test, caller.owner, endpoint_id)
        )
    except EndpointNotFound as error:
        raise Problem("not-found", NO_ENDPOINT) from error
    except EndpointRefused as error:
        raise _conflict(error) from error


async def deliveries(
    service: Service, caller: Caller, endpoint_id: str, query: DeliveryQuery
) -> DeliveryList:
    """A page of an endpoint's deliveries, newest first."""
    endpoint = await _find(service, caller, endpoint_id)
    try:
        page = await run_in_threadpool(
            service.store.webhook_deliveries.list, endpoint.id, query.state, query.cursor, query.limit
        )
    except BadCursor as error:
        raise bad_parameter("cursor", f"{error}.") from error
    return DeliveryList(items=[Delivery.of(one) for one in page.deliveries], next_cursor=page.next_cursor)


async def deliver_again(service: Service, caller: Caller, endpoint_id: str, delivery_id: str) -> Delivery:
    """Deliver something once more, under the same `webhook-id`."""
    endpoint = await _find(service, caller, endpoint_id)
    try:
        return Delivery.of(
            await run_in_threadpool(
                service.store.webhook_deliveries.again, endpoint, delivery_id, caller.actor
            )
        )
    except DeliveryNotFound as error:
        raise Problem("not-found", "The endpoint has no delivery with this id.") from error
    except EndpointRefused as error:
        raise _conflict(error) from error


async def _find(service: Service, caller: Caller, endpoint_id: str) -> WebhookEndpoint:
    found = await run_in_threadpool(service.store.webhook_endpoints.get, caller.owner, endpoint_id)
    if found is None:
        raise Problem("not-found", NO_ENDPOINT)
    return found


async def _reachable(service: Service, url: str) -> Target:
    """The parts of an address that may be connected to; raises `Problem` address-refused."""
    try:
        target = parse(url)
        await service.connector.look_up(target)
    except AddressRefused as error:
        raise Problem(
            "address-refused",
            str(error),
            errors=[FieldProblem(detail=str(error), pointer="/url")],
            reason=error.code,
        ) from error
    return target


def _conflict(error: EndpointRefused) -> Problem:
    text = str(error)
    return Problem("conflict", f"{text[0].upper()}{text[1:]}.")
