"""One kept connection to a service; light, so that a hundred of them in one process don't measure themselves."""

import asyncio
import ipaddress
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from urllib.parse import urlsplit

import h11

from das.errors import SettingsError

TIMEOUT_S = 60.0  # of one request; longer than a service may hold one, and than a stream may be silent
_READ_BYTES = 2**16


@dataclass(frozen=True)
class Address:
    """Where a service listens; on this machine, since a load is an attack on any other."""

    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> "Address":
        """The address in a URL such as http://127.0.0.1:8000.

        Raises:
            SettingsError: it isn't one, or leads to another machine.
        """
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port or 80
        except ValueError as error:
            raise SettingsError(f"--url is {url!r}: {error}.") from None
        if parts.scheme != "http" or not host:
            raise SettingsError(f"--url is {url!r}; write http://127.0.0.1:PORT.")
        if not _is_loopback(host):
            raise SettingsError(
                f"--url names {host}, and a load is only put on this machine: run it where the service runs,"
                " with 127.0.0.1, ::1 or localhost."
            )
        return cls(host, port)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@dataclass(frozen=True)
class Response:
    """What came back, and how long it took from the first byte sent to the last one read."""

    status: int
    headers: dict[str, str]
    body: bytes
    seconds: float


@dataclass(frozen=True)
class Stream:
    """Server-sent events: how the answer began, and the events to come."""

    opened: Response
    _parts: AsyncIterator[bytes]

    async def events(self) -> AsyncIterator[tuple[str, bytes]]:
        """Name and data of each event; heartbeats are passed over. Raises as `Connection.request` does."""
        held = b""
        async for part in self._parts:
            *whole, held = (held + part).split(b"\n\n")
            for frame in whole:
                lines = dict(line.partition(b": ")[::2] for line in frame.split(b"\n"))
                if b"event" in lines:
                    yield lines[b"event"].decode(), lines.get(b"data", b"")


class Connection:
    """Requests one after another; a connection that the service has closed meanwhile is opened again."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._protocol: h11.Connection | None = None
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter

    async def request(
        self, method: str, target: str, headers: dict[str, str] | None = None, body: bytes = b""
    ) -> Response:
        """Send a request and read its answer.

        Raises:
            OSError: nobody listens, the connection broke, or nothing came within `TIMEOUT_S`.
            h11.ProtocolError: what came isn't HTTP.
        """
        began = time.perf_counter()
        try:
            async with asyncio.timeout(TIMEOUT_S):
                return await self._exchange(method, target, headers or {}, body, began)
        except BaseException:
            self.close()
            raise

    async def stream(self, target: str, headers: dict[str, str] | None = None) -> "Stream":
        """Ask for server-sent events; raises as `request` does. The connection is the stream's until its end."""
        began = time.perf_counter()
        try:
            async with asyncio.timeout(TIMEOUT_S):
                protocol = await self._send("GET", target, headers or {}, b"")
                while not isinstance(event := await self._next(protocol), h11.Response):
                    pass
        except BaseException:
            self.close()
            raise
        opened = Response(event.status_code, _named(event), b"", time.perf_counter() - began)
        return Stream(opened, self._parts(protocol))

    def close(self) -> None:
        """End the connection; a later request opens another."""
        if self._protocol is not None:
            self._writer.close()
            self._protocol = None

    async def _exchange(
        self, method: str, target: str, headers: dict[str, str], body: bytes, began: float
    ) -> Response:
        protocol = await self._send(method, target, headers, body)
        found: h11.Response | None = None
        parts: list[bytes] = []
        while not isinstance(event := await self._next(protocol), h11.EndOfMessage):
            if isinstance(event, h11.Response):
                found = event
            elif isinstance(event, h11.Data):
                parts.append(bytes(event.data))
        assert found is not None  # a message ends after its beginning
        seconds = time.perf_counter() - began
        self._end_exchange(protocol)
        return Response(found.status_code, _named(found), b"".join(parts), seconds)

    async def _send(self, method: str, target: str, headers: dict[str, str], body: bytes) -> h11.Connection:
        protocol = await self._opened()
        host = f"[{self._address.host}]" if ":" in self._address.host else self._address.host
        told = {"Host": f"{host}:{self._address.port}", "Content-Length": str(len(body)), **headers}
        message = [
            protocol.send(h11.Request(method=method, target=target, headers=list(told.items()))),
            protocol.send(h11.Data(data=body)),
            protocol.send(h11.EndOfMessage()),
        ]
        self._writer.write(b"".join(part or b"" for part in message))
        await self._writer.drain()
        return protocol

    async def _next(self, protocol: h11.Connection) -> object:
        while (event := protocol.next_event()) is h11.NEED_DATA:
            protocol.receive_data(await self._reader.read(_READ_BYTES))
        if isinstance(event, h11.ConnectionClosed):
            raise ConnectionResetError("the service closed the connection before it answered")
        return event

    async def _parts(self, protocol: h11.Connection) -> AsyncIterator[bytes]:
        """The parts of an answer as they come."""
        try:
            while True:
                async with asyncio.timeout(TIMEOUT_S):
                    event = await self._next(protocol)
                if isinstance(event, h11.EndOfMessage):
                    break
                if isinstance(event, h11.Data):
                    yield bytes(event.data)
        except BaseException:
            self.close()
            raise
        self._end_exchange(protocol)

    def _end_exchange(self, protocol: h11.Connection) -> None:
        if protocol.our_state is h11.DONE and protocol.their_state is h11.DONE:
            protocol.start_next_cycle()
        else:
            self.close()

    async def _opened(self) -> h11.Connection:
        if self._protocol is not None and self._reader.at_eof():
            self.close()
        if self._protocol is None:
            self._reader, self._writer = await asyncio.open_connection(self._address.host, self._address.port)
            self._protocol = h11.Connection(h11.CLIENT)
        return self._protocol


async def knock(address: Address) -> None:
    """See that a service is ready to answer.

    Raises:
        SettingsError: nothing answers at the address, or not yet.
    """
    where = f"{address.host}:{address.port}"
    connection = Connection(address)
    try:
        ready = await connection.request("GET", "/readyz")
    except (OSError, h11.ProtocolError) as error:
        raise SettingsError(f"No service answers at {where} ({error}); start one: das serve.") from error
    finally:
        connection.close()
    if ready.status != 200:
        raise SettingsError(f"The service at {where} isn't ready: {ready.body.decode(errors='replace')}")


def _named(response: h11.Response) -> dict[str, str]:
    return {name.decode().lower(): value.decode("latin-1") for name, value in response.headers}
