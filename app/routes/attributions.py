"""`/v1/attributions`: ask which works a picture owes most to, follow the question, read the answer."""

import re
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query, Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response

from app.answers import attribution
from app.examples import ATTRIBUTION, REQUEST_JSON
from app.intake import ask, refuse_when_full
from app.problems import FieldProblem, Problem, documented
from app.schemas import (
    MAX_TAG_LENGTH,
    Attribution,
    AttributionList,
    AttributionRequest,
    Printable,
    State,
)
from app.service import Service, service_of
from app.uploads import read_upload
from app.waiting import MAX_WAIT_S, etag, find, finished, matches, wait_until
from jobs.errors import BadCursor, JobNotFound
from jobs.models import Job, JobFilters, JobState

router = APIRouter(prefix="/v1/attributions", tags=["attributions"])

# What a client is told to wait before it looks again at a question that is being worked on.
RETRY_AFTER_S = 1
PREFER_WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,9})\"?(?:$|[,;\s])", re.IGNORECASE)

JobId = Annotated[
    str, Path(description="The id that POST answered with.", examples=[ATTRIBUTION["id"]], max_length=64)
]
Wait = Annotated[
    float | None,
    Query(
        ge=0,
        le=MAX_WAIT_S,
        allow_inf_nan=False,
        description="Hold the answer for up to so many seconds: until the question is finished, or, with "
        "If-None-Match, until anything about it has changed.",
    ),
]
ANSWER: dict[str, Any] = {
    "headers": {"ETag": {"schema": {"type": "string"}}},
    "content": {"application/json": {"example": ATTRIBUTION}},
}
REQUEST_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "allOf": [
                    {"$ref": "#/components/schemas/AttributionRequest"},
                    {
                        "type": "object",
                        "required": ["image"],
                        "properties": {
                            "image": {"type": "string", "contentMediaType": "application/octet-stream"}
                        },
                    },
                ]
            }
        },
        "application/json": {
            "schema": {
                "allOf": [
                    {"$ref": "#/components/schemas/AttributionRequest"},
                    {
                        "type": "object",
                        "required": ["image_base64"],
                        "properties": {"image_base64": {"type": "string", "contentEncoding": "base64"}},
                    },
                ]
            },
            "example": REQUEST_JSON,
        },
    },
}


class ListQuery(BaseModel):
    """Filters and paging of the list. A misspelt filter would silently show everything, so it is an error."""

    model_config = ConfigDict(extra="forbid")

    state: State | None = None
    client_tag: Printable | None = Field(default=None, max_length=MAX_TAG_LENGTH)
    created_after: datetime | None = Field(default=None, description="RFC 3339, with a time zone.")
    cursor: str | None = Field(default=None, max_length=200, description="`next_cursor` of the page before.")
    limit: int = Field(default=20, ge=1, le=100)


@router.post(
    "",
    operation_id="createAttribution",
    status_code=202,
    response_model=Attribution,
    responses={
        202: {**ANSWER, "description": "Accepted: the question is queued; look at Location for its answer."},
        200: {**ANSWER, "description": "Done within the time that `Prefer: wait=N` allowed.", "model": Attribution},
        **documented(
            "malformed-body", "cross-site", "too-large", "unsupported-media-type", "unsupported-image",
            "invalid-request", "image-refused", "queue-full", "not-ready", "storage-unavailable", "storage-full",
        ),
    },
    openapi_extra={"requestBody": REQUEST_BODY},
)  # fmt: skip
async def create_attribution(
    request: Request,
    prefer: Annotated[
        str | None,
        Header(description="`wait=N` (RFC 7240): answer 200 with the result if done in N seconds."),
    ] = None,
) -> Response:
    """Ask which training works a picture owes most to."""
    service = service_of(request)
    await refuse_when_full(service)
    data, fields = await read_upload(request, service.settings.max_upload_bytes)
    job = await ask(service, data, parse_fields(fields))
    headers = {"Location": f"/v1/attributions/{job.id}"}
    wait = preferred_wait(prefer)
    if wait is not None:
        headers["Preference-Applied"] = f"wait={wait}"
        job = await wait_until(service, job.id, finished, wait)
    if finished(job):
        return await answer(service, job, 200, headers)
    return await answer(service, job, 202, {**headers, "Retry-After": str(RETRY_AFTER_S)})


@router.get(
    "",
    operation_id="listAttributions",
    response_model=AttributionList,
    responses=documented("invalid-request", "storage-unavailable"),
)
async def list_attributions(request: Request, query: Annotated[ListQuery, Query()]) -> AttributionList:
    """Questions and their answers, newest first. Erased ones are listed only with `state=erased`."""
    service = service_of(request)
    if query.created_after is not None and query.created_after.tzinfo is None:
        raise _parameter_problem("created_after", "needs a time zone, such as 2026-01-31T12:00:00Z.")
    filters = JobFilters(query.state, query.client_tag, query.created_after)
    try:
        page = await run_in_threadpool(service.store.list, filters, query.cursor, query.limit)
    except BadCursor as error:
        raise _parameter_problem("cursor", f"{error}.") from error
    items = [await described(service, job) for job in page.jobs]
    return AttributionList(items=items, next_cursor=page.next_cursor)


