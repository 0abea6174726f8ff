"""Errors as RFC 9457 problem documents, and as pages for a browser.

Every error the service gives is an entry of `CATALOGUE`: its slug is the document's `code` and the anchor of its
`type` (`/problems#queue-full`), its title is stable, its `detail` is written for the person who caused it.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Self

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from app.language import Language, language_of
from app.middleware import request_id_of
from das.errors import ImageRefused

# The refusals of `das.images` that are about what kind of file it is.
UNSUPPORTED = ("unsupported-format", "not-an-image", "svg")
MEDIA_TYPE = "application/problem+json"
# Errors of one request that are told, and characters of a name in them that its sender chose.
REPORTED = 20
SHOWN = 200


@dataclass(frozen=True)
class Kind:
    """One kind of error: its HTTP status, its stable title, and what to do about it."""

    status: int
    title: str
    advice: str


CATALOGUE: dict[str, Kind] = {
    "malformed-body": Kind(400, "The body can't be read", "Send multipart/form-data or JSON in UTF-8."),
    "malformed-host": Kind(400, "The Host header can't be used", "Send exactly one, as name or name:port."),
    "key-in-address": Kind(
        400, "A key in an address", "Send it as Authorization: Bearer, and revoke this one."
    ),
    "key-required": Kind(
        401, "A key is needed", "Send one as Authorization: Bearer, or sign in on the page."
    ),
    "key-refused": Kind(401, "The key doesn't let you in", "Ask whoever runs the service for another."),
    "scope-missing": Kind(403, "The key doesn't allow this", "Use a key with the scope that `detail` names."),
    "cross-site": Kind(403, "Asked from another site", "Open the page of this service and ask from there."),
    "not-found": Kind(404, "Not found", "Check the address; ids are case-sensitive."),
    "method-not-allowed": Kind(405, "Method not allowed", "The Allow header lists what this address takes."),
    "too-slow": Kind(408, "The body came too slowly", "Send it again over a better connection."),
    "conflict": Kind(409, "Not possible in this state", "Read the attribution again and look at its state."),
    "request-in-flight": Kind(
        409, "The same request is being worked on", "Send it again after Retry-After, with the same key."
    ),
    "erased": Kind(
        410, "Erased", "It was deleted on request or when its time was over, and can't be had back."
    ),
    "too-large": Kind(413, "The upload is too large", "Send a smaller file."),
    "unsupported-media-type": Kind(
        415, "Unsupported media type", "Send multipart/form-data or application/json."
    ),
    "unsupported-image": Kind(
        415, "Not an accepted image format", "Send JPEG, PNG, WebP, AVIF, GIF or TIFF."
    ),
    "unknown-host": Kind(
        421, "Asked under another name", "Use an address that the service knows as its own."
    ),
    "invalid-request": Kind(422, "The request isn't valid", "`errors` points at each field and says why."),
    "idempotency-key-reused": Kind(
        422, "The Idempotency-Key was used for another request", "Use a new key for each new request."
    ),
    "address-refused": Kind(
        422,
        "The picture can't be had from its address",
        "Send another address, or the picture itself; `reason` is a stable slug.",
    ),
    "image-refused": Kind(
        422, "The image can't be used", "`reason` is a stable slug; `detail` says what to do."
    ),
    "too-many-streams": Kind(
        429, "Too many streams are open", "End some of them, or ask for the answer with `?wait=20`."
    ),
    "rate-limited": Kind(429, "Too many requests", "Wait for as long as Retry-After says."),
    "quota-exhausted": Kind(429, "The quota is used up", "It is whole again at midnight UTC; see /v1/quota."),
    "internal-error": Kind(500, "Something broke here", "Try again; report the request_id if it stays."),
    "not-ready": Kind(503, "Not ready", "The service is starting or a part of it is missing; see /readyz."),
    "busy": Kind(503, "Too much at once", "Wait for as long as Retry-After says and send it again."),
    "queue-full": Kind(503, "The queue is full", "Wait for as long as Retry-After says and ask again."),
    "storage-unavailable": Kind(503, "The storage can't be reached", "Nothing was kept. Try again later."),
    "storage-full": Kind(507, "The disk is full", "Nothing was kept. Space has to be made on the server."),
}


# Kinds beside 503 whose answers say when to try again.
RETRIED = ("request-in-flight",)


class FieldProblem(BaseModel):
    """What is wrong with one part of a request; exactly one of pointer, parameter, header says where."""

    detail: str
    pointer: str | None = Field(
        default=None, description="JSON pointer (RFC 6901) into the body, or to a form field."
    )
    parameter: str | None = Field(default=None, description="Name of the query or path parameter.")
    header: str | None = Field(default=None, description="Name of the header.")
    # What a page says of it in its language: a key of app/languages, and values for its placeholders.
    _words: tuple[str, Mapping[str, Any]] | None = PrivateAttr(default=None)

    def worded(self, key: str, values: Mapping[str, Any] | None = None) -> Self:
        """The same, with words for the page."""
        self._words = (key, values or {})
        return self

    def in_words(self, language: Language) -> str | None:
        """What a page says of it; None where its language has no words for it, so that `detail` has to do."""
        if self._words is None or self._words[0] not in language:
            return None
        key, values = self._words
        return language(
            key,
            **{
                name: language.whole(value) if isinstance(value, int) else value
                for name, value in values.items()
            },
        )


class ProblemDocument(BaseModel):
    """An error (RFC 9457)."""

    model_config = ConfigDict(
        title="Problem",
        json_schema_extra={
            "examples": [
                {
                    "type": "/problems#invalid-request",
                    "code": "invalid-request",
                    "title": "The request isn't valid",
                    "status": 422,
                    "detail": "top_k: must be between 1 and 100.",
                    "instance": "/v1/attributions",
                    "request_id": "req_0193a6c1f3d07e52",
                    "errors": [{"detail": "must be between 1 and 100.", "pointer": "/top_k"}],
                }
            ]
        },
    )

    type: str
    code: str = Field(description="Stable slug of the kind of error; the anchor of `type`.")
    title: str
    status: int
    detail: str
    instance: str = Field(description="The path that was asked for.")
    request_id: str
    reason: str | None = Field(
        default=None, description="For refused images and addresses: a stable slug such as `truncated`."
    )
    errors: list[FieldProblem] | None = None


@dataclass(eq=False)
class Problem(Exception):
    """Raise to answer with a problem document of the given kind (a key of `CATALOGUE`)."""

    code: str
    detail: str
    headers: dict[str, str] = field(default_factory=dict)
    errors: list[FieldProblem] | None = None
    reason: str | None = None

    @property
    def kind(self) -> Kind:
        return CATALOGUE[self.code]

    def title(self, language: Language) -> str:
        """The kind's title in a language; in English where that has none for it."""
        return language(f"error.{self.code}") if f"error.{self.code}" in language else self.kind.title

    def document(self, request: Request) -> ProblemDocument:
        return ProblemDocument(
            type=f"/problems#{self.code}",
            code=self.code,
            title=self.title(language_of(request)),
            status=self.kind.status,
            detail=self.detail,
            instance=request.url.path,
            request_id=request_id_of(request),
            reason=self.reason,
            errors=self.errors,
        )


