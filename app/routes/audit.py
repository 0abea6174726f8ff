"""`/v1/audit-events`: who did what, for those who administer the service."""

import json
from collections.abc import Iterator
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response, StreamingResponse

from app.audit_schemas import COLUMNS, AuditEntry, AuditFilter, AuditList, AuditQuery
from app.callers import Administering
from app.problems import bad_parameter, documented
from app.service import service_of
from app.spreadsheets import csv_lines
from jobs.audit import AuditEvent, AuditFilters
from jobs.errors import BadCursor

router = APIRouter(prefix="/v1", tags=["audit"])

NO_STORE = {"Cache-Control": "no-store"}
FAULTS = ("invalid-request", "storage-unavailable")


@router.get(
    "/audit-events", operation_id="listAuditEvents", response_model=AuditList, responses=documented(*FAULTS)
)
async def list_audit_events(
    request: Request, caller: Administering, query: Annotated[AuditQuery, Query()]
) -> Response:
    """The audit log, newest first."""
    service = service_of(request)
    try:
        page = await run_in_threadpool(service.store.audit.list, filters_of(query), query.cursor, query.limit)
    except BadCursor as error:
        raise bad_parameter("cursor", f"{error}.") from error
    told = AuditList(items=[_entry(event) for event in page.events], next_cursor=page.next_cursor)
    return Response(told.model_dump_json(), headers=NO_STORE, media_type="application/json")


@router.get(
    "/audit-events.csv",
    operation_id="exportAuditEventsCsv",
    response_class=Response,
    responses={200: {"content": {"text/csv": {}}, "description": "Every entry."}, **documented(*FAULTS)},
)
async def export_csv(
    request: Request, caller: Administering, query: Annotated[AuditFilter, Query()]
) -> Response:
    """The whole log as a table for spreadsheets; no cell of it is taken for a formula."""
    events = service_of(request).store.audit.each(filters_of(query))
    rows = ({**plain(event), "details": json.dumps(event.details)} for event in events)
    return _file(csv_lines(COLUMNS, rows), "text/csv", "audit-events.csv")


@router.get(
    "/audit-events.jsonl",
    operation_id="exportAuditEventsJsonl",
    response_class=Response,
    responses={
        200: {"content": {"application/jsonl": {}}, "description": "Every entry, one a line."},
        **documented(*FAULTS),
    },
)
async def export_jsonl(
    request: Request, caller: Administering, query: Annotated[AuditFilter, Query()]
) -> Response:
    """The whole log, one JSON object a line."""
    events = service_of(request).store.audit.each(filters_of(query))
    return _file(
        (_entry(event).model_dump_json() + "\n" for event in events),
        "application/jsonl",
        "audit-events.jsonl",
    )


def filters_of(query: AuditFilter) -> AuditFilters:
    """The filters of a request."""
    return AuditFilters(**query.model_dump(include=set(AuditFilter.model_fields)))


def plain(event: AuditEvent) -> dict[str, object]:
    """An entry as plain values."""
    return {**{name: getattr(event, name) for name in COLUMNS}, "at": event.at.isoformat()}


def _entry(event: AuditEvent) -> AuditEntry:
    return AuditEntry(**{name: getattr(event, name) for name in COLUMNS})


def _file(lines: Iterator[str], media_type: str, name: str) -> Response:
    headers = {**NO_STORE, "Content-Disposition": f'attachment; filename="{name}"'}
    return StreamingResponse(lines, headers=headers, media_type=media_type)
