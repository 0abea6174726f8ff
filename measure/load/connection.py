"""One kept connection to a service; light, so that a hundred of them in one process don't measure themselves."""

import asyncio
import ipaddress
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

import h11

from das.errors import SettingsError

TIMEOUT_S = 60.0  # of one request; longer than a service may hold one
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

    def close(self) -> None:
        """End the connection; a later request opens another."""
        if self._protocol is not None:
            self._writer.close()
            self._protocol = None

    async def _exchange(
        self, method: str, target: str, headers: dict[str, str], body: bytes, began: float
    ) -> Response:
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
        found: h11.Response | None = None
        parts: list[bytes] = []
        while True:
            event = protocol.next_event()
            if event is h11.NEED_DATA:
                protocol.receive_data(await self._reader.read(_READ_BYTES))
            elif isinstance(event, h11.Response):
                found = event
            elif isinstance(event, h11.Data):
                parts.append(bytes(event.data))
            elif isinstance(event, h11.EndOfMessage):
                break
            elif isinstance(event, h11.ConnectionClosed):
                raise ConnectionResetError("the service closed the connection before it answered")
        assert found is not None  # a message ends after its beginning
        seconds = time.perf_counter() - began
        if protocol.our_state is h11.DONE and protocol.their_state is h11.DONE:
            protocol.start_next_cycle()
        else:
            self.close()
        named = {name.decode().lower(): value.decode("latin-1") for name, value in found.headers}
        return Response(found.status_code, named, b"".join(parts), seconds)

    async def _opened(self) -> h11.Connection:
        if self._protocol is not None and self._reader.at_eof():
            self.close()
        if self._protocol is None:
            self._reader, self._writer = await asyncio.open_connection(self._address.host, self._address.port)
            self._protocol = h11.Connection(h11.CLIENT)
        return self._protocol
