"""Receiving the bodies of requests: how large one may be, how long it may take, how many are held at once.

A body is held in memory until the request has used it. What all of them hold together is bounded, and so is what
one address may hold of that; whoever sends nothing for a while is cut off. Neither a missing nor a lying
Content-Length changes anything.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator

from starlette.requests import ClientDisconnect, Request

from app.peers import address_of
from app.problems import Problem

BUSY_RETRY_S = 5
# One address may hold this part of what all may: the rest is left to the others.
SHARE_OF_ONE = 0.5


class Bodies:
    """The bodies that are held at this moment."""

    def __init__(self, most_bytes: int, seconds: float, stall_seconds: float) -> None:
        """`seconds` is for a whole body, `stall_seconds` the longest pause in it."""
        self._most_bytes = most_bytes
        self._seconds = seconds
        self._stall_seconds = stall_seconds
        self._held: Counter[str] = Counter()

    @property
    def held_bytes(self) -> int:
        """What is held now, by all."""
        return self._held.total()

    @contextlib.asynccontextmanager
    async def received(self, request: Request, limit: int, too_large: Problem) -> AsyncIterator[bytes]:
        """The whole body, which counts as held for the length of the block.

        Raises `Problem`: `too_large` as soon as more than `limit` bytes came or are announced, too-slow, busy,
        or malformed-body where the connection ended.
        """
        announced = request.headers.get("content-length", "")
        if announced.isascii() and announced.isdigit() and (len(announced) > 18 or int(announced) > limit):
            raise too_large
        chunks: list[bytes] = []
        came = 0
        with self.holding(address_of(request)) as hold:
            async for chunk in self._in_time(request):
                if came + len(chunk) > limit:
                    raise too_large
                hold(len(chunk))
                came += len(chunk)
                chunks.append(chunk)
            body = b"".join(chunks)
            chunks.clear()
            yield body

    @contextlib.contextmanager
    def holding(self, address: str) -> Iterator[Callable[[int], None]]:
        """Something that is told how many bytes more this address holds, until the end of the block; it raises
        `Problem` busy where those are too many."""
        held = 0

        def hold(count: int) -> None:
            nonlocal held
            self._hold(address, count)
            held += count

        try:
            yield hold
        finally:
            self._held[address] -= held
            if not self._held[address]:
                del self._held[address]

    async def _in_time(self, request: Request) -> AsyncIterator[bytes]:
        now = asyncio.get_running_loop().time
        ends = now() + self._seconds
        try:
            async with contextlib.aclosing(request.stream()) as chunks:
                while True:
                    async with asyncio.timeout_at(min(ends, now() + self._stall_seconds)):
                        chunk = await anext(chunks, None)
                    if chunk is None:
                        return
                    yield chunk
        except TimeoutError as error:
            raise Problem(
                "too-slow",
                f"The body has to come within {self._seconds:g} s, without a pause of {self._stall_seconds:g} s.",
                {"Connection": "close"},
            ) from error
        except ClientDisconnect as error:
            raise Problem("malformed-body", "The connection ended before the whole body had come.") from error

    def _hold(self, address: str, count: int) -> None:
        full = self.held_bytes + count > self._most_bytes
        if full or self._held[address] + count > SHARE_OF_ONE * self._most_bytes:
            raise Problem(
                "busy",
                "Too many pictures are being received at this moment. Try again in a few seconds.",
                # Without closing: who comes again needn't connect again.
                {"Retry-After": str(BUSY_RETRY_S)},
            )
        self._held[address] += count
