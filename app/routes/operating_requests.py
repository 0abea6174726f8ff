"""The operator's pages of what others wait for: webhooks that weren't taken, and requests to be left out.

An endpoint is changed as its owner would change it, and the audit log says who did; its address is shown without what
may be secret in it, and what was sent isn't shown at all.
"""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool
from starlette.responses import RedirectResponse, Response

from app import opt_outs
from app.callers import Administering, Caller
from app.forms import BESIDE_BYTES
from app.operating import NO_STORE, SEE_OTHER, host_of, no_cursor, older, shown, whose
from app.operator_forms import DECISION_FIELDS, done_of
from app.opt_out_schemas import OptOutQuery, Rejection
from app.problems import Problem
from app.service import Service, service_of
from app.uploads import parse_as, small_form
from app.webhooks import endpoints
from app.webhooks.schemas import EndpointChange
from jobs.errors import BadCursor
from jobs.models import utc_now
from jobs.opt_outs import IN_FORCE, MAX_REASON
from jobs.webhooks.models import WebhookEndpoint

router = APIRouter(prefix="/operator", include_in_schema=False)

# Works of a request that are shown.
MOST_WORKS = 50
Cursor = Annotated[str | None, Field(max_length=200)]


class WebhooksQuery(BaseModel):
    """Which endpoints are shown."""

    model_config = ConfigDict(extra="forbid")

    state: Literal["all", "disabled"] = "all"
    cursor: Cursor = None


class DeliveriesQuery(BaseModel):
    """Which deliveries are shown."""

    model_config = ConfigDict(extra="forbid")

    state: Literal["failed", "pending", "delivered"] = "failed"
    cursor: Cursor = None


class RequestsQuery(BaseModel):
    """Which requests to be left out are shown."""

    model_config = ConfigDict(extra="forbid")

    state: Literal["received", "verified", "applied", "rejected", "withdrawn", "all"] = "received"
    cursor: Cursor = None


@router.get("/webhooks")
async def webhooks(
    request: Request, _caller: Administering, query: Annotated[WebhooksQuery, Query()]
) -> Response:
    """Everybody's endpoints, and what waits and was given up."""
    return await run_in_threadpool(_webhooks, request, query)


@router.get("/webhooks/{endpoint_id}")
async def endpoint(
    request: Request, _caller: Administering, endpoint_id: str, query: Annotated[DeliveriesQuery, Query()]
) -> Response:
    """One endpoint and its deliveries."""
    return await run_in_threadpool(_endpoint, request, endpoint_id, query, None)


@router.post("/webhooks/{endpoint_id}/enable")
async def enable(request: Request, caller: Administering, endpoint_id: str) -> Response:
    """Take it for well again, and deliver what waits for it."""
    service = service_of(request)
    as_owner = await run_in_threadpool(_as_owner, service, caller, endpoint_id)
    await endpoints.change(service, as_owner, endpoint_id, EndpointChange(enabled=True))
    return RedirectResponse(f"/operator/webhooks/{endpoint_id}", SEE_OTHER, NO_STORE)


@router.post("/webhooks/{endpoint_id}/deliveries/{delivery_id}/redeliver")
async def redeliver(request: Request, caller: Administering, endpoint_id: str, delivery_id: str) -> Response:
    """Deliver something once more."""
    service = service_of(request)
    as_owner = await run_in_threadpool(_as_owner, service, caller, endpoint_id)
    try:
        await endpoints.deliver_again(service, as_owner, endpoint_id, delivery_id)
    except Problem as problem:
        return await run_in_threadpool(_endpoint, request, endpoint_id, DeliveriesQuery(), problem)
    return RedirectResponse(f"/operator/webhooks/{endpoint_id}?state=pending", SEE_OTHER, NO_STORE)


@router.get("/opt-outs")
async def requests(
    request: Request, caller: Administering, query: Annotated[RequestsQuery, Query()]
) -> Response:
    """Requests to be left out, those first that nobody has looked at."""
    state = None if query.state == "all" else query.state
    page = await opt_outs.listed(service_of(request), caller, OptOutQuery(state=state, cursor=query.cursor))
    context = {
        "items": page.items,
        "state": query.state,
        "older": older("opt-outs", page.next_cursor, state=query.state),
    }
    return shown(request, "opt-outs", context)


@router.get("/opt-outs/{opt_out_id}")
async def looked_at(request: Request, caller: Administering, opt_out_id: str) -> Response:
    """One request, and what can be done about it."""
    return await _request(request, caller, opt_out_id, {}, None)