def invalid(field_name: str, why: str, words: str = "", **values: Any) -> Problem:
    """A 422 about one field of the body. `words`: the key of what a page says of it, with values for that."""
    pointer = json_pointer(field_name) if field_name else ""
    error = FieldProblem(detail=why, pointer=pointer)
    return Problem(
        "invalid-request",
        f"{field_name}: {why}" if field_name else why,
        errors=[error.worded(words, values) if words else error],
    )


def json_pointer(*path: str) -> str:
    """A JSON pointer (RFC 6901) to the place that these keys lead to."""
    return "".join(f"/{part.replace('~', '~0').replace('/', '~1')}" for part in path)


def bad_parameter(name: str, why: str) -> Problem:
    """A 422 about one parameter of the query."""
    return Problem("invalid-request", f"{name}: {why}", errors=[FieldProblem(detail=why, parameter=name)])


def refused_image(error: ImageRefused) -> Problem:
    """The problem for an upload that `das.images` refused; its sentence is passed on as it is."""
    if error.code == "decoder-busy":
        return Problem("not-ready", str(error), {"Retry-After": "5"}, reason=error.code)
    code = "unsupported-image" if error.code in UNSUPPORTED else "image-refused"
    return Problem("too-large" if error.code == "too-large" else code, str(error), reason=error.code)


