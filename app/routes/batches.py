"""`/v1/attribution-batches`: ask about many pictures at once, follow them, read all of their answers."""

import json
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query, Request
from pydantic import BaseModel
from starlette.responses import Response, StreamingResponse

from app import batches
from app.batch_examples import BATCH_ID, REQUEST
from app.batch_schemas import MAX_ITEMS, Batch, BatchList, BatchListQuery, BatchResult
from app.batch_uploads import batch_upload
from app.callers import Asking, Caller, Reading
from app.idempotency import IdempotencyKey, key_of, known, once
from app.middleware import NEVER_ANSWERED
from app.problems import documented
from app.service import Service, service_of
from app.waiting import MAX_WAIT_S, matches, preferred_wait, unless_gone
from jobs.batch_rows import BatchSummary
from jobs.batches import is_open

router = APIRouter(prefix=batches.PATH, tags=["batches"])

# No media type is registered for JSON by lines; this is the one that the format's own page and most services use.
# `application/json-seq` (RFC 7464), which is, has another form: a control character before each text.
JSON_LINES = "application/jsonl"
# When to look at a batch again: its pictures are read and measured one after the other.
RETRY_AFTER_S = 2

BatchId = Annotated[
    str, Path(description="The id that POST answered with.", examples=[BATCH_ID], max_length=64)
]
HEADERS = {
    "ETag": "The version of the answer, for If-None-Match.",
    "Location": "Where the batch is.",
    "Retry-After": "Seconds after which to look again; not sent once every picture has ended.",
    "Preference-Applied": "The `wait` that was taken of the request's Prefer.",
    "Idempotency-Replayed": "`true` where the batch was made by an earlier request of the same Idempotency-Key.",
}
SENT_ON_DEMAND = ("Preference-Applied", "Idempotency-Replayed")


class JsonLines(StreamingResponse):
    """JSON by lines, written as it is sent."""

    media_type = JSON_LINES


def _headers(*names: str) -> dict[str, Any]:
    return {name: {"description": HEADERS[name], "schema": {"type": "string"}} for name in names}


def _answer(example: str, description: str, *headers: str) -> dict[str, Any]:
    examples = {example: {"$ref": f"#/components/examples/{example}"}}
    return {
        "description": description,
        "headers": _headers("ETag", *headers),
        "content": {"application/json": {"examples": examples}},
    }


@router.post(
    "",
    operation_id="createAttributionBatch",
    status_code=202,
    response_model=Batch,
    responses={
        202: _answer(
            "batch-accepted", "Accepted with all of its pictures; look at Location for what becomes of them.",
            "Location", "Retry-After", *SENT_ON_DEMAND,
        ),
        200: {
            **_answer("batch", "Every picture ended within the time that `Prefer: wait=N` allowed.", "Location",
                      *SENT_ON_DEMAND),
            "model": Batch,
        },
        **documented(
            "malformed-body", "cross-site", "too-slow", "too-large", "unsupported-media-type", "invalid-request",
            "request-in-flight", "erased", "idempotency-key-reused", "queue-full", "busy", "not-ready",
            "quota-exhausted", "storage-unavailable", "storage-full",
        ),
    },
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "multipart/form-data": {"schema": {"$ref": "#/components/schemas/BatchForm"}},
                "application/json": {"schema": {"$ref": "#/components/schemas/BatchJson"}, "example": REQUEST},
            },
        }
    },
)  # fmt: skip
async def create_attribution_batch(
    request: Request,
    caller: Asking,
    prefer: Annotated[
        str | None,
        Header(description="`wait=N` (RFC 7240): answer 200 if every picture has ended in N seconds."),
    ] = None,
    _idempotency_key: IdempotencyKey = None,
) -> Response:
    """Ask about up to 100 pictures at once. What is wrong with a picture fails that picture, not the batch."""
    service = service_of(request)
    key = key_of(request, caller)
    if not await known(service, key):
        await batches.refuse_when_full(service, caller)
    async with batch_upload(service, request) as sent:
        told_by = json.dumps([item.told_by for item in sent.items]).encode()
        # What they have in common is the batch's own, where none of them takes it.
        async with once(service, request, key, told_by, sent.shared.model_dump(mode="json")) as turn:
            if turn.made is None:
                batch = await batches.create(service, caller, sent, turn.claim)
            else:
                batch = await batches.find(service, caller, turn.made)
    headers = {"Location": f"{batches.PATH}/{batch.id}", **turn.headers}
    wait = preferred_wait(prefer)
    if wait is not None:
        headers["Preference-Applied"] = f"wait={wait}"
        waited = await unless_gone(request, batches.waited(service, caller, batch.id, wait, None))
        if waited is None:
            return Response(status_code=NEVER_ANSWERED)
        batch = waited
    done = wait is not None and not is_open(batch)
    return await _batch(service, caller, batch, status=200 if done else 202, headers=headers)


@router.get(
    "",
    operation_id="listAttributionBatches",
    response_model=BatchList,
    responses=documented("invalid-request", "storage-unavailable"),
)
async def list_attribution_batches(
    request: Request, caller: Reading, query: Annotated[BatchListQuery, Query()]
) -> Response:
    """Batches in short, newest first, with how many of their pictures are in which state."""
    listed = await batches.listed(service_of(request), caller, query)
    return _json(listed, 200, {"Cache-Control": "private, no-cache"})