@router.post("/opt-outs/{opt_out_id}/verify")
async def verify(request: Request, caller: Administering, opt_out_id: str) -> Response:
    """Say that it is right: its works are hidden from now on."""
    return await _decided(
        request, caller, opt_out_id, {}, lambda: opt_outs.verify(service_of(request), caller, opt_out_id)
    )


@router.post("/opt-outs/{opt_out_id}/reject")
async def reject(request: Request, caller: Administering, opt_out_id: str) -> Response:
    """Refuse it with a reason."""
    service = service_of(request)
    given = await small_form(service, request, BESIDE_BYTES)
    said = {"reason": given.get("reason", "").replace("\r\n", "\n")}
    return await _decided(
        request,
        caller,
        opt_out_id,
        given,
        lambda: opt_outs.reject(service, caller, opt_out_id, parse_as(Rejection, said).reason),
    )


@router.post("/opt-outs/{opt_out_id}/apply")
async def apply(request: Request, caller: Administering, opt_out_id: str) -> Response:
    """Say on which days its works were left out of a build, or gone from the model."""
    service = service_of(request)
    given = await small_form(service, request)
    return await _decided(
        request,
        caller,
        opt_out_id,
        given,
        lambda: opt_outs.apply(service, caller, opt_out_id, done_of(given)),
    )


async def _decided(
    request: Request,
    caller: Caller,
    opt_out_id: str,
    given: dict[str, str],
    decide: Callable[[], Awaitable[object]],
) -> Response:
    try:
        await decide()
    except Problem as problem:
        return await _request(request, caller, opt_out_id, given, problem)
    return RedirectResponse(f"/operator/opt-outs/{opt_out_id}", SEE_OTHER, NO_STORE)


async def _request(
    request: Request, caller: Caller, opt_out_id: str, given: dict[str, str], problem: Problem | None
) -> Response:
    told = await opt_outs.look(service_of(request), caller, opt_out_id, None)
    context = {
        "o": told,
        "works": await run_in_threadpool(
            _works, service_of(request), told.index, (told.works or [])[:MOST_WORKS]
        ),
        "given": given,
        "undecided": told.state == "received",
        "refusable": told.state in ("received", "verified"),
        "appliable": told.state in ("verified", "applied"),
        "in_force": told.state in IN_FORCE,
        "max_reason": MAX_REASON,
        "today": utc_now().date().isoformat(),
    }
    return shown(
        request, "opt-outs", context, problem, template="operator-opt-out.html", fields=DECISION_FIELDS
    )


def _works(service: Service, index: str, ids: list[str]) -> list[tuple[str, dict[str, Any]]]:
    """Each work's id with what the index says of it, as far as that is served and still has it."""
    served = next((one for one in service.catalogue if index in (one.id, one.name)), None)
    return [(work_id, (served.find(work_id) if served else None) or {}) for work_id in ids]


def _webhooks(request: Request, query: WebhooksQuery) -> Response:
    service = service_of(request)
    try:
        page = service.store.webhook_endpoints.everybodys(
            False if query.state == "disabled" else None, query.cursor
        )
    except BadCursor as error:
        raise no_cursor(error) from error
    failed = service.store.webhook_deliveries.list(None, "failed").deliveries
    context = {
        "endpoints": [(one, host_of(one.url)) for one in page.endpoints],
        "whose": whose(service, [one.owner for one in page.endpoints]),
        "outstanding": service.store.webhook_deliveries.outstanding(),
        "failed": failed,
        "state": query.state,
        "older": older("webhooks", page.next_cursor, state=query.state),
    }
    return shown(request, "webhooks", context)


def _endpoint(
    request: Request, endpoint_id: str, query: DeliveriesQuery, problem: Problem | None
) -> Response:
    service = service_of(request)
    found = _found(service, endpoint_id)
    try:
        page = service.store.webhook_deliveries.list(found.id, query.state, query.cursor)
    except BadCursor as error:
        raise no_cursor(error) from error
    context = {
        "e": found,
        "host": host_of(found.url),
        "whose": whose(service, [found.owner]),
        "deliveries": page.deliveries,
        "state": query.state,
        "older": older(f"webhooks/{found.id}", page.next_cursor, state=query.state),
    }
    return shown(request, "webhooks", context, problem, template="operator-webhook.html")


def _found(service: Service, endpoint_id: str) -> WebhookEndpoint:
    found = service.store.webhook_endpoints.anybodys(endpoint_id)
    if found is None:
        raise Problem("not-found", endpoints.NO_ENDPOINT)
    return found


def _as_owner(service: Service, caller: Caller, endpoint_id: str) -> Caller:
    """The caller with an endpoint's owner's eyes; the audit log goes by their own key."""
    return replace(caller, owner=_found(service, endpoint_id).owner)