def from_validation(error: RequestValidationError) -> Problem:
    """FastAPI's validation errors, each with its place."""
    found = error.errors()
    problems = [_field_problem(item) for item in found[:REPORTED]]
    first = problems[0]
    where = first.parameter or first.header or first.pointer
    more = f" ({len(found) - 1} more)" if len(found) > 1 else ""
    return Problem("invalid-request", f"{where}: {first.detail}{more}", errors=problems)


def said(item: Mapping[str, Any]) -> str:
    """What a validation error says. Of a text that is checked by itself, too, pydantic would speak of its items."""
    if item["type"] == "too_long" and item["ctx"]["field_type"] == "Value":
        return f"String should have at most {item['ctx']['max_length']} characters"
    return str(item["msg"]).removeprefix("Value error, ")


def _field_problem(item: Mapping[str, Any]) -> FieldProblem:
    source, *path = [str(part)[:SHOWN] for part in item["loc"]]
    detail = said(item)
    if source in ("query", "path"):
        return FieldProblem(detail=detail, parameter=".".join(path))
    if source == "header":
        return FieldProblem(detail=detail, header=".".join(path))
    return FieldProblem(detail=detail, pointer=json_pointer(*path))


def from_http_exception(error: HTTPException, request: Request) -> Problem:
    """The errors that Starlette raises itself: no such route, no such method."""
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.NOT_FOUND:
        return Problem("not-found", f"There is nothing at {request.url.path}.", headers)
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        return Problem(
            "method-not-allowed", f"{request.method} isn't possible at {request.url.path}.", headers
        )
    if error.status_code < HTTPStatus.INTERNAL_SERVER_ERROR:
        return Problem("malformed-body", str(error.detail), headers)
    return Problem("internal-error", "The service failed to answer.", headers)


def as_json(problem: Problem, request: Request) -> Response:
    """The problem document as a response."""
    document = problem.document(request)
    return JSONResponse(
        document.model_dump(exclude_none=True),
        status_code=document.status,
        headers={"Cache-Control": "no-store", **problem.headers},
        media_type=MEDIA_TYPE,
    )


def documented(*codes: str, any_host: bool = False) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI `responses` of a route that may answer with these kinds of error, beside those of every route.

    `any_host`: the route answers under any name.
    """
    responses: dict[int | str, dict[str, Any]] = {}
    hosts = () if any_host else ("malformed-host", "unknown-host")
    document(responses, (*codes, *hosts, "internal-error"))
    return responses


def document(
    responses: dict[Any, dict[str, Any]], codes: Iterable[str], name: Callable[[int], int | str] = int
) -> None:
    """Add these kinds of error to the OpenAPI `responses` of a route. `name` is how a status is written there."""
    for code in codes:
        kind = CATALOGUE[code]
        entry = responses.setdefault(
            name(kind.status),
            {
                "description": kind.title,
                "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
            },
        )
        if kind.status in (HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS) or code in RETRIED:
            entry["headers"] = {
                "Retry-After": {"description": "Seconds to wait.", "schema": {"type": "string"}}
            }
        if kind.title not in entry["description"]:
            entry["description"] += f"; or: {kind.title}"
        entry["content"][MEDIA_TYPE].setdefault("examples", {})[code] = {
            "summary": kind.title,
            "value": {
                "type": f"/problems#{code}",
                "code": code,
                "title": kind.title,
                "status": kind.status,
                "detail": kind.advice,
                "instance": "/v1/attributions",
                "request_id": "req_0193a6c1f3d07e52",
            },
        }
