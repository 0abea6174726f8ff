"""The pages of opt-outs: the form, one click away from each work of an answer, and what became of a request.

Who asks without a key holds the request's token: in a cookie that is sent to that request's page alone, or typed in.
It never stands in an address.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import RedirectResponse, Response

from app import opt_outs
from app.callers import Caller, Following, Looking, OptingOut
from app.catalogue import Picture, ServedIndex
from app.forms import BESIDE_BYTES
from app.language import Language, language_of
from app.opt_out_schemas import MAX_CREATOR, OptOut, OptOutQuery, OptOutRequest
from app.problems import Problem
from app.refusals import mistaken, refusal
from app.rendering import is_sure, render, sure_page, wants_html
from app.service import Service, service_of
from app.uploads import parse_as, small_form
from jobs.credentials import Scope
from jobs.opt_outs import IN_FORCE, MAX_CONTACT, MAX_STATEMENT, WITHOUT_KEY

router = APIRouter(include_in_schema=False)

SEE_OTHER = 303
COOKIE = "das_opt_out"
NO_STORE = {"Cache-Control": "no-store"}
LIMITS = {"max_creator": MAX_CREATOR, "max_contact": MAX_CONTACT, "max_statement": MAX_STATEMENT}
NO_SUCH_WORK = "There is no such work in the indexes here."
NO_INDEX = "No attribution index is loaded."


@dataclass(frozen=True)
class Shown:
    """A work as the form shows it: by its title and picture to those who may read answers, else by its id."""

    id: str
    index: str
    title: str | None = None
    creator: str | None = None
    picture: Picture | None = None


@router.get("/opt-out")
async def empty_form(request: Request, caller: OptingOut) -> Response:
    """Ask that a creator's works be left out."""
    return await run_in_threadpool(_form, request, caller, {}, None)


@router.get("/opt-out/erased")
async def erased(request: Request) -> Response:
    """Where erasing leads: the request's own page is closed to who came by its token."""
    language = language_of(request)
    context = {"title": language("opt_out.erased"), "detail": language("opt_out.erased_note")}
    return render(request, "message.html", context)


@router.get("/opt-out/{index_id}/{work_id}")
async def form_for_a_work(request: Request, caller: OptingOut, index_id: str, work_id: str) -> Response:
    """Ask that this work be left out, or all of its creator's."""
    given = {"about": "work", "index": index_id, "work": work_id}
    return await run_in_threadpool(_form, request, caller, given, None)


@router.post("/opt-out")
async def ask_by_form(request: Request, caller: OptingOut) -> Response:
    """Receive a request. A refusal is shown on the form, which keeps what was written into it."""
    service = service_of(request)
    given = await small_form(service, request, BESIDE_BYTES)
    try:
        received = await opt_outs.ask(service, caller, parse_as(OptOutRequest, _asked(given)))
    except Problem as problem:
        return await run_in_threadpool(_form, request, caller, given, problem)
    response = RedirectResponse(f"/opt-outs/{received.id}", SEE_OTHER, NO_STORE)
    if received.token is not None and caller.owner == WITHOUT_KEY:
        _keep(request, response, received.id, received.token)
    return response


@router.get("/opt-outs")
async def own_requests(
    request: Request, caller: Looking, cursor: Annotated[str | None, Query(max_length=200)] = None
) -> Response:
    """The requests of who asked with a key, newest first; everybody's for who administers the service."""
    page = await opt_outs.listed(service_of(request), caller, OptOutQuery(cursor=cursor))
    context = {"items": page.items, "next_cursor": page.next_cursor}
    return render(request, "opt-outs.html", context, headers=NO_STORE)


