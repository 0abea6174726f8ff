"""Answers read as their types, and lists page by page. `reading.py` is made of this file by `client/generate.py`."""

from collections.abc import AsyncIterator, Mapping
from typing import Any, TypeVar

from pydantic import TypeAdapter

from das_client.async_sending import AsyncSending
from das_client.call import Call, next_cursor, read

T = TypeVar("T")
HELD_S = 20.0
"""How long one request lets the service hold its answer back; many proxies allow a minute."""
PAGE = 100


class AsyncReading(AsyncSending):
    """What every part of the client is made with."""

    async def _read(self, kind: type[T], call: Call) -> T:
        return read(TypeAdapter(kind), await self._send(call))

    async def _bytes(self, where: str, query: Mapping[str, Any] | None = None) -> bytes:
        return (await self._send(Call("GET", where, query or {}, {"Accept": "*/*"}))).content

    async def _pages(self, kind: type[T], where: str, query: Mapping[str, Any]) -> AsyncIterator[T]:
        seen: list[str] = []
        cursor: str | None = None
        while True:
            page = await self._read(kind, Call("GET", where, {**query, "limit": PAGE, "cursor": cursor}))
            yield page
            cursor = next_cursor(getattr(page, "next_cursor", None), seen)
            if cursor is None:
                return
            seen.append(cursor)
