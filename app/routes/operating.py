"""The operator's pages but for keys, webhooks and opt-outs: the overview, jobs, workers, the audit log, storage.

Each takes the scope `admin`, is a page without JavaScript, and changes something by a form that is posted.
"""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool
from starlette.responses import RedirectResponse, Response

from app import operating, questions
from app.callers import Administering, Caller
from app.language import language_of
from app.operating import NO_STORE, SEE_OTHER, no_cursor, older, shown
from app.operator_forms import AUDIT_FIELDS, AuditDays, Name, filters_of
from app.problems import Problem
from app.rendering import is_sure, sure_page
from app.service import service_of
from app.waiting import find
from jobs.credentials import Scope
from jobs.errors import BadCursor

router = APIRouter(prefix="/operator", include_in_schema=False)

JobState = Literal["open", "failed", "succeeded", "cancelled", "all"]


Cursor = Annotated[str | None, Field(max_length=200)]


class JobsQuery(BaseModel):
    """Which questions are shown."""

    model_config = ConfigDict(extra="forbid")

    state: JobState = "open"
    key: Name = None
    cursor: Cursor = None


@router.get("")
async def overview(request: Request, _caller: Administering) -> Response:
    """Every part in a few lines."""
    tiles = await run_in_threadpool(operating.overview, service_of(request), language_of(request))
    return shown(request, "", {"tiles": tiles})


@router.get("/jobs")
async def jobs(request: Request, caller: Administering, query: Annotated[JobsQuery, Query()]) -> Response:
    """The queue, and questions by their state and key: never what was asked."""
    return await _jobs(request, caller, query, None)


@router.post("/jobs/{job_id}/cancel")
async def cancel(request: Request, caller: Administering, job_id: str) -> Response:
    """Cancel a question of one's own key: as in the API, nobody reaches another's."""
    return await _changed(request, caller, questions.cancel, job_id)


@router.post("/jobs/{job_id}/erase")
async def erase(request: Request, caller: Administering, job_id: str) -> Response:
    """Erase a question of one's own key."""
    if not await is_sure(request):
        caller.needs(Scope.ASK)
        await find(service_of(request), caller, job_id)
        return sure_page(request, "/operator/jobs")
    return await _changed(request, caller, questions.erase, job_id)


@router.get("/workers")
async def workers(request: Request, _caller: Administering) -> Response:
    """Who computes, and what."""
    return shown(request, "workers", await run_in_threadpool(operating.workers, service_of(request)))


@router.get("/audit")
async def audit(request: Request, _caller: Administering) -> Response:
    """Who did what to which object. A filter that can't be read is told beside its field, and no entry is shown."""
    query, given, problem = filters_of(AuditDays, request)
    if query is None:
        return shown(request, "audit", {"events": None, "given": given}, problem, fields=AUDIT_FIELDS)
    try:
        page = await run_in_threadpool(service_of(request).store.audit.list, query.filters, query.cursor)
    except BadCursor as error:
        raise no_cursor(error) from error
    given.pop("cursor", None)
    return shown(
        request,
        "audit",
        {"events": page.events, "given": given, "older": older("audit", page.next_cursor, **given)},
    )


@router.get("/storage")
async def storage(request: Request, _caller: Administering) -> Response:
    """Where everything lies and how large it is."""
    return shown(request, "storage", await run_in_threadpool(operating.storage, service_of(request)))


async def _jobs(request: Request, caller: Caller, query: JobsQuery, problem: Problem | None) -> Response:
    context = await run_in_threadpool(
        operating.jobs, service_of(request), caller, query.state, query.key, query.cursor
    )
    return shown(request, "jobs", context, problem)


async def _changed(request: Request, caller: Caller, change: Any, job_id: str) -> Response:
    caller.needs(Scope.ASK)
    try:
        await change(service_of(request), caller, job_id)
    except Problem as problem:
        return await _jobs(request, caller, JobsQuery(), problem)
    return RedirectResponse("/operator/jobs", SEE_OTHER, NO_STORE)
