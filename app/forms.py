"""Parsing a body that has been received: a form's parts, or a JSON object. Both block; call them in a thread.

What a few bytes can cost is bounded before anything is parsed: by the number of parts, of members and of levels, and
by the room beside the picture.
"""

import heapq
import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from app.problems import Problem, invalid

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

# Beyond the picture itself: the other fields with their names, boundaries and headers.
BESIDE_BYTES = 64 * 1024
# One more than there are fields would do; a client may send some that are told apart and refused by name.
MAX_PARTS = 24
# One form field, such as the prompt.
MAX_FIELD_BYTES = 16 * 1024
MAX_NAME = 200
# What may stand before a form's first boundary. The standard allows a text there; nobody sends one.
MAX_PREAMBLE = 1024
# Line ends with two dashes in a whole form. A picture's bytes hold about one in four gigabytes, a text few.
MAX_LIKE_BOUNDARIES = 8 * 1024
# Commas, colons, quotes and opening brackets in a whole JSON body, those in texts among them: the longest prompt has
# room. Base64 has none of them.
MAX_JSON_MARKS = 8 * 1024
MAX_JSON_MEMBERS = MAX_PARTS
MAX_JSON_DEPTH = 8
# A batch in JSON: a prompt's marks and an item's members for each of its pictures.
BATCH_JSON_MARKS = 256 * 1024
BATCH_BESIDE_BYTES = 2 * 1024 * 1024
BASE64_BEGINS = re.compile(rb"(?:[A-Za-z0-9+/]|\\/){32}")


@dataclass
class Part:
    """A part of a form; a file if its sender says a filename."""

    name: str = ""
    is_file: bool = False
    filename: str = ""
    data: bytearray = field(default_factory=bytearray)


def parse_form(body: bytes, content_type: str, most: int = MAX_PARTS) -> list[Part]:
    """The parts of a multipart/form-data body, at most so many, in their order. One that breaks off has those that
    came whole.

    Raises `Problem` malformed-body.
    """
    boundary = parse_options_header(content_type)[1].get(b"boundary", b"")
    if not 1 <= len(boundary) <= 70:
        raise _malformed("its Content-Type has no boundary of 1 to 70 characters")
    if body.find(b"--" + boundary, 0, MAX_PREAMBLE + len(boundary)) < 0:
        raise _malformed("its boundary isn't in it")
    if body.count(b"\r\n--") > MAX_LIKE_BOUNDARIES:
        raise _malformed("it is made of what nearly is its boundary")
    collecting = _Parts(most)
    try:
        parser = MultipartParser(boundary, collecting.callbacks())
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise _malformed("its parts are out of order") from error
    return collecting.whole


class _Parts:
    """What the parser calls, collecting parts."""

    def __init__(self, most: int) -> None:
        self.whole: list[Part] = []
        self._most = most
        self._beside = 0
        self._header = b""
        self._value = b""
        self._disposition = b""
        self._part = Part()

    def callbacks(self) -> "MultipartCallbacks":
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._header_field,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_finished,
            "on_part_data": self._data,
            "on_part_end": self._end,
        }

    def _begin(self) -> None:
        if len(self.whole) == self._most:
            raise _malformed(f"it has more than {self._most} fields")
        self._part = Part()
        self._disposition = b""

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value
        self._header = self._value = b""

    def _headers_finished(self) -> None:
        options = parse_options_header(self._disposition)[1]
        if b"name" not in options:
            raise _malformed("a part has no name in its Content-Disposition")
        self._part.name = _text(bytes(options[b"name"]), "a field's name")
        if len(self._part.name) > MAX_NAME:
            raise _malformed(f"a field's name has more than {MAX_NAME} characters")
        self._part.is_file = b"filename" in options
        self._part.filename = bytes(options.get(b"filename", b"")).decode("utf-8", "replace")

    def _data(self, data: bytes, start: int, end: int) -> None:
        if not self._part.is_file and len(self._part.data) + end - start > MAX_FIELD_BYTES:
            raise _malformed(
                f"the field {self._part.name!r} is beyond the size of {MAX_FIELD_BYTES // 1024} KB"
            )
        self._part.data += data[start:end]

    def _end(self) -> None:
        self.whole.append(self._part)


@dataclass(frozen=True)
class JsonBounds:
    """What a body of JSON may have: texts that are pictures, marks, and bytes beside the pictures."""

    pictures: int = 1
    marks: int = MAX_JSON_MARKS
    beside: int = BESIDE_BYTES


def parse_json(body: bytes, bounds: JsonBounds = JsonBounds()) -> dict[str, Any]:
    """The JSON object in a body.

    Raises `Problem`: malformed-body for what isn't JSON, invalid-request for JSON that can't be a question.
    """
    if sum(map(body.count, (b",", b":", b"[", b"{", b'"'))) > bounds.marks:
        raise invalid("", "The object has too many members, or too long a text.")
    # The pictures are the longest texts between two quotes. Some programs write slashes with a backslash before.
    longest = heapq.nlargest(bounds.pictures, body.split(b'"'), key=len)
    if any(len(text) > BESIDE_BYTES and not BASE64_BEGINS.match(text) for text in longest):
        raise invalid("", f"Nothing but image_base64 may have more than {BESIDE_BYTES // 1024} KB.")
    if len(body) - sum(map(len, longest)) > bounds.beside:
        raise invalid("", f"The fields beside image_base64 have more than {bounds.beside // 1024} KB.")
    del longest
    try:
        value = json.loads(
            body.decode("utf-8"),
            object_pairs_hook=_unique_keys,
            parse_constant=_no_constant,
            parse_int=_whole,
        )
        if _depth(value) > MAX_JSON_DEPTH:
            raise RecursionError
    except UnicodeDecodeError as error:
        raise Problem("malformed-body", f"The body isn't UTF-8 (byte {error.start}).") from error
    except json.JSONDecodeError as error:
        raise Problem(
            "malformed-body",
            f"The body isn't JSON: {error.msg} at line {error.lineno}, column {error.colno}.",
        ) from error
    except RecursionError as error:
        raise Problem(
            "malformed-body", f"The JSON is nested too deeply: {MAX_JSON_DEPTH} levels at most."
        ) from error
    except ValueError as error:
        raise Problem("malformed-body", f"The body isn't JSON that can be used: {error}.") from error
    if not isinstance(value, dict):
        raise invalid("", "The body has to be a JSON object.")
    if len(value) > MAX_JSON_MEMBERS:
        raise invalid("", f"The object has more than {MAX_JSON_MEMBERS} members.")
    return value


def text_of(part: Part) -> str:
    """A form field's text. Raises `Problem` malformed-body if it isn't UTF-8."""
    return _text(bytes(part.data), f"the field {part.name!r}")


def _text(data: bytes, what: str) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _malformed(f"{what} isn't UTF-8") from error


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; a key given twice is an error, since which one counts is anybody's guess."""
    result: dict[str, Any] = {}
    for key, value in pairs:
        if len(key) > MAX_NAME:
            raise invalid("", f"A field's name has more than {MAX_NAME} characters.")
        if key in result:
            raise invalid(key, "was sent more than once.")
        result[key] = value
    return result


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no number in JSON")


def _whole(digits: str) -> int:
    # Longer ones are beyond every field's range, and Python refuses to read them.
    if len(digits) > 100:
        raise ValueError("a number has more than 100 digits")
    return int(digits)


def _depth(value: Any) -> int:
    """How many objects and lists lie in one another."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(_depth, inner), default=0)


def _malformed(why: str) -> Problem:
    return Problem("malformed-body", f"The form can't be read: {why}.")
