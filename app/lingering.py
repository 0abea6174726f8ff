"""Closing a connection whose other end is still sending.

A connection that is closed upon bytes that nobody has read is reset, and the answer that waits at the other end goes
with it: a proxy that passes an upload on as it comes says 502 in place of 413. So the answer is ended first, and what
still comes is read and dropped for a while.
"""

import asyncio
from collections.abc import Callable
from typing import Any

# More than twice the largest body that is taken where nothing else is set.
MOST_DROPPED_BYTES = 128 * 1024 * 1024


class LingeringTransport(asyncio.Transport):
    """A connection's transport, of which `close` is what the module says."""

    def __init__(
        self,
        inner: asyncio.Transport,
        still_comes: Callable[[], bool],
        pause_seconds: float,
        seconds: float,
    ) -> None:
        """
        Args:
            inner: the connection itself.
            still_comes: whether more of a request is to be expected at this moment.
            pause_seconds: the longest pause in what is dropped.
            seconds: the longest time that it is dropped for.
        """
        super().__init__()
        self._inner = inner
        self._still_comes = still_comes
        self._pause_seconds = pause_seconds
        self._seconds = seconds
        self._left = MOST_DROPPED_BYTES
        self._ends: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def lingers(self) -> bool:
        """Whether the answer has ended and the rest of the request is dropped."""
        return self._ends is not None

    def close(self) -> None:
        """Send what waits to be sent; then close, or first drop what still comes."""
        if self.is_closing():
            return
        if not (self._still_comes() and self._inner.can_write_eof()):
            self._inner.close()
            return
        try:
            self._inner.write_eof()
        except OSError:  # the other end has gone
            self._inner.close()
            return
        self.resume_reading()
        self._ends = asyncio.get_running_loop().time() + self._seconds
        self._wait()

    def drop(self, data: bytes) -> None:
        """Take notice of what came while the connection lingers; more than it takes ends it."""
        self._left -= len(data)
        if self._left < 0:
            self._inner.abort()
        else:
            self._wait()

    def lost(self) -> None:
        """To be called when the connection has ended."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wait(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        loop = asyncio.get_running_loop()
        assert self._ends is not None
        self._timer = loop.call_at(min(self._ends, loop.time() + self._pause_seconds), self._inner.abort)

    # ---- Everything else is the connection's own ----

    def is_closing(self) -> bool:
        return self.lingers or self._inner.is_closing()

    def abort(self) -> None:
        self._inner.abort()

    def write(self, data: Any) -> None:
        if not self.lingers:
            self._inner.write(data)

    def write_eof(self) -> None:
        if not self.lingers:
            self._inner.write_eof()

    def can_write_eof(self) -> bool:
        return self._inner.can_write_eof()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._inner.get_extra_info(name, default)

    def is_reading(self) -> bool:
        return self._inner.is_reading()

    def pause_reading(self) -> None:
        if not self.lingers:
            self._inner.pause_reading()

    def resume_reading(self) -> None:
        if not self._inner.is_reading():
            self._inner.resume_reading()

    def get_write_buffer_size(self) -> int:
        return self._inner.get_write_buffer_size()

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._inner.get_write_buffer_limits()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._inner.set_write_buffer_limits(high, low)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._inner.set_protocol(protocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._inner.get_protocol()
