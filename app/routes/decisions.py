"""`/v1/decisions`: what a policy says of a picture, and what a person says of that."""

from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query, Request
from pydantic import BaseModel
from starlette.responses import Response

from app import decisions
from app.callers import Caller, Deciding, Reading
from app.idempotency import IdempotencyKey, key_of, known, once
from app.intake import refuse_when_full
from app.moderation.examples import DECIDED
from app.moderation.schemas import Decision, DecisionList, DecisionQuery, DecisionRequest, ReviewRequest
from app.problems import documented
from app.service import service_of
from app.small_json import MOST_BYTES, small_json
from app.uploads import fetched, parse_as, upload
from app.waiting import MAX_WAIT_S, preferred_wait

router = APIRouter(prefix="/v1/decisions", tags=["moderation"])

# What a client is told to wait before it looks again at a decision that waits for its question.
RETRY_AFTER_S = 1

DecisionId = Annotated[
    str, Path(description="The id that POST answered with.", examples=[DECIDED["id"]], max_length=64)
]
HEADERS = {
    "Location": "Where the decision is.",
    "Retry-After": "Seconds after which to look again; not sent once it is made.",
    "Preference-Applied": "The `wait` that was taken of the request's Prefer.",
    "Idempotency-Replayed": "`true` where an earlier request of the same Idempotency-Key has made the decision.",
}

SENT_ON_DEMAND = ("Preference-Applied", "Idempotency-Replayed")


def _headers(*names: str) -> dict[str, Any]:
    return {name: {"description": HEADERS[name], "schema": {"type": "string"}} for name in names}


def _answer(example: str, description: str, *headers: str) -> dict[str, Any]:
    examples = {example: {"$ref": f"#/components/examples/{example}"}}
    return {
        "description": description,
        "headers": _headers(*headers),
        "content": {"application/json": {"examples": examples}},
    }


@router.post(
    "",
    operation_id="createDecision",
    status_code=202,
    response_model=Decision,
    responses={
        202: _answer(
            "pending", "The question is queued; look at Location for the decision.",
            "Location", "Retry-After", *SENT_ON_DEMAND,
        ),
        200: {**_answer("decided", "Decided.", "Location", *SENT_ON_DEMAND), "model": Decision},
        **documented(
            "malformed-body", "cross-site", "not-found", "too-slow", "conflict", "erased", "too-large",
            "unsupported-media-type", "unsupported-image", "invalid-request", "address-refused", "image-refused",
            "request-in-flight", "idempotency-key-reused", "quota-exhausted",
            "queue-full", "busy", "not-ready", "storage-unavailable", "storage-full",
        ),
    },
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "multipart/form-data": {"schema": {"$ref": "#/components/schemas/DecisionForm"}},
                "application/json": {
                    "schema": {"$ref": "#/components/schemas/DecisionJson"},
                    "example": {"policy": "publish", "attribution": DECIDED["attribution"]},
                },
            },
        }
    },
)  # fmt: skip
async def create_decision(
    request: Request,
    caller: Deciding,
    prefer: Annotated[
        str | None,
        Header(description="`wait=N` (RFC 7240): answer 200 with the decision if made in N seconds."),
    ] = None,
    _idempotency_key: IdempotencyKey = None,
) -> Response:
    """Have a policy decide about a picture, or about a question that was asked already (`attribution`)."""
    service = service_of(request)
    key = key_of(request, caller)
    length = announced_length(request)
    if (length is None or length > MOST_BYTES) and not await known(service, key):
        # It may bring a picture, which a full queue couldn't take; what only names a question it can.
        await refuse_when_full(service, caller)
    async with upload(service, request, instead="attribution") as (picture, fields):
        asked = parse_as(DecisionRequest, fields)
        async with once(service, request, key, picture, asked.model_dump()) as turn:
            if turn.made is None:
                async with fetched(service, caller, picture) as data:
                    decision = await decisions.ask(service, caller, data, asked, turn.claim)
            else:
                decision = await decisions.again(service, caller, turn.made, asked)
    headers = {"Location": decision.links.self, **turn.headers}
    wait = preferred_wait(prefer)
    if wait is not None:
        headers["Preference-Applied"] = f"wait={wait}"
        decision = await decisions.answer(service, caller, decision.id, wait)
    return _decision(caller, decision, 202 if decision.state == "pending" else 200, headers)


@router.get(
    "",
    operation_id="listDecisions",
    response_model=DecisionList,
    responses=documented("invalid-request", "storage-unavailable"),
)
async def list_decisions(
    request: Request, caller: Reading, query: Annotated[DecisionQuery, Query()]
) -> Response:
    """Decisions, newest first; erased ones only with `state=erased`."""
    return _json(caller, await decisions.listed(service_of(request), caller, query))


@router.get(
    "/{decision_id}",
    operation_id="getDecision",
    response_model=Decision,
    responses={
        200: _answer("decided", "The decision as it stands.", "Retry-After"),
        **documented("not-found", "erased", "invalid-request", "storage-unavailable"),
    },
)
async def get_decision(
    request: Request,
    caller: Reading,
    decision_id: DecisionId,
    wait: Annotated[
        float | None,
        Query(
            ge=0,
            le=MAX_WAIT_S,
            allow_inf_nan=False,
            description="Hold the answer for up to so many seconds, until the decision is made.",
        ),
    ] = None,
) -> Response:
    """One decision with its reasons."""
    return _decision(caller, await decisions.answer(service_of(request), caller, decision_id, wait))


@router.post(
    "/{decision_id}/review",
    operation_id="reviewDecision",
    response_model=Decision,
    responses={
        200: _answer("reviewed", "The decision with the review. The newest counts; `reviews` keeps the others."),
        **documented(
            "malformed-body", "cross-site", "not-found", "too-slow", "conflict", "erased", "too-large",
            "unsupported-media-type", "invalid-request", "busy", "storage-unavailable", "storage-full",
        ),
    },
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {"$ref": "#/components/schemas/ReviewRequest"},
                    "example": {"outcome": "clear", "note": "She made it herself."},
                }
            },
        }
    },
)  # fmt: skip
async def review_decision(request: Request, caller: Deciding, decision_id: DecisionId) -> Response:
    """Say what a person thinks: `clear` or `block`, with a note. It becomes the decision's `final`."""
    service = service_of(request)
    said = await small_json(service, request, ReviewRequest)
    return _decision(caller, await decisions.review(service, caller, decision_id, said))


def announced_length(request: Request) -> int | None:
    """The length that a body is said to have; None where nothing is said that could be one."""
    told = request.headers.get("content-length", "")
    return int(told) if told.isascii() and told.isdigit() and len(told) <= 18 else None


def _decision(
    caller: Caller, decision: Decision, status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    retry = {"Retry-After": str(RETRY_AFTER_S)} if decision.state == "pending" else {}
    return _json(caller, decision, status, {**retry, **(headers or {})})


def _json(
    caller: Caller, model: BaseModel, status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    spoken = {"Vary": "Accept-Language", "Content-Language": caller.language.code}
    told = {"Cache-Control": "no-cache", **spoken, **(headers or {})}
    return Response(model.model_dump_json(), status, told, "application/json")
