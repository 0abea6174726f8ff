"""One request to the service, described: what is sent, and what may be done when no answer comes."""

import base64
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, TypeVar, cast
from urllib.parse import quote

import httpx
from pydantic import TypeAdapter, ValidationError

from das_client.errors import ProblemError, UnexpectedAnswer, UsageError
from das_client.models import AskOptions
from das_client.retries import retry_after

Picture = str | os.PathLike[str] | bytes | IO[bytes]
"""A picture: a path, its address (http:// or https://), its bytes, or a file that is open for reading bytes."""

BatchPicture = Picture | tuple[Picture, AskOptions]
"""A picture of a batch: one as above, or with what is asked of it unlike of the others."""

ADDRESSES = ("http://", "https://")
PROBLEM = "application/problem+json"
OCTETS = "application/octet-stream"
# Of something that is no problem document, such as a proxy's page.
SHOWN = 200
T = TypeVar("T")


@dataclass(frozen=True)
class Call:
    """A request. `repeats`: sending it twice does what sending it once does, so a broken connection is no reason to
    give up; an `Idempotency-Key` makes that so for what makes something. `held_s`: for how long the service may hold
    the answer back, beyond the client's own patience."""

    method: str
    path: str
    query: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    picture: bytes | None = None
    files: Sequence[tuple[str, tuple[str, bytes, str]]] = ()
    fields: Mapping[str, str] = field(default_factory=dict)
    repeats: bool = True
    held_s: float = 0.0

    def arguments(self) -> dict[str, Any]:
        """What httpx is given of it."""
        told: dict[str, Any] = {"params": {name: _text(v) for name, v in self.query.items() if v is not None}}
        if self.picture is not None:
            # The file's own name stays at home.
            told["files"] = {"image": ("picture", self.picture, OCTETS)}
            told["data"] = dict(self.fields)
        elif self.files:
            told["files"], told["data"] = list(self.files), dict(self.fields)
        elif self.body is not None:
            told["json"] = self.body
        return told


def path(*parts: str) -> str:
    """A path under the service's address; each part after the first is one segment, whatever is in it."""
    for part in parts[1:]:
        if not isinstance(part, str) or part in ("", ".", ".."):
            raise UsageError(f"{part!r} can't be an id")
    return "/".join([parts[0], *(quote(part, safe="") for part in parts[1:])])


def with_picture(picture: Picture, options: Mapping[str, Any]) -> dict[str, Any]:
    """The parts of a `Call` that bring a picture and the options beside it.

    Raises:
        UsageError: the picture can't be read.
    """
    given = {name: value for name, value in options.items() if value is not None}
    if _is_address(picture):
        return {"body": {**given, "image_url": picture}}
    return {"picture": bytes_of(picture), "fields": {name: _text(value) for name, value in given.items()}}


def with_pictures(pictures: Sequence[BatchPicture], options: Mapping[str, Any]) -> dict[str, Any]:
    """The parts of a `Call` that bring many pictures: as files, or as JSON where one is an address or asked about
    otherwise. A file's own name, without its folder, is what the batch calls it.

    Raises:
        UsageError: a picture can't be read.
    """
    given = {name: value for name, value in options.items() if value is not None}
    if not any(isinstance(one, tuple) or _is_address(one) for one in pictures):
        files = [
            ("image", (_name(one, number), bytes_of(one), OCTETS))
            for number, one in enumerate(cast(Sequence[Picture], pictures), 1)
        ]
        return {"files": files, "fields": {name: _text(value) for name, value in given.items()}}
    items: list[dict[str, Any]] = []
    for number, one in enumerate(pictures, 1):
        picture, own = one if isinstance(one, tuple) else (one, {})
        if _is_address(picture):
            item: dict[str, Any] = {"image_url": picture}
        else:
            encoded = base64.b64encode(bytes_of(picture)).decode("ascii")
            item = {"image_base64": encoded, "name": _name(picture, number)}
        items.append({**{name: value for name, value in own.items() if value is not None}, **item})
    return {"body": {**given, "items": items}}


def with_archive(archive: str | os.PathLike[str] | bytes, options: Mapping[str, Any]) -> dict[str, Any]:
    """The parts of a `Call` that bring a zip of pictures; raises `UsageError` where it can't be read."""
    given = {name: _text(value) for name, value in options.items() if value is not None}
    return {"files": [("archive", ("pictures.zip", bytes_of(archive), "application/zip"))], "fields": given}


def _is_address(picture: Picture) -> bool:
    return isinstance(picture, str) and picture.startswith(ADDRESSES)


def _name(picture: Picture, number: int) -> str:
    return Path(picture).name if isinstance(picture, str | os.PathLike) else f"picture-{number}"


def bytes_of(picture: Picture) -> bytes:
    """A picture's bytes; raises `UsageError` where they can't be read."""
    if isinstance(picture, bytes | bytearray | memoryview):
        return bytes(picture)
    if isinstance(picture, str | os.PathLike):
        try:
            return Path(picture).read_bytes()
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise UsageError(f"{os.fspath(picture)!r} can't be read: {why}") from error
    data = picture.read()
    if not isinstance(data, bytes):
        raise UsageError("the file has to be opened for reading bytes ('rb')")
    return data


def problem_of(response: httpx.Response, now_s: float) -> ProblemError | UnexpectedAnswer:
    """The error that an answer is. Its body has been read."""
    if response.is_redirect:
        elsewhere = _shown(response.headers.get("location", ""))
        return UnexpectedAnswer(
            f"{response.request.url.host} answers that the service is at {elsewhere};"
            " redirections aren't followed, so that no key goes astray: give that address as url"
        )
    document: Any = None
    if response.headers.get("content-type", "").startswith(PROBLEM):
        try:
            document = json.loads(response.content)
        except (ValueError, RecursionError):
            document = None
    if not isinstance(document, dict):
        document = {"detail": _shown(response.text) or response.reason_phrase}
    return ProblemError(response.status_code, document, retry_after(response.headers, now_s))


def read(kind: TypeAdapter[T], response: httpx.Response) -> T:
    """The answer as its type; raises `UnexpectedAnswer`."""
    try:
        return kind.validate_json(response.content)
    except ValidationError as error:
        raise _unreadable(response.request.url.path, error) from error


def line_of(kind: TypeAdapter[T], text: str, where: str) -> T:
    """A line of an answer as its type; raises `UnexpectedAnswer`."""
    try:
        return kind.validate_json(text)
    except ValidationError as error:
        raise _unreadable(where, error) from error


def next_cursor(cursor: str | None, seen: Sequence[str]) -> str | None:
    """The cursor of the next page; raises `UnexpectedAnswer` for one that came before, which would never end."""
    if cursor is not None and cursor in seen:
        raise UnexpectedAnswer("the list's pages lead back to one that was read before")
    return cursor


def _unreadable(where: str, error: ValidationError) -> UnexpectedAnswer:
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(map(str, first["loc"]))
    return UnexpectedAnswer(f"the answer of {where} can't be read: {place}: {first['msg']}")


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def _shown(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text[:SHOWN]).strip()
