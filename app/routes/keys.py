"""`/v1/api-keys`: make, list, replace and revoke keys. `/v1/quota`: what a caller may still do."""

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from app import keys
from app.callers import Administering, Reading
from app.key_schemas import (
    EXAMPLE_ID,
    Key,
    KeyList,
    KeyQuery,
    KeyRequest,
    NewlyMadeKey,
    Quota,
    RotationRequest,
)
from app.problems import bad_parameter, documented
from app.service import service_of
from app.small_json import REFUSALS, json_body, small_json
from jobs.errors import BadCursor

router = APIRouter(prefix="/v1", tags=["keys"])

KeyId = Annotated[
    str, Path(description="The key's id, which isn't secret.", examples=[EXAMPLE_ID], max_length=64)
]
# Nobody keeps a secret on the way.
NO_STORE = {"Cache-Control": "no-store"}


@router.post(
    "/api-keys",
    operation_id="createApiKey",
    status_code=201,
    response_model=NewlyMadeKey,
    responses=documented(*REFUSALS, "cross-site", "storage-unavailable"),
    openapi_extra=json_body(KeyRequest),
)
async def create_api_key(request: Request, caller: Administering) -> Response:
    """Make a key. Its `secret` is in this answer and nowhere else."""
    service = service_of(request)
    wanted = await small_json(service, request, KeyRequest)
    issued = await keys.create(service, caller, wanted)
    headers = {**NO_STORE, "Location": f"/v1/api-keys/{issued.key.id}"}
    return Response(NewlyMadeKey.issued(issued).model_dump_json(), 201, headers, "application/json")


@router.get(
    "/api-keys",
    operation_id="listApiKeys",
    response_model=KeyList,
    responses=documented("invalid-request", "storage-unavailable"),
)
async def list_api_keys(
    request: Request, caller: Administering, query: Annotated[KeyQuery, Query()]
) -> KeyList:
    """Keys and links, also those that don't work any more, the newest first."""
    listed = service_of(request).keys.list
    try:
        page = await run_in_threadpool(listed, None, query.state, query.cursor, query.limit)
    except BadCursor as error:
        raise bad_parameter("cursor", f"{error}.") from error
    return KeyList(items=[Key.of(key) for key in page.keys], next_cursor=page.next_cursor)


@router.post(
    "/api-keys/{key_id}/rotate",
    operation_id="rotateApiKey",
    status_code=201,
    response_model=NewlyMadeKey,
    responses=documented(*REFUSALS, "cross-site", "not-found", "conflict", "storage-unavailable"),
    openapi_extra=json_body(RotationRequest),
)
async def rotate_api_key(request: Request, caller: Administering, key_id: KeyId) -> Response:
    """Make a key that replaces another: it may do the same and sees the same questions. Both work meanwhile."""
    service = service_of(request)
    wanted = await small_json(service, request, RotationRequest)
    issued = await keys.rotate(service, caller, key_id, timedelta(seconds=wanted.overlap))
    return Response(NewlyMadeKey.issued(issued).model_dump_json(), 201, NO_STORE, "application/json")


@router.delete(
    "/api-keys/{key_id}",
    operation_id="revokeApiKey",
    status_code=204,
    response_class=Response,
    responses={
        204: {
            "description": "It doesn't work any more: here at once, in other processes of the API in seconds."
        },
        **documented("cross-site", "not-found", "invalid-request", "storage-unavailable"),
    },
)
async def revoke_api_key(request: Request, caller: Administering, key_id: KeyId) -> Response:
    """End a key or link, and every sign-in with it. Revoking it again changes nothing."""
    await keys.revoke(service_of(request), caller, key_id)
    return Response(status_code=204)


@router.get(
    "/quota",
    operation_id="getQuota",
    response_model=Quota,
    responses=documented("storage-unavailable"),
)
async def get_quota(request: Request, caller: Reading) -> Quota:
    """How much of your limits is used up. Asking for it counts as a request and not as a question."""
    service = service_of(request)
    works = await run_in_threadpool(service.budgets.told, caller)
    return await service.limiter.told(caller, works)
