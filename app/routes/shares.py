"""`/v1/attributions/{id}/shares`: links by which somebody without a key reads one answer."""

from typing import Annotated

from fastapi import APIRouter, Path, Request
from pydantic import BaseModel
from starlette.responses import Response

from app import shares
from app.callers import Asking, Reading
from app.examples import ATTRIBUTION
from app.problems import documented
from app.rendering import base_address
from app.service import service_of
from app.share_schemas import EXAMPLE_ID, NewlyMadeShareLink, ShareLink, ShareLinkList, ShareRequest
from app.small_json import REFUSALS, json_body, small_json

router = APIRouter(prefix="/v1/attributions/{attribution_id}/shares", tags=["shares"])

JobId = Annotated[str, Path(description="The question's id.", examples=[ATTRIBUTION["id"]], max_length=64)]
ShareId = Annotated[
    str, Path(description="The share's id, which opens nothing.", examples=[EXAMPLE_ID], max_length=64)
]
NO_STORE = {"Cache-Control": "no-store"}


@router.post(
    "",
    operation_id="createShare",
    status_code=201,
    response_model=NewlyMadeShareLink,
    responses=documented(
        *REFUSALS, "cross-site", "not-found", "conflict", "erased", "storage-unavailable", "storage-full"
    ),
    openapi_extra=json_body(ShareRequest),
)
async def create_share(request: Request, caller: Asking, attribution_id: JobId) -> Response:
    """Make a link to an answer for somebody without a key, with parts left out. Its `url` is in this answer only.

    Takes the scope `read` beside `ask`.
    """
    service = service_of(request)
    asked = await small_json(service, request, ShareRequest)
    issued = await shares.create(service, caller, attribution_id, asked)
    return _json(NewlyMadeShareLink.issued(issued, base_address(request)), 201)


@router.get(
    "",
    operation_id="listShares",
    response_model=ShareLinkList,
    responses=documented("not-found", "erased", "invalid-request", "storage-unavailable"),
)
async def list_shares(request: Request, caller: Reading, attribution_id: JobId) -> Response:
    """The links to an answer, newest first, also those that are over, with how often each was opened."""
    found = await shares.listed(service_of(request), caller, attribution_id)
    return _json(ShareLinkList(items=[ShareLink.of(share) for share in found]))


@router.delete(
    "/{share_id}",
    operation_id="revokeShare",
    status_code=204,
    response_class=Response,
    responses={
        204: {"description": "The link opens nothing any more, from now on and everywhere."},
        **documented("cross-site", "not-found", "erased", "invalid-request", "storage-unavailable"),
    },
)
async def revoke_share(
    request: Request, caller: Asking, attribution_id: JobId, share_id: ShareId
) -> Response:
    """Withdraw a link. Withdrawing it again changes nothing."""
    await shares.revoke(service_of(request), caller, attribution_id, share_id)
    return Response(status_code=204)


def _json(told: BaseModel, status: int = 200) -> Response:
    return Response(told.model_dump_json(), status, NO_STORE, "application/json")
