"""Reading the body of an upload: multipart or JSON, never more of it than is allowed.

The limit holds while the body streams in, so a missing or lying Content-Length changes nothing. A multipart file
is spooled to disk past one megabyte; form fields are held in memory and kept small.
"""

import base64
import binascii
import json
from collections.abc import AsyncGenerator
from typing import Any

from python_multipart.multipart import parse_options_header
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from app.problems import Problem, invalid

# Beyond the image itself: multipart boundaries and headers, the other fields.
ENVELOPE_BYTES = 64 * 1024
# Two, so that a second image is told apart from a broken form and gets its own sentence.
MAX_FILES = 2
# One form field, e.g. the prompt.
MAX_FIELD_BYTES = 16 * 1024
MAX_FIELDS = 20
# Base64 writes three bytes as four characters; line breaks in it are refused, as RFC 4648 asks for.
BASE64_GROWTH = 4 / 3


async def read_upload(request: Request, max_image_bytes: int) -> tuple[bytes, dict[str, Any]]:
    """The image's bytes and the other fields as they were sent: text from a form, any JSON value from JSON.

    Raises `Problem`: malformed-body, too-large, unsupported-media-type, or invalid-request for the image field.
    """
    content_type, _ = parse_options_header(request.headers.get("content-type"))
    try:
        if content_type == b"multipart/form-data":
            return await _read_multipart(request, max_image_bytes)
        if content_type == b"application/json":
            return await _read_json(request, max_image_bytes)
    except ClientDisconnect as error:
        raise Problem("malformed-body", "The connection ended before the whole body had come.") from error
    given = content_type.decode("latin-1") or "no content type"
    raise Problem(
        "unsupported-media-type",
        f"Send multipart/form-data with a part named image, or application/json with image_base64; got {given}.",
        {"Accept": "multipart/form-data, application/json"},
    )


async def _bounded(request: Request, limit: int, max_image_bytes: int) -> AsyncGenerator[bytes, None]:
    """The body's chunks; raises `Problem` as soon as more than `limit` bytes came, or are announced."""
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and int(announced) > limit:
        raise too_large(max_image_bytes)
    received = 0
    async for chunk in request.stream():
        received += len(chunk)
        if received > limit:
            raise too_large(max_image_bytes)
        yield chunk


def too_large(max_image_bytes: int) -> Problem:
    return Problem("too-large", f"An image may have at most {max_image_bytes / 1e6:g} MB.")


async def _read_multipart(request: Request, max_image_bytes: int) -> tuple[bytes, dict[str, Any]]:
    stream = _bounded(request, max_image_bytes + ENVELOPE_BYTES, max_image_bytes)
    parser = MultiPartParser(
        request.headers, stream, max_files=MAX_FILES, max_fields=MAX_FIELDS, max_part_size=MAX_FIELD_BYTES
    )
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise Problem("malformed-body", f"The form can't be read: {error.message}") from error
    finally:
        await stream.aclose()
    try:
        return await _image_and_fields(form, max_image_bytes)
    finally:
        await form.close()


async def _image_and_fields(form: FormData, max_image_bytes: int) -> tuple[bytes, dict[str, Any]]:
    names = [name for name, _ in form.multi_items()]
    for name in names:
        if names.count(name) > 1:
            raise invalid(name, "was sent more than once.")
    image = form.get("image")
    if image is None:
        raise invalid("image", "is missing: send the picture as a file in this field.")
    if not isinstance(image, UploadFile):
        raise invalid("image", "has to be sent as a file, with a filename.")
    fields = {name: value for name, value in form.items() if name != "image"}
    for name, value in fields.items():
        if isinstance(value, UploadFile):
            raise invalid(name, "is a file; only image may be one.")
    data = await image.read(max_image_bytes + 1)
    if len(data) > max_image_bytes:
        raise too_large(max_image_bytes)
    return data, fields


async def _read_json(request: Request, max_image_bytes: int) -> tuple[bytes, dict[str, Any]]:
    limit = int(max_image_bytes * BASE64_GROWTH) + ENVELOPE_BYTES
    body = bytearray()
    stream = _bounded(request, limit, max_image_bytes)
    try:
        async for chunk in stream:
            body += chunk
    finally:
        await stream.aclose()
    fields = await run_in_threadpool(_parse_json, bytes(body))
    encoded = fields.pop("image_base64", None)
    if not isinstance(encoded, str):
        raise invalid("image_base64", "is missing: send the image's bytes as a base64 string.")
    try:
        data = await run_in_threadpool(base64.b64decode, encoded.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise invalid("image_base64", "isn't valid base64 (RFC 4648, without a data: prefix).") from error
    if len(data) > max_image_bytes:
        raise too_large(max_image_bytes)
    return data, fields


def _parse_json(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body.decode("utf-8"), object_pairs_hook=_unique_keys)
    except UnicodeDecodeError as error:
        raise Problem("malformed-body", f"The body isn't UTF-8 (byte {error.start}).") from error
    except json.JSONDecodeError as error:
        raise Problem(
            "malformed-body",
            f"The body isn't JSON: {error.msg} at line {error.lineno}, column {error.colno}.",
        ) from error
    except RecursionError as error:
        raise Problem("malformed-body", "The JSON is nested too deeply.") from error
    if not isinstance(value, dict):
        raise invalid("", "The body has to be a JSON object.")
    return value


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; a key given twice is an error, since which one counts is anybody's guess."""
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise invalid(key, "was sent more than once.")
        result[key] = value
    return result
