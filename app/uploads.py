"""An upload's body: the picture, as bytes or as an address, and the fields beside it, from a form or from JSON."""

import base64
import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import parse_qsl

from anyio import to_thread
from pydantic import BaseModel, Field, ValidationError
from python_multipart.multipart import parse_options_header
from starlette.requests import Request

from app.addresses import MAX_URL_LENGTH, AddressRefused
from app.callers import Caller
from app.fetching import TooMuch
from app.forms import BESIDE_BYTES, MAX_PARTS, Part, parse_form, parse_json, text_of
from app.problems import FieldProblem, Problem, invalid, json_pointer, said
from app.schemas import AttributionRequest
from app.service import Service

# The bytes of a picture, or its address.
Picture = bytes | str
Asked = TypeVar("Asked", bound=BaseModel)

FORM = b"multipart/form-data"
JSON = b"application/json"
# Base64 writes three bytes as four characters; line breaks in it are refused, as RFC 4648 asks for.
BASE64_GROWTH = 4 / 3
# A form without a file, such as the one of the samples.
SMALL_FORM_BYTES = 4 * 1024


@dataclass
class Filled:
    """What a form had in it when it was sent, for the page that shows it again."""

    texts: dict[str, str] = field(default_factory=dict)
    file: bool = False
    empty: bool = False
    """A file was chosen, and there is nothing in it."""


class AttributionUrl(AttributionRequest):
    """A question about a picture that the service fetches."""

    image_url: str = Field(
        max_length=MAX_URL_LENGTH,
        description="Where the picture is: https, on the public internet, up to three redirects away.",
    )


@contextlib.asynccontextmanager
async def upload(
    service: Service, request: Request, instead: str | None = None, filled: Filled | None = None
) -> AsyncIterator[tuple[Picture, dict[str, Any]]]:
    """The picture and the other fields as they were sent: text from a form, any JSON value from JSON.

    What was received counts as held for the length of the block.

    Args:
        instead: a field that may be sent in place of the picture, which is no bytes then.
        filled: is told what was in the form as soon as that could be read, also where it is refused then.

    Raises `Problem`: malformed-body, too-large, too-slow, busy, unsupported-media-type, or invalid-request.
    """
    most = service.settings.max_upload_bytes
    content_type = request.headers.get("content-type", "")
    media = parse_options_header(content_type)[0]
    if media == FORM:
        limit = most + BESIDE_BYTES
    elif media == JSON:
        limit = int(most * BASE64_GROWTH) + BESIDE_BYTES
    else:
        given = media.decode("latin-1") or "no content type"
        raise Problem(
            "unsupported-media-type",
            "Send multipart/form-data with a part named image, or application/json with image_base64 or image_url;"
            f" got {given[:100]}.",
            {"Accept": "multipart/form-data, application/json"},
        )

    def parse(body: bytes) -> tuple[Picture, dict[str, Any]]:
        picture, fields = (
            _of_form(parse_form(body, content_type), instead, filled or Filled())
            if media == FORM
            else _of_json(body, instead)
        )
        if isinstance(picture, bytes) and len(picture) > most:
            raise too_large(most)
        return picture, fields

    async with service.bodies.received(request, limit, too_large(most)) as body:
        yield await to_thread.run_sync(parse, body, limiter=service.parsing)


@contextlib.asynccontextmanager
async def fetched(service: Service, caller: Caller, picture: Picture) -> AsyncIterator[bytes]:
    """The picture's bytes, fetched where it is an address; they count as held for the length of the block.

    Raises `Problem`: address-refused, too-large, or busy.
    """
    if isinstance(picture, bytes):
        yield picture
        return
    most = service.settings.max_upload_bytes
    with service.bodies.holding(caller.address) as hold:
        async with service.fetching.turn(caller.address):
            try:
                with service.meters.step("fetching"):
                    data = await service.fetcher.fetch(picture, most, hold)
            except TooMuch as error:
                raise too_large(most) from error
            except AddressRefused as error:
                raise Problem(
                    "address-refused",
                    str(error),
                    errors=[
                        FieldProblem(detail=str(error), pointer="/image_url").worded(f"refused.{error.code}")
                    ],
                    reason=error.code,
                ) from error
        yield data


