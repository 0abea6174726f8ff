"""The operator's pages of keys and links: list, make, replace, revoke, and end what is signed in with them."""

from datetime import timedelta

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import RedirectResponse, Response

from app import keys
from app.callers import Administering
from app.forms import BESIDE_BYTES
from app.language import language_of
from app.operating import NO_STORE, SEE_OTHER, found_key, no_cursor, older, shown, sign_in_address
from app.operator_forms import (
    KEY_FIELDS,
    KEYS_FIELDS,
    LINK_DAYS,
    ROTATION_FIELDS,
    KeysQuery,
    filters_of,
    key_of,
    overlap_of,
)
from app.problems import Problem
from app.rendering import is_sure, sure_page
from app.service import Service, service_of
from app.uploads import small_form
from jobs.credentials import Kind, Scope
from jobs.errors import BadCursor
from jobs.keys import OVERLAP, IssuedKey
from jobs.models import utc_now
from jobs.overview import Overview

router = APIRouter(prefix="/operator", include_in_schema=False)

SCOPES = ("ask", "read")


@router.get("/keys")
async def listed(request: Request, _caller: Administering) -> Response:
    """Keys and links, the newest first, and the form for another. A filter that can't be read is told beside its
    field, and no key is shown."""
    query, given, problem = filters_of(KeysQuery, request)
    if query is None:
        return await run_in_threadpool(_list, request, None, {}, problem, given)
    return await run_in_threadpool(_list, request, query, {}, None)


@router.post("/keys")
async def create(request: Request, caller: Administering) -> Response:
    """Make a key or link; its secret is on the page that this answers with and nowhere else."""
    service = service_of(request)
    given = await small_form(service, request, BESIDE_BYTES)
    try:
        wanted, kind = key_of(given)
        issued = await keys.create(service, caller, wanted, kind)
    except Problem as problem:
        return await run_in_threadpool(_list, request, KeysQuery(), given, problem)
    return _issued(request, service, issued)


@router.get("/keys/{key_id}")
async def one(request: Request, _caller: Administering, key_id: str) -> Response:
    """One key: what it may do, what is open of it, and where it is signed in."""
    return await run_in_threadpool(_one, request, key_id, {}, None)


@router.post("/keys/{key_id}/rotate")
async def rotate(request: Request, caller: Administering, key_id: str) -> Response:
    """Make a key that replaces it."""
    service = service_of(request)
    given = await small_form(service, request)
    try:
        overlap = timedelta(seconds=overlap_of(given, OVERLAP.days))
        issued = await keys.rotate(service, caller, key_id, overlap)
    except Problem as problem:
        return await run_in_threadpool(_one, request, key_id, given, problem)
    return _issued(request, service, issued)


@router.post("/keys/{key_id}/revoke")
async def revoke(request: Request, caller: Administering, key_id: str) -> Response:
    """End it, and every session of it."""
    if not await is_sure(request):
        await run_in_threadpool(found_key, service_of(request), key_id)
        return sure_page(request, f"/operator/keys/{key_id}", "operator.revoke")
    await keys.revoke(service_of(request), caller, key_id)
    return RedirectResponse(f"/operator/keys/{key_id}", SEE_OTHER, NO_STORE)


@router.post("/keys/{key_id}/sign-out")
async def sign_out(request: Request, caller: Administering, key_id: str) -> Response:
    """End every session of it; it can be signed in with again."""
    service = service_of(request)
    key = await run_in_threadpool(found_key, service, key_id)
    await service.sessions.end_all(key, caller.actor)
    return RedirectResponse(f"/operator/keys/{key_id}", SEE_OTHER, NO_STORE)


def _list(
    request: Request,
    query: KeysQuery | None,
    given: dict[str, str],
    problem: Problem | None,
    filters: dict[str, str] | None = None,
) -> Response:
    """The keys that a query finds with the form for another, or why there is no query: `filters` are what it was."""
    service = service_of(request)
    try:
        page = None
        if query is not None:
            page = service.keys.list(query.named or None, query.state or None, query.cursor)
    except BadCursor as error:
        raise no_cursor(error) from error
    now = utc_now()
    shows = query or KeysQuery()
    context = {
        "keys": None if page is None else [(key, key.state(now)) for key in page.keys],
        "query": shows.model_dump() if filters is None else filters,
        "given": given or {f"scope_{scope}": "yes" for scope in SCOPES},
        "scopes": list(Scope),
        "indexes": [served.name for served in service.catalogue],
        "older": older(
            "keys", None if page is None else page.next_cursor, named=shows.named, state=shows.state
        ),
        "link_days": LINK_DAYS,
        "keeping": {
            name: None if kept is None else language_of(request).span(kept.total_seconds())
            for name, kept in vars(service.store.keeping.of_keys).items()
        },
    }
    return shown(request, "keys", context, problem, fields=KEY_FIELDS if filters is None else KEYS_FIELDS)


def _one(request: Request, key_id: str, given: dict[str, str], problem: Problem | None) -> Response:
    service = service_of(request)
    key = found_key(service, key_id)
    queue = Overview(service.store.database).open_of(key.owner)
    context = {
        "key": key,
        "state": key.state(utc_now()),
        "open": queue,
        "sessions": service.store.sessions.of(key.id),
        "webhooks": service.store.webhook_endpoints.list(key.owner),
        "overlap": given.get("overlap", str(OVERLAP.days)),
    }
    return shown(request, "keys", context, problem, template="operator-key.html", fields=ROTATION_FIELDS)


def _issued(request: Request, service: Service, issued: IssuedKey) -> Response:
    is_link = issued.key.kind == Kind.LINK
    secret = sign_in_address(request, service, issued.secret) if is_link else issued.secret
    context = {"key": issued.key, "secret": secret}
    return shown(request, "keys", context, template="operator-issued.html", status=201)
