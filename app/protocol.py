"""HTTP on the wire: uvicorn's own protocol with limits of time and size where it has none.

Uvicorn bounds the pause between two requests only. A connection that sends nothing, half a head, or a body that
nobody reads, and one that doesn't take its answer, would stay for as long as its other end likes.
"""

import asyncio
from typing import Any
from urllib.parse import urlsplit

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from app.lingering import LingeringTransport

# Request line and headers together. Browsers and proxies stay below 16 KiB.
MAX_HEAD_BYTES = 32 * 1024
TOO_LARGE = "The request's head is too large."


class BoundedProtocol(HttpToolsProtocol):
    """One connection. `with_limits` makes the class that uvicorn takes."""

    head_seconds = 10.0
    body_seconds = 120.0

    _timer: asyncio.TimerHandle | None = None
    _write_timer: asyncio.TimerHandle | None = None
    _in_head = False
    # Between the first byte of a request and its last, and after one that can't be understood.
    _in_request = False
    _head_bytes = 0
    transport: LingeringTransport

    @classmethod
    def with_limits(cls, head_seconds: float, body_seconds: float) -> type["BoundedProtocol"]:
        """The protocol with these limits.

        Args:
            head_seconds: for the head of a request from its first byte on, for a connection's first byte, and
                for a client to take anything of an answer.
            body_seconds: for a body that goes on coming after its answer was given, whether the connection is to
                be used again or closed. Who reads a body for an answer has limits of its own.
        """
        limits = {"head_seconds": head_seconds, "body_seconds": body_seconds}
        return type("LimitedProtocol", (cls,), limits)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(
            LingeringTransport(transport, lambda: self._in_request, self.head_seconds, self.body_seconds)
        )
        self._within(self.head_seconds, self._head_is_late)

    def connection_lost(self, exc: Exception | None) -> None:
        self._within(None)
        self._stop_write_timer()
        self.transport.lost()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        if self.transport.lingers:
            self.transport.abort()
        else:
            super().shutdown()

    def data_received(self, data: bytes) -> None:
        if self.transport.lingers:
            self.transport.drop(data)
            return
        went_on = self._in_head
        super().data_received(data)
        if went_on and self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self._refuse(431, TOO_LARGE)

    def send_400_response(self, msg: str) -> None:
        self._in_request = True
        if not self.transport.is_closing():
            super().send_400_response(msg)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = self._in_request = True
        self._head_bytes = 0
        self._within(self.head_seconds, self._head_is_late)

    def on_headers_complete(self) -> None:
        self._in_head = False
        if len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > MAX_HEAD_BYTES:
            self._refuse(431, TOO_LARGE)
            raise ValueError(TOO_LARGE)
        self._name_the_host()
        super().on_headers_complete()
        self._within(self.body_seconds, self._body_is_late)

    def on_message_complete(self) -> None:
        self._in_request = False
        self._within(None)
        super().on_message_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stop_write_timer()
        self._watch_writing(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_write_timer()

    def _name_the_host(self) -> None:
        """Of a target that names a host itself, that host counts and `Host` doesn't (RFC 9112, section 3.2.2)."""
        if not self.url.startswith(b"/"):
            target = urlsplit(self.url.decode("latin-1")).netloc.encode("latin-1")
            if target:
                self.headers[:] = [pair for pair in self.headers if pair[0] != b"host"] + [(b"host", target)]

    def _within(self, seconds: float | None, late: Any = None) -> None:
        """Call `late` after these seconds, and nothing that was to be called before; None: call nothing."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if seconds is None else self.loop.call_later(seconds, late)

    def _head_is_late(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            # The head of the next request may wait for as long as this one's answer takes.
            self._within(self.head_seconds, self._head_is_late)
        elif self._in_head:
            self._refuse(408, "The request's head didn't come in time.")
        else:
            self.transport.close()

    def _body_is_late(self) -> None:
        if self.cycle.response_complete:
            self.transport.abort()
        else:
            self._within(self.head_seconds, self._body_is_late)

    def _watch_writing(self, unsent: int) -> None:
        """End the connection once nothing of what waits to be sent was taken for a while."""

        def look() -> None:
            left = self.transport.get_write_buffer_size()
            if left < unsent:
                self._watch_writing(left)
            else:
                self.transport.abort()

        self._write_timer = self.loop.call_later(self.head_seconds, look)

    def _refuse(self, status: int, why: str) -> None:
        """Answer with a sentence and close; no application has seen the request."""
        if self.transport.is_closing():
            return
        text = why.encode("ascii")
        head = b"content-type: text/plain; charset=utf-8\r\nconnection: close\r\ncontent-length: %d\r\n\r\n"
        self.transport.write(STATUS_LINE[status] + head % len(text) + text)
        self.transport.close()

    def _stop_write_timer(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None
