"""Connections to the addresses that callers chose, and one HTTP exchange over each of them.

A connection is made to an address that was looked at (`app.addresses`), whatever the host's name says a moment later.
No proxy, no cookie and no password of this service's takes part.
"""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Sequence
from importlib.metadata import version

import h11

from app import DISTRIBUTION
from app.addresses import AddressRefused, Allowed, Resolve, Target, looked_up, resolve_by_system

MAX_HEAD_BYTES = 16 * 1024
READ_BYTES = 64 * 1024
AGENT = f"{DISTRIBUTION}/{version(DISTRIBUTION)}"


class MoreThanTaken(Exception):
    """More bytes came than an exchange takes."""


class Connector:
    """Connects to what the operator allows; shared by all of a process."""

    def __init__(
        self,
        allowed: Allowed,
        *,
        resolve: Resolve = resolve_by_system,
        trust: ssl.SSLContext | None = None,
    ) -> None:
        """`trust`: the authorities whose certificates are believed; the system's by default."""
        self._allowed = allowed
        self._resolve = resolve
        self._trust = trust or ssl.create_default_context()

    async def look_up(self, target: Target) -> list[str]:
        """The addresses that a target would be connected to. Raises `AddressRefused`, as `app.addresses`."""
        return await looked_up(target, self._allowed, self._resolve)

    @contextlib.asynccontextmanager
    async def exchange(self, target: Target, most_bytes: int) -> AsyncIterator["Exchange"]:
        """One request and its answer, of up to `most_bytes` with all that belongs to it, with no limit of time.

        Raises:
            AddressRefused: there may or can be no connection, or it broke off.
            MoreThanTaken: more came.
        """
        async with self._connected(target) as (reader, writer):
            try:
                yield Exchange(target, reader, writer, most_bytes)
            except h11.RemoteProtocolError as error:
                raise broken_off() from error
            except OSError as error:
                # TimeoutError is one, and is told by whoever set the time.
                if isinstance(error, TimeoutError):
                    raise
                raise broken_off() from error

    @contextlib.asynccontextmanager
    async def _connected(
        self, target: Target
    ) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """A connection to one of the addresses that were looked at, for the length of the block."""
        trust = self._trust if target.scheme == "https" else None
        for address in await self.look_up(target):
            try:
                reader, writer = await asyncio.open_connection(
                    address, target.port, ssl=trust, server_hostname=target.host if trust else None
                )
                break
            except (OSError, ssl.CertificateError) as error:
                last: Exception = error
        else:
            raise AddressRefused(
                "unreachable", "The host of the address doesn't answer, or not as one can rely on."
            ) from last
        try:
            yield reader, writer
        finally:
            writer.transport.abort()


class Exchange:
    """One request and its answer."""

    def __init__(
        self, target: Target, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, most_bytes: int
    ) -> None:
        self._target = target
        self._reader = reader
        self._writer = writer
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)
        self._received = 0
        self._most_received = most_bytes

    async def ask(
        self, method: str, headers: Sequence[tuple[str, str]], body: bytes | None = None
    ) -> h11.Response:
        """Send a request; returns the head of its answer."""
        length = [] if body is None else [("Content-Length", str(len(body)))]
        request = h11.Request(
            method=method,
            target=self._target.path,
            headers=[
                ("Host", self._target.authority),
                ("User-Agent", AGENT),
                *headers,
                ("Accept-Encoding", "identity"),
                ("Connection", "close"),
                *length,
            ],
        )
        sent = self._http.send(request) or b""
        if body is not None:
            sent += self._http.send(h11.Data(body)) or b""
        self._writer.write(sent + (self._http.send(h11.EndOfMessage()) or b""))
        await self._writer.drain()
        while True:
            event = await self._next()
            if isinstance(event, h11.Response):
                return event
            if not isinstance(event, h11.InformationalResponse):
                raise broken_off()

    async def body(self) -> AsyncIterator[bytes]:
        """The answer's body, piece by piece."""
        while True:
            event = await self._next()
            if isinstance(event, h11.EndOfMessage):
                return
            if not isinstance(event, h11.Data):
                raise broken_off()
            yield bytes(event.data)

    async def _next(self) -> object:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            # What had come before it was too much counts: a status above all, however long what follows it is.
            if self._received > self._most_received:
                raise MoreThanTaken
            data = await self._reader.read(min(READ_BYTES, self._most_received + 1 - self._received))
            self._received += len(data)
            self._http.receive_data(data)
        return event


def broken_off() -> AddressRefused:
    """What is said of an answer that isn't whole."""
    return AddressRefused("broken-off", "What is at the address broke off before all of it had come.")
