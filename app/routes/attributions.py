"""`/v1/attributions`: ask which works a picture owes most to, follow the question, read the answer."""

from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query, Request
from pydantic import BaseModel
from starlette.responses import Response

from app import questions
from app.callers import Asking, Reading
from app.examples import ATTRIBUTION, REQUEST_JSON, REQUEST_URL
from app.idempotency import IdempotencyKey, key_of, known, once
from app.intake import refuse_when_full
from app.middleware import NEVER_ANSWERED
from app.problems import documented
from app.schemas import Attribution, AttributionList, ListQuery
from app.service import service_of
from app.uploads import fetched, parse_fields, upload
from app.waiting import MAX_WAIT_S, find, preferred_wait, unless_gone

router = APIRouter(prefix="/v1/attributions", tags=["attributions"])

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


def _headers(*names: str) -> dict[str, Any]:
    return {name: {"description": HEADERS[name], "schema": {"type": "string"}} for name in names}


def _answer(example: str, *headers: str) -> dict[str, Any]:
    examples = {example: {"$ref": f"#/components/examples/{example}"}}
    return {"headers": _headers("ETag", *headers), "content": {"application/json": {"examples": examples}}}


HEADERS = {
    "ETag": "The version of the answer, for If-None-Match.",
    "Location": "Where the answer is.",
    "Retry-After": "Seconds after which to look again; not sent once it is finished.",
    "Preference-Applied": "The `wait` that was taken of the request's Prefer.",
    "Idempotency-Replayed": "`true` where the question was asked by an earlier request of the same Idempotency-Key.",
}
SENT_ON_DEMAND = ("Preference-Applied", "Idempotency-Replayed")
ACCEPTED = "Accepted: the question is queued; look at Location for its answer."
DONE = "Done within the time that `Prefer: wait=N` allowed."
REQUEST_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "multipart/form-data": {"schema": {"$ref": "#/components/schemas/AttributionForm"}},
        "application/json": {
            "schema": {
                "oneOf": [
                    {"$ref": "#/components/schemas/AttributionJson"},
                    {"$ref": "#/components/schemas/AttributionUrl"},
                ]
            },
            "examples": {"bytes": {"value": REQUEST_JSON}, "address": {"value": REQUEST_URL}},
        },
    },
}


@router.post(
    "",
    operation_id="createAttribution",
    status_code=202,
    response_model=Attribution,
    responses={
        202: {**_answer("queued", "Location", "Retry-After", *SENT_ON_DEMAND), "description": ACCEPTED},
        200: {
            **_answer("succeeded", "Location", *SENT_ON_DEMAND), "description": DONE, "model": Attribution,
        },
        **documented(
            "malformed-body", "cross-site", "too-slow", "too-large", "unsupported-media-type",
            "unsupported-image", "invalid-request", "address-refused", "image-refused", "request-in-flight", "erased",
            "idempotency-key-reused", "queue-full", "busy", "not-ready", "quota-exhausted", "storage-unavailable",
            "storage-full",
        ),
    },
    openapi_extra={"requestBody": REQUEST_BODY},
)  # fmt: skip
async def create_attribution(
    request: Request,
    caller: Asking,
    prefer: Annotated[
        str | None,
        Header(description="`wait=N` (RFC 7240): answer 200 with the result if done in N seconds."),
    ] = None,
    _idempotency_key: IdempotencyKey = None,
) -> Response:
    """Ask which training works a picture owes most to."""
    service = service_of(request)
    key = key_of(request, caller)
    if not await known(service, key):
        await refuse_when_full(service, caller)
    async with upload(service, request) as (picture, fields):
        asked = parse_fields(fields)
        async with once(service, request, key, picture, asked.model_dump()) as turn:
            if turn.made is None:
                async with fetched(service, caller, picture) as data:
                    job = await questions.ask(service, caller, data, asked, claim=turn.claim)
            else:
                job = await find(service, caller, turn.made)
    headers = {"Location": f"/v1/attributions/{job.id}", **turn.headers}
    wait = preferred_wait(prefer)
    if wait is not None:
        headers["Preference-Applied"] = f"wait={wait}"
        waited = await unless_gone(request, questions.answer(service, caller, job.id, wait, None))
        if waited is None:
            return Response(status_code=NEVER_ANSWERED)
        answer = waited
    else:
        answer = await questions.told(service, caller, job)
    # Without `Prefer` it is 202 as documented, even where the question was answered meanwhile.
    return as_json(answer, 200 if wait is not None and answer.finished else 202, headers)