@router.get("/opt-outs/{opt_out_id}")
async def followed(request: Request, caller: Following, opt_out_id: str) -> Response:
    """How far a request is. Who may not see it is asked for its token, whether or not there is one."""
    service, token = service_of(request), request.cookies.get(COOKIE)
    try:
        told = await opt_outs.look(service, caller, opt_out_id, token)
    except Problem as problem:
        return _ask_for_token(request, opt_out_id, problem)
    context = {
        "o": told,
        "works": await run_in_threadpool(_titles, service, caller, told),
        "facts": _facts(told, language_of(request)),
        "token": token if caller.owner == WITHOUT_KEY else None,
        "in_force": told.state in IN_FORCE,
    }
    return render(request, "opt-out-state.html", context, headers=NO_STORE)


@router.post("/opt-outs/{opt_out_id}")
async def enter_token(request: Request, caller: Following, opt_out_id: str) -> Response:
    """Come to a request's page by the token that was shown when it was made."""
    service = service_of(request)
    token = (await small_form(service, request)).get("token", "").strip()
    try:
        told = await opt_outs.look(service, caller, opt_out_id, token)
    except Problem as problem:
        return _ask_for_token(request, opt_out_id, problem, wrong=True)
    response = RedirectResponse(f"/opt-outs/{told.id}", SEE_OTHER, NO_STORE)
    _keep(request, response, told.id, token)
    return response


@router.post("/opt-outs/{opt_out_id}/withdraw")
async def withdraw_by_form(request: Request, caller: Following, opt_out_id: str) -> Response:
    """Take a request back."""
    if not await is_sure(request):
        return await _sure(request, caller, opt_out_id, "opt_out.withdraw")
    try:
        await opt_outs.withdraw(service_of(request), caller, opt_out_id, request.cookies.get(COOKIE))
    except Problem as problem:
        # It was refused between the page and the click: the page says so.
        if problem.code != "conflict":
            return _ask_for_token(request, opt_out_id, problem)
    return RedirectResponse(f"/opt-outs/{opt_out_id}", SEE_OTHER, NO_STORE)


@router.post("/opt-outs/{opt_out_id}/erase")
async def erase_by_form(request: Request, caller: Following, opt_out_id: str) -> Response:
    """Erase what is known of who asked; the request stays."""
    if not await is_sure(request):
        return await _sure(request, caller, opt_out_id, "opt_out.erase")
    try:
        await opt_outs.erase(service_of(request), caller, opt_out_id, request.cookies.get(COOKIE))
    except Problem as problem:
        return _ask_for_token(request, opt_out_id, problem)
    response = RedirectResponse("/opt-out/erased", SEE_OTHER, NO_STORE)
    response.delete_cookie(COOKIE, path=f"/opt-outs/{opt_out_id}")
    return response


async def _sure(request: Request, caller: Caller, opt_out_id: str, deed: str) -> Response:
    """Ask who may see the request whether they are sure."""
    try:
        await opt_outs.look(service_of(request), caller, opt_out_id, request.cookies.get(COOKIE))
    except Problem as problem:
        return _ask_for_token(request, opt_out_id, problem)
    return sure_page(request, f"/opt-outs/{opt_out_id}", deed)


def _asked(given: dict[str, str]) -> dict[str, object]:
    """The fields of the API's request that a form says."""
    # A browser sends the line ends of a text field as two characters, and its empty fields too.
    statement = given.get("statement", "").replace("\r\n", "\n").strip()
    about: dict[str, object] = (
        {"works": [given.get("work", "")]}
        if given.get("about") == "work"
        else {"creator": given.get("creator", "")}
    )
    fields = {"index": given.get("index") or None, "statement": statement or None}
    return {**fields, **about, "contact": given.get("contact", "")}


