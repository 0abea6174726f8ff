"""Answers read as their types, by a client that waits. Made by client/generate.py of async_reading.py; don't edit."""

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from pydantic import TypeAdapter

from das_client.call import Call, next_cursor, read
from das_client.sending import Sending

T = TypeVar("T")
HELD_S = 20.0
"""How long one request lets the service hold its answer back; many proxies allow a minute."""
PAGE = 100


class Reading(Sending):
    """What every part of the client is made with."""

    def _read(self, kind: type[T], call: Call) -> T:
        return read(TypeAdapter(kind), self._send(call))

    def _bytes(self, where: str, query: Mapping[str, Any] | None = None) -> bytes:
        return (self._send(Call("GET", where, query or {}, {"Accept": "*/*"}))).content

    def _pages(self, kind: type[T], where: str, query: Mapping[str, Any]) -> Iterator[T]:
        seen: list[str] = []
        cursor: str | None = None
        while True:
            page = self._read(kind, Call("GET", where, {**query, "limit": PAGE, "cursor": cursor}))
            yield page
            cursor = next_cursor(getattr(page, "next_cursor", None), seen)
            if cursor is None:
                return
            seen.append(cursor)
