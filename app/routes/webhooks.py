"""`/v1/webhook-endpoints`: who hears of what happens, and what became of telling them."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from pydantic import BaseModel
from starlette.responses import Response

from app.callers import Asking, Reading
from app.problems import documented
from app.service import service_of
from app.small_json import REFUSALS, json_body, small_json
from app.webhooks import endpoints
from app.webhooks.schemas import (
    EXAMPLE_DELIVERY,
    EXAMPLE_ID,
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

router = APIRouter(prefix="/v1/webhook-endpoints", tags=["webhooks"])

EndpointId = Annotated[
    str, Path(description="The id that POST answered with.", examples=[EXAMPLE_ID], max_length=64)
]
DeliveryId = Annotated[
    str, Path(description="The delivery's id, its `webhook-id`.", examples=[EXAMPLE_DELIVERY], max_length=64)
]
# Nobody keeps a secret on the way.
NO_STORE = {"Cache-Control": "no-store"}
NO_CACHE = {"Cache-Control": "no-cache"}
WRITING = ("cross-site", "storage-unavailable", "storage-full")


@router.post(
    "",
    operation_id="createWebhookEndpoint",
    status_code=201,
    response_model=EndpointWithSecret,
    responses=documented(*REFUSALS, *WRITING, "address-refused", "conflict"),
    openapi_extra=json_body(EndpointRequest),
)
async def create_webhook_endpoint(request: Request, caller: Asking) -> Response:
    """Have events sent to an address. The `secret` that they are signed with is in this answer and nowhere else."""
    service = service_of(request)
    made = await endpoints.create(service, caller, await small_json(service, request, EndpointRequest))
    return _json(made, 201, {**NO_STORE, "Location": made.links.self})


@router.get(
    "",
    operation_id="listWebhookEndpoints",
    response_model=EndpointList,
    responses=documented("storage-unavailable"),
)
async def list_webhook_endpoints(request: Request, caller: Reading) -> Response:
    """Your endpoints, the oldest first, with why one is disabled."""
    return _json(await endpoints.listed(service_of(request), caller))


@router.get(
    "/{endpoint_id}",
    operation_id="getWebhookEndpoint",
    response_model=Endpoint,
    responses=documented("not-found", "invalid-request", "storage-unavailable"),
)
async def get_webhook_endpoint(request: Request, caller: Reading, endpoint_id: EndpointId) -> Response:
    """One endpoint."""
    return _json(await endpoints.told(service_of(request), caller, endpoint_id))


@router.patch(
    "/{endpoint_id}",
    operation_id="changeWebhookEndpoint",
    response_model=Endpoint,
    responses=documented(*REFUSALS, *WRITING, "not-found"),
    openapi_extra=json_body(EndpointChange),
)
async def change_webhook_endpoint(request: Request, caller: Asking, endpoint_id: EndpointId) -> Response:
    """Enable or disable an endpoint, or let it hear of other events."""
    service = service_of(request)
    wanted = await small_json(service, request, EndpointChange)
    return _json(await endpoints.change(service, caller, endpoint_id, wanted))


@router.delete(
    "/{endpoint_id}",
    operation_id="deleteWebhookEndpoint",
    status_code=204,
    response_class=Response,
    responses={
        204: {"description": "Nothing more is sent to it; its deliveries are gone."},
        **documented(*WRITING, "not-found", "invalid-request"),
    },
)
async def delete_webhook_endpoint(request: Request, caller: Asking, endpoint_id: EndpointId) -> Response:
    """Remove an endpoint with its deliveries, also those that wait."""
    await endpoints.delete(service_of(request), caller, endpoint_id)
    return Response(status_code=204)


@router.post(
    "/{endpoint_id}/rotate-secret",
    operation_id="rotateWebhookSecret",
    response_model=EndpointWithSecret,
    responses=documented(*REFUSALS, *WRITING, "not-found"),
    openapi_extra=json_body(SecretRotation),
)
async def rotate_webhook_secret(request: Request, caller: Asking, endpoint_id: EndpointId) -> Response:
    """Give an endpoint another secret. For `overlap` seconds its deliveries are signed with both."""
    service = service_of(request)
    wanted = await small_json(service, request, SecretRotation)
    return _json(await endpoints.rotate(service, caller, endpoint_id, wanted), headers=NO_STORE)


@router.post(
    "/{endpoint_id}/test",
    operation_id="testWebhookEndpoint",
    status_code=202,
    response_model=Delivery,
    responses=documented(*WRITING, "not-found", "conflict", "invalid-request"),
)
async def test_webhook_endpoint(request: Request, caller: Asking, endpoint_id: EndpointId) -> Response:
    """Have a `webhook.test` delivered to an endpoint, whichever events it hears of."""
    return _json(await endpoints.test(service_of(request), caller, endpoint_id), 202)


@router.get(
    "/{endpoint_id}/deliveries",
    operation_id="listWebhookDeliveries",
    response_model=DeliveryList,
    responses=documented("not-found", "invalid-request", "storage-unavailable"),
)
async def list_webhook_deliveries(
    request: Request, caller: Reading, endpoint_id: EndpointId, query: Annotated[DeliveryQuery, Query()]
) -> Response:
    """What was sent to an endpoint in the last thirty days or waits for that, newest first, with every attempt."""
    return _json(await endpoints.deliveries(service_of(request), caller, endpoint_id, query))


@router.post(
    "/{endpoint_id}/deliveries/{delivery_id}/redeliver",
    operation_id="redeliverWebhook",
    status_code=202,
    response_model=Delivery,
    responses=documented(*WRITING, "not-found", "conflict", "invalid-request"),
)
async def redeliver_webhook(
    request: Request, caller: Asking, endpoint_id: EndpointId, delivery_id: DeliveryId
) -> Response:
    """Send a delivery once more, now, under the same `webhook-id` and with the same body."""
    return _json(await endpoints.deliver_again(service_of(request), caller, endpoint_id, delivery_id), 202)


def _json(model: BaseModel, status: int = 200, headers: dict[str, str] = NO_CACHE) -> Response:
    return Response(model.model_dump_json(), status, headers, "application/json")