def _form(request: Request, caller: Caller, given: dict[str, str], problem: Problem | None) -> Response:
    service = service_of(request)
    seen = service.catalogue.within(caller.indexes)
    work = None
    if given.get("work"):
        work = _work(service, caller, seen.find(given.get("index", "")), given["work"])
        if work is None and problem is None:
            raise Problem("not-found", NO_SUCH_WORK)
    if work is not None and "creator" not in given:
        given = {**given, "creator": work.creator or ""}
    # In the form's order.
    fields = ["creator", "contact", "statement"]
    if work is None and len(seen) > 1:
        fields.insert(0, "index")
    context = {
        "given": given,
        "work": work,
        "indexes": list(seen),
        # What is amiss on the machine is for those who come in.
        "no_index": seen.missing if Scope.READ in caller.scopes else NO_INDEX,
        "problem": None if problem is None else refusal(request, problem, {name: name for name in fields}),
        "follows": Scope.READ in caller.scopes,
        **LIMITS,
    }
    headers = NO_STORE if problem is None else {**NO_STORE, **problem.headers}
    return render(request, "opt-out.html", context, 200 if problem is None else problem.kind.status, headers)


def _work(service: Service, caller: Caller, served: ServedIndex | None, work_id: str) -> Shown | None:
    """The work that a form is about; None where there is none that this caller may know of."""
    row = None if served is None else served.index.works.find(work_id)
    view = service.visibility.to(caller)
    if served is None or row is None or not view.shows(served, row):
        return None
    if Scope.READ not in caller.scopes or not view.allowed([work_id]):
        return Shown(work_id, served.id)
    work = served.work(row)
    return Shown(work_id, served.id, work["title"], work["creator"], served.picture(row))


def _titles(service: Service, caller: Caller, told: OptOut) -> list[str]:
    """The works that a request names, by their titles where this caller may know them."""
    served = next((one for one in service.catalogue.within(caller.indexes) if one.name == told.index), None)
    if served is None or Scope.READ not in caller.scopes:
        return told.works or []
    known = service.visibility.known_to(caller, served)
    found = ((work_id, served.index.works.find(work_id)) for work_id in told.works or [])
    rows = {work_id: row for work_id, row in found if row is not None and known[row]}
    allowed = service.visibility.to(caller).allowed([*rows])
    return [
        served.work(rows[work_id])["title"] or work_id if work_id in allowed else work_id
        for work_id in told.works or []
    ]


def _facts(told: OptOut, language: Language) -> list[tuple[str, str]]:
    """What was done, and when: each part by itself."""

    def moment(at: datetime | None) -> str:
        return language("opt_out.not_yet") if at is None else language.moment(at)

    hidden = moment(told.hidden_at)
    if not told.hidden and told.shown_again_at is not None:
        hidden = language("opt_out.shown_again", moment=moment(told.shown_again_at))
    facts = [("asked", moment(told.created_at)), ("hidden", hidden)]
    if told.state in IN_FORCE:
        left_out = moment(told.left_out_at)
        if told.left_out_at is not None and told.matches:
            # That it was done is the operator's word; what is served is there to be seen.
            left_out = language("opt_out.still_there", moment=left_out, index=told.index, n=told.matches)
        facts += [("left_out", left_out), ("removed", moment(told.removed_at))]
    said = {"reason": told.reason, "contact_kept": told.contact, "statement_kept": told.statement}
    facts += [(name, value) for name, value in said.items() if value is not None]
    return [(language(f"opt_out.{name}"), value) for name, value in facts]


def _ask_for_token(request: Request, opt_out_id: str, problem: Problem, wrong: bool = False) -> Response:
    if problem.code != "not-found" or not wants_html(request):
        raise problem
    said = mistaken("token", language_of(request)("opt_out.code_wrong")) if wrong else None
    context = {"id": opt_out_id, "problem": said}
    return render(request, "opt-out-token.html", context, problem.kind.status, NO_STORE)


def _keep(request: Request, response: Response, opt_out_id: str, token: str) -> None:
    """Let this browser come back to the request's page until it is closed."""
    response.set_cookie(
        COOKIE,
        token,
        path=f"/opt-outs/{opt_out_id}",
        secure=service_of(request).sessions.secure(request),
        httponly=True,
        samesite="lax",
    )
