"""Fetching a picture from the address that a caller sent, within limits of time and size, from allowed hosts only.

No proxy, no cookie and no password takes part, and nothing compressed is taken: what comes is at most as large as
what is kept. What goes wrong is told in the same few sentences, whatever is behind the address.
"""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable
from importlib.metadata import version

import h11

from app import DISTRIBUTION
from app.addresses import AddressRefused, Allowed, Resolve, Target, looked_up, parse, resolve_by_system

FETCH_SECONDS = 10.0
MAX_REDIRECTS = 3
REDIRECTS = (301, 302, 303, 307, 308)
# Heads, and what chunks add to a body.
MAX_HEAD_BYTES = 16 * 1024
OVERHEAD_BYTES = 256 * 1024
READ_BYTES = 64 * 1024
AGENT = f"{DISTRIBUTION}/{version(DISTRIBUTION)}"


class TooMuch(AddressRefused):
    """What is at the address is larger than is taken."""

    def __init__(self) -> None:
        super().__init__("too-large", "What is at the address is larger than is taken.")


class Fetcher:
    """Fetches over https; shared by all requests of a process."""

    def __init__(
        self,
        allowed: Allowed,
        *,
        seconds: float = FETCH_SECONDS,
        resolve: Resolve = resolve_by_system,
        trust: ssl.SSLContext | None = None,
    ) -> None:
        """`seconds` is for all of it: names, connections, redirects and the body. `trust`: the authorities whose
        certificates are believed; the system's by default."""
        self._allowed = allowed
        self._seconds = seconds
        self._resolve = resolve
        self._trust = trust or ssl.create_default_context()

    async def fetch(
        self, url: str, most_bytes: int, hold: Callable[[int], None] = lambda count: None
    ) -> bytes:
        """What is at the address.

        Args:
            most_bytes: how large it may be.
            hold: told how many bytes more are held now; what it raises ends the fetch.

        Raises:
            TooMuch: it is larger.
            AddressRefused: it can't be fetched, or may not.
        """
        target = parse(url)
        try:
            async with asyncio.timeout(self._seconds):
                for _ in range(MAX_REDIRECTS + 1):
                    found = await self._get(target, most_bytes, hold)
                    if isinstance(found, bytes):
                        return found
                    target = found
        except TimeoutError as error:
            raise AddressRefused(
                "too-slow", f"What is at the address didn't come within {self._seconds:g} s."
            ) from error
        raise AddressRefused(
            "too-many-redirects", f"The address leads on more than {MAX_REDIRECTS} times: send the last one."
        )

    async def _get(self, target: Target, most_bytes: int, hold: Callable[[int], None]) -> bytes | Target:
        """What is there, or where it leads on."""
        async with self._connected(target) as (reader, writer):
            try:
                return await _Exchange(target, reader, writer).picture(most_bytes, hold)
            except h11.RemoteProtocolError as error:
                raise _broken_off() from error
            except OSError as error:
                # TimeoutError is one, and is told by whoever set the time.
                if isinstance(error, TimeoutError):
                    raise
                raise _broken_off() from error

    @contextlib.asynccontextmanager
    async def _connected(
        self, target: Target
    ) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """A connection to one of the addresses that were looked at, for the length of the block."""
        trust = self._trust if target.scheme == "https" else None
        for address in await looked_up(target, self._allowed, self._resolve):
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


class _Exchange:
    """One request and its answer."""

    def __init__(self, target: Target, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._target = target
        self._reader = reader
        self._writer = writer
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)
        self._received = 0
        self._most_received = 0

    async def picture(self, most_bytes: int, hold: Callable[[int], None]) -> bytes | Target:
        self._most_received = most_bytes + OVERHEAD_BYTES
        request = h11.Request(
            method="GET",
            target=self._target.path,
            headers=[
                ("Host", self._target.authority),
                ("User-Agent", AGENT),
                ("Accept", "image/*"),
                ("Accept-Encoding", "identity"),
                ("Connection", "close"),
            ],
        )
        self._writer.write((self._http.send(request) or b"") + (self._http.send(h11.EndOfMessage()) or b""))
        await self._writer.drain()
        response = await self._response()
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in response.headers}
        if response.status_code in REDIRECTS and "location" in headers:
            return self._target.joined(headers["location"])
        if response.status_code != 200:
            raise AddressRefused(
                "status", f"The address answers with {response.status_code}, not with a picture."
            )
        if headers.get("content-encoding", "identity").lower() != "identity":
            raise AddressRefused("compressed", "What is at the address comes compressed, which isn't taken.")
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length) > most_bytes:
            raise TooMuch
        return await self._body(most_bytes, hold)

    async def _response(self) -> h11.Response:
        while True:
            event = await self._next()
            if isinstance(event, h11.Response):
                return event
            if not isinstance(event, h11.InformationalResponse):
                raise _broken_off()

    async def _body(self, most_bytes: int, hold: Callable[[int], None]) -> bytes:
        held = bytearray()
        while True:
            event = await self._next()
            if isinstance(event, h11.EndOfMessage):
                return bytes(held)
            if not isinstance(event, h11.Data):
                raise _broken_off()
            if len(held) + len(event.data) > most_bytes:
                raise TooMuch
            hold(len(event.data))
            held += event.data

    async def _next(self) -> object:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            data = await self._reader.read(READ_BYTES)
            self._received += len(data)
            if self._received > self._most_received:
                raise TooMuch
            self._http.receive_data(data)
        return event


def _broken_off() -> AddressRefused:
    return AddressRefused("broken-off", "What is at the address broke off before all of it had come.")
