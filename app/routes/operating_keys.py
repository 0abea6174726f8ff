"""The operator's pages of keys and links: list, make, replace, revoke, and end what is signed in with them."""

from datetime import timedelta
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool
from starlette.responses import RedirectResponse, Response

from app import keys
from app.callers import Administering
from app.forms import BESIDE_BYTES
from app.key_schemas import KeyRequest
from app.operating import NO_STORE, SEE_OTHER, found_key, no_cursor, older, shown, sign_in_address
from app.problems import Problem, invalid
from app.schemas import Printable
from app.service import Service, service_of
from app.uploads import parse_as, small_form
from jobs.credentials import Kind, Scope
from jobs.errors import BadCursor
from jobs.keys import OVERLAP, IssuedKey
from jobs.models import utc_now
from jobs.overview import Overview

router = APIRouter(prefix="/operator", include_in_schema=False)

DAY_S = 86_400
# A link is handed to a person: it ends by itself unless somebody says for how long.
LINK_DAYS = "7"
SCOPES = ("ask", "read")


class KeysQuery(BaseModel):
    """Which keys are shown."""

    model_config = ConfigDict(extra="forbid")

    named: Annotated[Printable, Field(max_length=200)] = ""
    state: Literal["", "active", "expired", "revoked"] = ""
    cursor: Annotated[str | None, Field(max_length=64)] = None


@router.get("/keys")
async def listed(request: Request, _caller: Administering, query: Annotated[KeysQuery, Query()]) -> Response:
    """Keys and links, the newest first, and the form for another."""
    return await run_in_threadpool(_list, request, query, {}, None)


@router.post("/keys")
async def create(request: Request, caller: Administering) -> Response:
    """Make a key or link; its secret is on the page that this answers with and nowhere else."""
    service = service_of(request)
    given = await small_form(service, request, BESIDE_BYTES)
    try:
        kind = Kind.LINK if given.get("kind") == Kind.LINK else Kind.KEY
        issued = await keys.create(service, caller, parse_as(KeyRequest, _asked(given, kind)), kind)
    except Problem as problem:
        return await run_in_threadpool(_list, request, KeysQuery(), given, problem)
    return _issued(request, service, issued)


@router.get("/keys/{key_id}")
async def one(request: Request, _caller: Administering, key_id: str) -> Response:
    """One key: what it may do, what is open of it, and where it is signed in."""
    return await run_in_threadpool(_one, request, key_id, None)


@router.post("/keys/{key_id}/rotate")
async def rotate(request: Request, caller: Administering, key_id: str) -> Response:
    """Make a key that replaces it."""
    service = service_of(request)
    given = await small_form(service, request)
    try:
        overlap = timedelta(days=_days(given, "overlap", str(OVERLAP.days)) or 0)
        issued = await keys.rotate(service, caller, key_id, overlap)
    except Problem as problem:
        return await run_in_threadpool(_one, request, key_id, problem)
    return _issued(request, service, issued)


@router.post("/keys/{key_id}/revoke")
async def revoke(request: Request, caller: Administering, key_id: str) -> Response:
    """End it, and every session of it."""
    await keys.revoke(service_of(request), caller, key_id)
    return RedirectResponse(f"/operator/keys/{key_id}", SEE_OTHER, NO_STORE)


@router.post("/keys/{key_id}/sign-out")
async def sign_out(request: Request, caller: Administering, key_id: str) -> Response:
    """End every session of it; it can be signed in with again."""
    service = service_of(request)
    key = await run_in_threadpool(found_key, service, key_id)
    await service.sessions.end_all(key, caller.actor)
    return RedirectResponse(f"/operator/keys/{key_id}", SEE_OTHER, NO_STORE)


def _list(request: Request, query: KeysQuery, given: dict[str, str], problem: Problem | None) -> Response:
    service = service_of(request)
    try:
        page = service.keys.list(query.named or None, query.state or None, query.cursor)
    except BadCursor as error:
        raise no_cursor(error) from error
    now = utc_now()
    context = {
        "keys": [(key, key.state(now)) for key in page.keys],
        "query": query,
        "given": given or {f"scope_{scope}": "yes" for scope in SCOPES},
        "scopes": list(Scope),
        "indexes": [served.name for served in service.catalogue],
        "older": older("keys", page.next_cursor, named=query.named, state=query.state),
        "link_days": LINK_DAYS,
    }
    return shown(request, "keys", context, problem)


def _one(request: Request, key_id: str, problem: Problem | None) -> Response:
    service = service_of(request)
    key = found_key(service, key_id)
    queue = Overview(service.store.database).open_of(key.owner)
    context = {
        "key": key,
        "state": key.state(utc_now()),
        "open": queue,
        "sessions": service.store.sessions.of(key.id),
        "webhooks": service.store.webhook_endpoints.list(key.owner),
        "overlap_days": OVERLAP.days,
    }
    return shown(request, "keys", context, problem, template="operator-key.html")


def _issued(request: Request, service: Service, issued: IssuedKey) -> Response:
    is_link = issued.key.kind == Kind.LINK
    secret = sign_in_address(request, service, issued.secret) if is_link else issued.secret
    context = {"key": issued.key, "secret": secret}
    return shown(request, "keys", context, template="operator-issued.html", status=201)


def _asked(given: dict[str, str], kind: Kind) -> dict[str, Any]:
    """The fields of the API's request that the form says."""
    # Who asks on the page reads the answer there.
    scopes = [
        scope for scope in Scope if given.get(f"scope_{scope}") or (kind is Kind.LINK and scope == Scope.READ)
    ]
    if not scopes:
        raise invalid("scopes", "a key needs one at least.")
    indexes = [line.strip() for line in given.get("indexes", "").splitlines() if line.strip()]
    days = _days(given, "expires", LINK_DAYS if kind is Kind.LINK else "")
    quota = given.get("quota", "").strip()
    return {
        "name": given.get("name", "").strip(),
        "scopes": scopes,
        "indexes": indexes or None,
        "expires_in": None if days is None else days * DAY_S,
        "daily_quota": _number("quota", quota) if quota else None,
    }


def _days(given: dict[str, str], field: str, without: str) -> int | None:
    text = given.get(field, "").strip() or without
    # More days than these Python can't count.
    return _number(field, text, 6) if text else None


def _number(field: str, text: str, digits: int = 10) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= digits):
        raise invalid(field, "has to be a whole number.")
    return int(text)
