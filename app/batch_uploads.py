"""The body of a batch: its pictures, as bytes or as addresses, with what is asked of each."""

import base64
import contextlib
import hashlib
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

from anyio import to_thread
from python_multipart.multipart import parse_options_header
from starlette.requests import Request

from app.addresses import MAX_URL_LENGTH
from app.archives import unpack
from app.batch_schemas import MAX_ITEMS
from app.forms import (
    BATCH_BESIDE_BYTES,
    BATCH_JSON_MARKS,
    MAX_PARTS,
    JsonBounds,
    Part,
    parse_form,
    parse_json,
    text_of,
)
from app.problems import REPORTED, FieldProblem, Problem, invalid
from app.schemas import CONTROL_CHARACTERS, AttributionRequest
from app.service import Service
from app.uploads import BASE64_GROWTH, FORM, JSON, Picture, parse_fields
from jobs.batch_rows import MAX_NAME
from jobs.models import JsonObject

BOUNDS = JsonBounds(pictures=MAX_ITEMS, marks=BATCH_JSON_MARKS, beside=BATCH_BESIDE_BYTES)
ACCEPTED = (
    "Send multipart/form-data with a part named image for each picture, or with a zip named archive, or"
    " application/json with items."
)
# What a zip may unpack to, in parts of the largest batch: pictures are hardly smaller in one.
UNPACKED_GROWTH = 2


@dataclass(frozen=True)
class Sent:
    """A picture of a batch as it was sent, and what is asked of it."""

    name: str | None
    picture: Picture
    asked: AttributionRequest
    place: str = ""
    """Where it stands in the body, as a JSON pointer."""
    problem: JsonObject | None = None
    """Why it can't be had, where it can't."""

    @property
    def told_by(self) -> list[str]:
        """What tells it from another picture or question: for an Idempotency-Key."""
        data = self.picture if isinstance(self.picture, bytes) else self.picture.encode()
        kind = type(self.picture).__name__
        told = [kind, hashlib.sha256(data).hexdigest(), self.name or "", self.asked.model_dump_json()]
        return told if self.problem is None else [*told, self.problem["reason"]]


@dataclass(frozen=True)
class SentBatch:
    """A whole batch; `shared` is what its pictures have in common."""

    items: list[Sent]
    shared: AttributionRequest


@contextlib.asynccontextmanager
async def batch_upload(service: Service, request: Request) -> AsyncIterator[SentBatch]:
    """The batch in a request's body, which counts as held for the length of the block.

    Raises `Problem`: malformed-body, too-large, too-slow, busy, unsupported-media-type, or invalid-request.
    """
    most = service.settings.largest_batch_bytes
    content_type = request.headers.get("content-type", "")
    media = parse_options_header(content_type)[0]
    if media not in (FORM, JSON):
        given = media.decode("latin-1") or "no content type"
        raise Problem(
            "unsupported-media-type",
            f"{ACCEPTED} Got {given[:100]}.",
            {"Accept": "multipart/form-data, application/json"},
        )
    limit = min(
        int(most * BASE64_GROWTH) + BATCH_BESIDE_BYTES if media == JSON else most + BATCH_BESIDE_BYTES,
        service.settings.bodies_in_flight_bytes // 2,
    )

    def parse(body: bytes) -> SentBatch:
        if media == JSON:
            return _of_json(body)
        return _of_form(body, content_type, service.settings.max_upload_bytes, UNPACKED_GROWTH * most)

    too_large = Problem(
        "too-large", f"A batch may have at most {most / 1e6:g} MB: send several, or the pictures' addresses."
    )
    async with service.bodies.received(request, limit, too_large) as body:
        yield await to_thread.run_sync(parse, body, limiter=service.parsing)


def shown_name(given: str | None) -> str | None:
    """A file's name as it may be shown: a text, and no path to anything."""
    if not given:
        return None
    return CONTROL_CHARACTERS.sub("\N{REPLACEMENT CHARACTER}", re.sub(r"[\t\r\n]", " ", given))[:MAX_NAME]