@router.get(
    "/{batch_id}",
    operation_id="getAttributionBatch",
    response_model=Batch,
    responses={
        200: _answer("batch", "The batch as it stands.", "Retry-After"),
        304: {
            "headers": _headers("ETag"),
            "description": "Nothing has changed since the ETag in If-None-Match.",
        },
        **documented("not-found", "erased", "invalid-request", "storage-unavailable"),
    },
)
async def get_attribution_batch(
    request: Request,
    caller: Reading,
    batch_id: BatchId,
    wait: Annotated[
        float | None,
        Query(
            ge=0,
            le=MAX_WAIT_S,
            allow_inf_nan=False,
            description="Hold the answer for up to so many seconds: until every picture has ended, or, with"
            " If-None-Match, until anything has changed.",
        ),
    ] = None,
    cursor: Annotated[
        int, Query(ge=0, le=MAX_ITEMS, description="`next_cursor` of the page of items before.")
    ] = 0,
    limit: Annotated[int, Query(ge=1, le=MAX_ITEMS, description="How many items to tell.")] = MAX_ITEMS,
    if_none_match: Annotated[str | None, Header(description="The ETag of an earlier answer.")] = None,
) -> Response:
    """A batch: how many of its pictures are in which state, and each of them in short."""
    service = service_of(request)
    waiting = batches.waited(service, caller, batch_id, wait or 0, if_none_match)
    batch = await unless_gone(request, waiting) if wait else await waiting
    if batch is None:
        return Response(status_code=NEVER_ANSWERED)
    tag = batches.etag(batch, service.visibility.to(caller).tag)
    if matches(if_none_match, tag):
        return Response(status_code=304, headers={"ETag": tag})
    return await _batch(service, caller, batch, cursor, limit)


@router.get(
    "/{batch_id}/results.jsonl",
    operation_id="getAttributionBatchResults",
    response_class=JsonLines,
    responses={
        200: {
            "description": "A line for each picture in their order: its name, its state, and its answer or problem.",
            "model": BatchResult,
            "content": {
                JSON_LINES: {
                    "schema": {"$ref": "#/components/schemas/BatchResult"},
                    "examples": {"line": {"$ref": "#/components/examples/batch-result"}},
                }
            },
        },
        **documented("not-found", "erased", "invalid-request", "storage-unavailable"),
    },
)
async def get_attribution_batch_results(
    request: Request,
    caller: Reading,
    batch_id: BatchId,
    after: Annotated[
        int,
        Query(
            ge=0,
            le=MAX_ITEMS,
            description="Begin after the item of this position: the last that came before a connection broke.",
        ),
    ] = 0,
) -> Response:
    """All answers of a batch as lines of JSON, at any time; what hasn't ended says so by its state."""
    service = service_of(request)
    batch = await batches.find(service, caller, batch_id)
    return JsonLines(
        batches.results(service, caller, batch.id, after),
        headers={
            "Cache-Control": "private, no-store",
            "Content-Disposition": f'attachment; filename="{batch.id}.jsonl"',
        },
    )


@router.post(
    "/{batch_id}/cancel",
    operation_id="cancelAttributionBatch",
    response_model=Batch,
    responses={
        200: _answer("batch-cancelled", "The batch; what had ended stays as it was."),
        **documented(
            "cross-site", "not-found", "conflict", "erased", "invalid-request", "storage-unavailable"
        ),
    },
)
async def cancel_attribution_batch(request: Request, caller: Asking, batch_id: BatchId) -> Response:
    """Stop all that is still open of a batch. Cancelling one that is cancelled changes nothing."""
    service = service_of(request)
    return await _batch(service, caller, await batches.cancel(service, caller, batch_id))


@router.delete(
    "/{batch_id}",
    operation_id="deleteAttributionBatch",
    status_code=204,
    response_class=Response,
    responses={
        204: {"description": "All of its pictures and results are gone; the address answers 410 from now on."},
        **documented("cross-site", "not-found", "invalid-request", "storage-unavailable"),
    },
)  # fmt: skip
async def delete_attribution_batch(request: Request, caller: Asking, batch_id: BatchId) -> Response:
    """Erase a batch with all of its questions. Deleting it again changes nothing."""
    await batches.erase(service_of(request), caller, batch_id)
    return Response(status_code=204)


async def _batch(
    service: Service,
    caller: Caller,
    batch: BatchSummary,
    after: int = 0,
    limit: int = MAX_ITEMS,
    *,
    status: int = 200,
    headers: dict[str, str] | None = None,
) -> Response:
    # Read anew, so that counts, items and tag are of one moment.
    batch, told = await batches.told(service, caller, batch.id, after, limit)
    retry = {"Retry-After": str(RETRY_AFTER_S)} if is_open(batch) else {}
    return _json(
        told,
        status,
        {
            "ETag": batches.etag(batch, service.visibility.to(caller).tag),
            "Cache-Control": "private, no-cache",
            **retry,
            **(headers or {}),
        },
    )


def _json(model: BaseModel, status: int, headers: dict[str, str]) -> Response:
    # Written by pydantic at once: through FastAPI each answer would be checked and taken apart again.
    return Response(model.model_dump_json(by_alias=True), status, headers, "application/json")
