"""Reports of answers as evidence, and the key that they are signed with."""

from typing import Annotated

from fastapi import APIRouter, Path, Request
from starlette.responses import Response

from app import questions
from app.callers import Caller, Reading
from app.evidence import MEDIA_TYPES, Kind
from app.examples import ATTRIBUTION
from app.problems import Problem, documented
from app.report_schemas import Report, ReportKey
from app.service import service_of

router = APIRouter(prefix="/v1", tags=["evidence"])

JobId = Annotated[str, Path(description="The question's id.", examples=[ATTRIBUTION["id"]], max_length=64)]
FAULTS = ("not-found", "erased", "conflict", "invalid-request", "storage-unavailable")


@router.get(
    "/attributions/{attribution_id}/report.json",
    operation_id="getReport",
    response_model=Report,
    responses=documented(*FAULTS),
)
async def get_report(request: Request, caller: Reading, attribution_id: JobId) -> Response:
    """An answer as evidence: all that computing it again takes, sealed. `das report verify` checks it."""
    return await _report(request, caller, attribution_id, "json")


@router.get(
    "/attributions/{attribution_id}/report.html",
    operation_id="getReportPage",
    response_class=Response,
    responses={200: {"content": {"text/html": {}}, "description": "The report."}, **documented(*FAULTS)},
)
async def get_report_page(request: Request, caller: Reading, attribution_id: JobId) -> Response:
    """The report for people: one page with its pictures in it, to keep or to print."""
    return await _report(request, caller, attribution_id, "html")


@router.get(
    "/attributions/{attribution_id}/report.pdf",
    operation_id="getReportPdf",
    response_class=Response,
    responses={
        200: {"content": {"application/pdf": {}}, "description": "The report."},
        **documented(*FAULTS, "busy", "not-ready"),
    },
)
async def get_report_pdf(request: Request, caller: Reading, attribution_id: JobId) -> Response:
    """The report on paper (PDF/A-3) with report.json inside; `das report verify` checks it as it is.

    Signed with C2PA where the operator has a certificate. Takes a few seconds.
    """
    return await _report(request, caller, attribution_id, "pdf")


@router.get(
    "/report-key",
    operation_id="getReportKey",
    response_model=ReportKey,
    responses=documented("not-found"),
)
def get_report_key(request: Request) -> ReportKey:
    """The public key that this service signs its reports with."""
    key = service_of(request).signing_key
    if key is None:
        raise Problem("not-found", "This service signs no reports: it has no key (DAS_REPORT_KEY_FILE).")
    return ReportKey(key_id=key.public.id, pem=key.public.pem)


async def _report(request: Request, caller: Caller, job_id: str, kind: Kind) -> Response:
    data = await questions.report(service_of(request), caller, job_id, kind)
    headers = {
        "Content-Disposition": f'attachment; filename="{job_id}-report.{kind}"',
        "Cache-Control": "no-store",
    }
    return Response(data, media_type=MEDIA_TYPES[kind], headers=headers)