@router.get(
    "/{attribution_id}",
    operation_id="getAttribution",
    response_model=Attribution,
    responses={
        200: {**ANSWER, "description": "The question as it stands."},
        304: {"description": "Nothing has changed since the ETag in If-None-Match."},
        **documented("not-found", "erased", "invalid-request", "storage-unavailable"),
    },
)
async def get_attribution(
    request: Request,
    attribution_id: JobId,
    wait: Wait = None,
    if_none_match: Annotated[str | None, Header(description="The ETag of an earlier answer.")] = None,
) -> Response:
    """One question: its state, its progress and its answer once that is there."""
    service = service_of(request)
    job = await current(service, attribution_id, wait, if_none_match)
    if matches(if_none_match, etag(job)):
        return Response(status_code=304, headers={"ETag": etag(job)})
    headers = {} if finished(job) else {"Retry-After": str(RETRY_AFTER_S)}
    return await answer(service, job, 200, headers)


@router.post(
    "/{attribution_id}/cancel",
    operation_id="cancelAttribution",
    response_model=Attribution,
    responses={
        200: {**ANSWER, "description": "The question, cancelled. Its picture is kept until it is deleted."},
        **documented(
            "cross-site", "not-found", "conflict", "erased", "invalid-request", "storage-unavailable"
        ),
    },
)
async def cancel_attribution(request: Request, attribution_id: JobId) -> Response:
    """Stop working on a question. Cancelling one that is cancelled changes nothing."""
    service = service_of(request)
    return await answer(service, await cancel(service, attribution_id), 200, {})


@router.delete(
    "/{attribution_id}",
    operation_id="deleteAttribution",
    status_code=204,
    response_class=Response,
    responses={
        204: {"description": "Picture and result are gone; the address answers 410 from now on."},
        **documented("cross-site", "not-found", "invalid-request", "storage-unavailable"),
    },
)
async def delete_attribution(request: Request, attribution_id: JobId) -> Response:
    """Erase a question: its picture, result and everything about it. Deleting it again changes nothing."""
    await erase(service_of(request), attribution_id)
    return Response(status_code=204)


@router.get(
    "/{attribution_id}/image",
    operation_id="getAttributionImage",
    response_class=Response,
    responses={
        200: {
            "content": {"image/png": {}},
            "description": "The picture as it was normalised: sRGB, no metadata.",
        },
        **documented("not-found", "erased", "invalid-request", "storage-unavailable"),
    },
)
async def get_attribution_image(request: Request, attribution_id: JobId) -> Response:
    """The picture that was asked about."""
    service = service_of(request)
    job = await find(service, attribution_id)
    png = await run_in_threadpool(service.store.image, job.id)
    # Not `immutable`: it may be erased, and a cache shall not keep it much longer.
    return Response(png, media_type="image/png", headers={"Cache-Control": "private, max-age=300"})


def parse_fields(fields: dict[str, Any]) -> AttributionRequest:
    """The fields beside the image; raises `Problem` with a pointer to each that can't be used."""
    try:
        return AttributionRequest.model_validate(fields)
    except ValidationError as error:
        problems = [
            FieldProblem(
                detail=_sentence(item["type"], item["msg"]),
                pointer="".join(
                    f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in item["loc"]
                ),
            )
            for item in error.errors(include_url=False)
        ]
        first = problems[0]
        raise Problem(
            "invalid-request", f"{(first.pointer or '/')[1:]}: {first.detail}", errors=problems
        ) from error


def _sentence(kind: str, message: str) -> str:
    if kind == "extra_forbidden":
        return (
            f"is not a field of this request; there are image, {', '.join(AttributionRequest.model_fields)}."
        )
    return message.removeprefix("Value error, ")


def preferred_wait(prefer: str | None) -> int | None:
    """The seconds of `Prefer: wait=N`, at most MAX_WAIT_S; None without it. RFC 7240: what isn't known is ignored."""
    found = PREFER_WAIT.search(prefer or "")
    return None if found is None else min(int(found[1]), int(MAX_WAIT_S))


async def current(service: Service, job_id: str, wait: float | None, if_none_match: str | None) -> Job:
    """The job, after waiting for its end or, where the caller knows a version, for a change."""
    if not wait:
        return await find(service, job_id)

    def changed(job: Job) -> bool:
        return finished(job) if if_none_match is None else not matches(if_none_match, etag(job))

    return await wait_until(service, job_id, changed, wait)


async def cancel(service: Service, job_id: str) -> Job:
    """Cancel an open job; raises `Problem`: not-found, erased, or conflict for one that ended otherwise."""
    await find(service, job_id)
    try:
        job = await run_in_threadpool(service.store.cancel, job_id)
    except JobNotFound as error:
        raise Problem("erased", "This attribution was deleted meanwhile.") from error
    if job.state != JobState.CANCELLED:
        raise Problem("conflict", f"It can't be cancelled any more: it has {job.state}.")
    return job


async def erase(service: Service, job_id: str) -> None:
    """Erase a job; raises `Problem` not-found for an id that was never given."""
    try:
        await run_in_threadpool(service.store.erase, job_id)
    except JobNotFound as error:
        raise Problem("not-found", "There is no attribution with this id.") from error


async def described(service: Service, job: Job) -> Attribution:
    """What the API says of a job."""
    waiting = await run_in_threadpool(service.store.queue_depth) if job.state == JobState.QUEUED else None
    failure = service.screener.failure(job.index_id)
    return await run_in_threadpool(attribution, job, service.catalogue, waiting=waiting, screening=failure)


async def answer(service: Service, job: Job, status: int, headers: dict[str, str]) -> Response:
    """A job as a JSON response with its ETag."""
    body = await described(service, job)
    return JSONResponse(
        body.model_dump(mode="json"),
        status_code=status,
        headers={"ETag": etag(job), "Cache-Control": "no-cache", **headers},
    )


def _parameter_problem(name: str, why: str) -> Problem:
    return Problem("invalid-request", f"{name}: {why}", errors=[FieldProblem(detail=why, parameter=name)])