async def small_form(service: Service, request: Request, most: int = SMALL_FORM_BYTES) -> dict[str, str]:
    """The fields of a form of up to `most` bytes without files, urlencoded or in parts; raises `Problem`."""
    content_type = request.headers.get("content-type", "")
    media = parse_options_header(content_type)[0]
    if media not in (FORM, b"application/x-www-form-urlencoded"):
        raise Problem("unsupported-media-type", "Send the form as a browser does.")
    refusal = Problem("too-large", f"This form may have at most {most // 1024} KB.")
    async with service.bodies.received(request, most, refusal) as body:
        if media == FORM:
            return {part.name: text_of(part) for part in parse_form(body, content_type)}
        try:
            pairs = parse_qsl(
                body.decode("ascii"), keep_blank_values=True, max_num_fields=MAX_PARTS, errors="strict"
            )
        except ValueError as error:
            raise Problem("malformed-body", "The form can't be read: it isn't urlencoded.") from error
        return dict(pairs)


def too_large(most: int) -> Problem:
    return Problem("too-large", f"An image may have at most {most / 1e6:g} MB.")


def parse_fields(fields: dict[str, Any]) -> AttributionRequest:
    """The fields beside the image; raises `Problem` with a pointer to each that can't be used."""
    return parse_as(AttributionRequest, fields)


def parse_as(model: type[Asked], fields: dict[str, Any]) -> Asked:
    """A request's fields as this model says; raises `Problem` as `parse_fields`."""
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        problems = [
            FieldProblem(
                detail=_sentence(item, model),
                pointer=json_pointer(*map(str, item["loc"])),
            ).worded(f"mistake.{_kind_of(item)}", item.get("ctx"))
            for item in error.errors(include_url=False, include_input=False)
        ]
        first = problems[0]
        raise Problem(
            "invalid-request", f"{(first.pointer or '/')[1:]}: {first.detail}", errors=problems
        ) from error


def _kind_of(item: Mapping[str, Any]) -> str:
    """Which words a mistake has: of a list that is too long others than of a text, which pydantic counts alike."""
    many = item["type"] == "too_long" and item["ctx"]["field_type"] == "List"
    return "too_many" if many else str(item["type"])


def _sentence(item: Mapping[str, Any], model: type[BaseModel]) -> str:
    if item["type"] == "extra_forbidden":
        picture = ["image"] if issubclass(model, AttributionRequest) else []
        return f"is not a field of this request; there are {', '.join([*picture, *model.model_fields])}."
    return said(item)


def _of_form(parts: list[Part], instead: str | None, filled: Filled) -> tuple[Picture, dict[str, Any]]:
    filled.texts |= {part.name: text_of(part) for part in parts if not part.is_file}
    filled.file = any(part.is_file and part.data for part in parts)
    filled.empty = any(part.is_file and part.filename and not part.data for part in parts)
    named: dict[str, Part] = {}
    for part in parts:
        if part.name in named:
            raise invalid(part.name, "was sent more than once.")
        named[part.name] = part
    for name, part in named.items():
        if part.is_file and name != "image":
            raise invalid(name, "is a file; only image may be one.")
    image = named.pop("image", None)
    # A browser sends a form's empty fields, and a file that was not chosen as one without a byte.
    address = text_of(named.pop("image_url", Part()))
    fields = {name: text_of(part) for name, part in named.items()}
    if address:
        if image is not None and image.data:
            raise _both("image")
        return address, fields
    if image is None and instead in named:
        return b"", fields
    if image is None:
        raise invalid(
            "image", "is missing: send the picture as a file in this field, or its address in image_url."
        )
    if not image.is_file:
        raise invalid("image", "has to be sent as a file, with a filename.")
    return bytes(image.data), fields


def _of_json(body: bytes, instead: str | None) -> tuple[Picture, dict[str, Any]]:
    fields = parse_json(body)
    encoded, address = fields.pop("image_base64", None), fields.pop("image_url", None)
    if address is not None:
        if encoded is not None:
            raise _both("image_base64")
        if not isinstance(address, str):
            raise invalid("image_url", "has to be a text: the picture's address.")
        return address, fields
    if encoded is None and instead in fields:
        return b"", fields
    if not isinstance(encoded, str):
        raise invalid(
            "image_base64",
            "is missing: send the image's bytes as a base64 string, or its address in image_url.",
        )
    try:
        return base64.b64decode(encoded, validate=True), fields
    except ValueError as error:
        raise invalid("image_base64", "isn't valid base64 (RFC 4648, without a data: prefix).") from error


def _both(picture: str) -> Problem:
    why = {
        "image_url": "was sent beside the picture itself: send one of them.",
        picture: "was sent beside an address: send one of them.",
    }
    return Problem(
        "invalid-request",
        f"image_url: {why['image_url']}",
        errors=[
            FieldProblem(detail=said, pointer=json_pointer(name)).worded("mistake.both")
            for name, said in why.items()
        ],
    )
