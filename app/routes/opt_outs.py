"""`/v1/opt-outs`: ask that works be left out, and what becomes of that."""

from typing import Annotated

from fastapi import APIRouter, Header, Path, Query, Request
from pydantic import BaseModel
from starlette.responses import Response

from app import opt_outs
from app.callers import Administering, HoldingToken, Looking, OptingOut
from app.opt_out_schemas import (
    EXAMPLE_ID,
    Application,
    NewlyReceivedOptOut,
    OptOut,
    OptOutList,
    OptOutQuery,
    OptOutRequest,
    Rejection,
)
from app.problems import documented
from app.service import service_of
from app.small_json import REFUSALS, json_body, small_json

router = APIRouter(prefix="/v1/opt-outs", tags=["opt-outs"])

OptOutId = Annotated[str, Path(description="The opt-out's id.", examples=[EXAMPLE_ID], max_length=64)]
OwnToken = Annotated[
    str | None,
    Header(
        alias="Opt-Out-Token",
        max_length=200,
        description="The token that you were shown when you asked without a key.",
    ),
]
NO_STORE = {"Cache-Control": "no-store"}
CHANGES = ("cross-site", "not-found", "conflict", "storage-unavailable")


@router.post(
    "",
    operation_id="createOptOut",
    status_code=201,
    response_model=NewlyReceivedOptOut,
    responses=documented(
        *REFUSALS, "cross-site", "conflict", "not-ready", "storage-unavailable", "storage-full"
    ),
    openapi_extra=json_body(OptOutRequest),
)
async def create_opt_out(request: Request, caller: OptingOut) -> Response:
    """Ask that works be left out: these, or all of a creator's. Once verified they are hidden from answers."""
    service = service_of(request)
    asked = await small_json(service, request, OptOutRequest)
    told = await opt_outs.ask(service, caller, asked)
    return _json(told, 201, {"Location": told.links.self})


@router.get(
    "",
    operation_id="listOptOuts",
    response_model=OptOutList,
    responses=documented("invalid-request", "storage-unavailable"),
)
async def list_opt_outs(
    request: Request, caller: Looking, query: Annotated[OptOutQuery, Query()]
) -> Response:
    """Your opt-outs, newest first; with the scope `admin` everybody's."""
    return _json(await opt_outs.listed(service_of(request), caller, query))


@router.get(
    "/{opt_out_id}",
    operation_id="getOptOut",
    response_model=OptOut,
    responses=documented("not-found", "invalid-request", "storage-unavailable"),
)
async def get_opt_out(
    request: Request, caller: HoldingToken, opt_out_id: OptOutId, token: OwnToken = None
) -> Response:
    """How far an opt-out is."""
    return _json(await opt_outs.look(service_of(request), caller, opt_out_id, token))


@router.post(
    "/{opt_out_id}/withdraw",
    operation_id="withdrawOptOut",
    response_model=OptOut,
    responses=documented(*CHANGES, "invalid-request"),
)
async def withdraw_opt_out(
    request: Request, caller: HoldingToken, opt_out_id: OptOutId, token: OwnToken = None
) -> Response:
    """Take your opt-out back: what it hid is shown again."""
    return _json(await opt_outs.withdraw(service_of(request), caller, opt_out_id, token))


@router.delete(
    "/{opt_out_id}",
    operation_id="eraseOptOut",
    status_code=204,
    response_class=Response,
    responses={
        204: {"description": "Contact and statement are gone, and a token opens it no more."},
        **documented("cross-site", "not-found", "invalid-request", "storage-unavailable"),
    },
)
async def erase_opt_out(
    request: Request, caller: HoldingToken, opt_out_id: OptOutId, token: OwnToken = None
) -> Response:
    """Erase what is known of who asked. The opt-out itself stays: what is hidden stays hidden."""
    await opt_outs.erase(service_of(request), caller, opt_out_id, token)
    return Response(status_code=204)


@router.post(
    "/{opt_out_id}/verify",
    operation_id="verifyOptOut",
    response_model=OptOut,
    responses=documented(*CHANGES, "invalid-request"),
)
async def verify_opt_out(request: Request, caller: Administering, opt_out_id: OptOutId) -> Response:
    """Say that it is right: its works are hidden from now on, in old answers too."""
    return _json(await opt_outs.verify(service_of(request), caller, opt_out_id))


@router.post(
    "/{opt_out_id}/apply",
    operation_id="applyOptOut",
    response_model=OptOut,
    responses=documented(*REFUSALS, *CHANGES),
    openapi_extra=json_body(Application),
)
async def apply_opt_out(request: Request, caller: Administering, opt_out_id: OptOutId) -> Response:
    """Say when its works were left out of an index that was built anew, or gone from the model."""
    service = service_of(request)
    done = await small_json(service, request, Application)
    return _json(await opt_outs.apply(service, caller, opt_out_id, done))


@router.post(
    "/{opt_out_id}/reject",
    operation_id="rejectOptOut",
    response_model=OptOut,
    responses=documented(*REFUSALS, *CHANGES),
    openapi_extra=json_body(Rejection),
)
async def reject_opt_out(request: Request, caller: Administering, opt_out_id: OptOutId) -> Response:
    """Refuse it with a reason; what it hid is shown again."""
    service = service_of(request)
    said = await small_json(service, request, Rejection)
    return _json(await opt_outs.reject(service, caller, opt_out_id, said.reason))


def _json(model: BaseModel, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(model.model_dump_json(), status, {**NO_STORE, **(headers or {})}, "application/json")