@router.get(
    "",
    operation_id="listAttributions",
    response_model=AttributionList,
    responses=documented("invalid-request", "storage-unavailable"),
)
async def list_attributions(
    request: Request, caller: Reading, query: Annotated[ListQuery, Query()]
) -> Response:
    """Questions in short, newest first; the whole answer is at `links.self`. Erased ones only with `state=erased`."""
    return _json(await questions.listed(service_of(request), caller, query))


@router.get(
    "/{attribution_id}",
    operation_id="getAttribution",
    response_model=Attribution,
    responses={
        200: {**_answer("succeeded", "Retry-After"), "description": "The question as it stands."},
        304: {
            "headers": _headers("ETag"),
            "description": "Nothing has changed since the ETag in If-None-Match.",
        },
        **documented("not-found", "erased", "invalid-request", "storage-unavailable"),
    },
)
async def get_attribution(
    request: Request,
    caller: Reading,
    attribution_id: JobId,
    wait: Wait = None,
    if_none_match: Annotated[str | None, Header(description="The ETag of an earlier answer.")] = None,
) -> Response:
    """One question: its state, its progress and its answer once that is there."""
    service = service_of(request)
    asking = questions.answer(service, caller, attribution_id, wait, if_none_match)
    answer = await unless_gone(request, asking) if wait else await asking
    return Response(status_code=NEVER_ANSWERED) if answer is None else as_json(answer)


@router.post(
    "/{attribution_id}/cancel",
    operation_id="cancelAttribution",
    response_model=Attribution,
    responses={
        200: {
            **_answer("cancelled"),
            "description": "The question, cancelled. Its picture is kept as any other's.",
        },
        **documented(
            "cross-site", "not-found", "conflict", "erased", "invalid-request", "storage-unavailable"
        ),
    },
)
async def cancel_attribution(request: Request, caller: Asking, attribution_id: JobId) -> Response:
    """Stop working on a question. Cancelling one that is cancelled changes nothing."""
    service = service_of(request)
    job = await questions.cancel(service, caller, attribution_id)
    return as_json(await questions.told(service, caller, job))


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
async def delete_attribution(request: Request, caller: Asking, attribution_id: JobId) -> Response:
    """Erase a question: its picture, result and everything about it. Deleting it again changes nothing."""
    await questions.erase(service_of(request), caller, attribution_id)
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
async def get_attribution_image(request: Request, caller: Reading, attribution_id: JobId) -> Response:
    """The picture that was asked about."""
    png = await questions.image(service_of(request), caller, attribution_id)
    # Not `immutable`: it may be erased, and a cache shall not keep it much longer.
    return Response(png, media_type="image/png", headers={"Cache-Control": "private, max-age=300"})


def as_json(answer: questions.Answer, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """What is told of a question as a JSON response with its ETag: 304 where the caller has it."""
    spoken = {"ETag": answer.etag, "Vary": "Accept-Language", "Content-Language": answer.language.code}
    if not answer.body:
        return Response(status_code=304, headers=spoken)
    retry = {} if answer.finished else {"Retry-After": str(answer.look_again_s)}
    all_headers = {**spoken, "Cache-Control": "private, no-cache", **retry, **(headers or {})}
    return Response(answer.body, status, all_headers, "application/json")


def _json(model: BaseModel, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    # Written by pydantic at once: through FastAPI each answer would be checked and taken apart again.
    return Response(model.model_dump_json(by_alias=True), status, headers, "application/json")