def _of_form(body: bytes, content_type: str, each: int, in_all: int) -> SentBatch:
    fields: dict[str, str] = {}
    images: list[Part] = []
    archive: Part | None = None
    for part in parse_form(body, content_type, MAX_PARTS + MAX_ITEMS):
        if part.name == "image":
            if not part.is_file:
                raise invalid("image", "has to be sent as a file, with a filename.")
            images.append(part)
        elif part.name == "archive" and part.is_file and archive is None:
            archive = part
        elif part.is_file and part.name != "archive":
            raise invalid(part.name, "is a file; only image and archive may be one.")
        elif part.name in fields or (part.name == "archive" and archive is not None):
            raise invalid(part.name, "was sent more than once.")
        else:
            fields[part.name] = text_of(part)
    shared = parse_fields(fields)
    # A browser sends a file that was not chosen as one without a name and a byte.
    images = [part for part in images if part.data or part.filename]
    if archive is not None and (archive.data or archive.filename):
        if images:
            raise invalid("archive", "was sent beside the pictures themselves: send one of them.")
        return _of_archive(bytes(archive.data), fields, shared, each, in_all)
    _check_number(len(images), "image")
    return SentBatch([Sent(shown_name(part.filename), bytes(part.data), shared) for part in images], shared)


def _of_archive(
    archive: bytes, fields: dict[str, str], shared: AttributionRequest, each: int, in_all: int
) -> SentBatch:
    entries, said = unpack(archive, MAX_ITEMS, each, in_all)
    _check_number(len(entries), "archive")
    sent: list[Sent] = []
    for entry in entries:
        own = said.get(entry.name, {})
        try:
            asked = parse_fields({**fields, **own}) if own else shared
        except Problem as problem:
            why = f"its manifest can't be used for {entry.name[:MAX_NAME]!r}: {problem.detail}"
            raise invalid("archive", why) from problem
        refused = None
        if entry.refused is not None:
            reason, detail = entry.refused
            code = "too-large" if reason == "too-large" else "image-refused"
            refused = {"code": code, "detail": detail, "reason": reason}
        sent.append(Sent(shown_name(entry.name), entry.data, asked, "/archive", refused))
    return SentBatch(sent, shared)


def _of_json(body: bytes) -> SentBatch:
    given = parse_json(body, BOUNDS)
    items = given.pop("items", None)
    if not isinstance(items, list):
        raise invalid("items", "has to be a list, with an object for each picture.")
    _check_number(len(items), "items")
    shared = parse_fields(given)
    sent: list[Sent] = []
    wrong: list[FieldProblem] = []
    for number, item in enumerate(items):
        try:
            sent.append(replace(_item(item, given), place=f"/items/{number}"))
        except Problem as problem:
            wrong += beneath(f"/items/{number}", problem)
    if wrong:
        first = wrong[0]
        more = f" ({len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise Problem(
            "invalid-request", f"{(first.pointer or '/')[1:]}: {first.detail}{more}", errors=wrong[:REPORTED]
        )
    return SentBatch(sent, shared)


def _item(item: Any, shared: dict[str, Any]) -> Sent:
    if not isinstance(item, dict):
        raise invalid("", "has to be an object.")
    own = dict(item)
    name, encoded, address = (own.pop(key, None) for key in ("name", "image_base64", "image_url"))
    asked = parse_fields({**shared, **{key: value for key, value in own.items() if value is not None}})
    if name is not None and not isinstance(name, str):
        raise invalid("name", "has to be a text.")
    if (encoded is None) == (address is None):
        raise invalid("image_base64", "has to be sent, or else image_url, and not both.")
    if address is not None:
        if not isinstance(address, str) or len(address) > MAX_URL_LENGTH:
            raise invalid(
                "image_url", f"has to be the picture's address, of up to {MAX_URL_LENGTH} characters."
            )
        return Sent(shown_name(name), address, asked)
    try:
        if not isinstance(encoded, str):
            raise ValueError
        return Sent(shown_name(name), base64.b64decode(encoded, validate=True), asked)
    except ValueError as error:
        raise invalid("image_base64", "isn't valid base64 (RFC 4648, without a data: prefix).") from error


def beneath(place: str, problem: Problem) -> list[FieldProblem]:
    """What is wrong with a part of the body, with its place in the whole."""
    errors = problem.errors or [FieldProblem(detail=problem.detail, pointer="")]
    return [error.model_copy(update={"pointer": place + (error.pointer or "")}) for error in errors]


def _check_number(count: int, name: str) -> None:
    if not 1 <= count <= MAX_ITEMS:
        raise invalid(name, f"has to be sent with 1 to {MAX_ITEMS} pictures; there are {count}.")
