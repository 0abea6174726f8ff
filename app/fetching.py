"""Fetching a picture from the address that a caller sent, within limits of time and size, from allowed hosts only.

No proxy, no cookie and no password takes part, and nothing compressed is taken: what comes is at most as large as
what is kept. What goes wrong is told in the same few sentences, whatever is behind the address.
"""

import asyncio
from collections.abc import Callable

from app.addresses import AddressRefused, Target, parse
from app.connecting import Connector, Exchange, MoreThanTaken

FETCH_SECONDS = 10.0
MAX_REDIRECTS = 3
REDIRECTS = (301, 302, 303, 307, 308)
# Heads, and what chunks add to a body.
OVERHEAD_BYTES = 256 * 1024


class TooMuch(AddressRefused):
    """What is at the address is larger than is taken."""

    def __init__(self) -> None:
        super().__init__("too-large", "What is at the address is larger than is taken.")


class Fetcher:
    """Fetches over https; shared by all requests of a process."""

    def __init__(
        self,
        connector: Connector,
        *,
        seconds: float = FETCH_SECONDS,
    ) -> None:
        """`seconds` is for all of it: names, connections, redirects and the body."""
        self._seconds = seconds
        self._connector = connector

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
        async with self._connector.exchange(target, most_bytes + OVERHEAD_BYTES) as exchange:
            try:
                return await _picture(exchange, target, most_bytes, hold)
            except MoreThanTaken as error:
                raise TooMuch from error


async def _picture(
    exchange: Exchange, target: Target, most_bytes: int, hold: Callable[[int], None]
) -> bytes | Target:
    response = await exchange.ask("GET", [("Accept", "image/*")])
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in response.headers}
    if response.status_code in REDIRECTS and "location" in headers:
        return target.joined(headers["location"])
    if response.status_code != 200:
        raise AddressRefused(
            "status", f"The address answers with {response.status_code}, not with a picture."
        )
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise AddressRefused("compressed", "What is at the address comes compressed, which isn't taken.")
    length = headers.get("content-length", "")
    if length.isdecimal() and int(length) > most_bytes:
        raise TooMuch
    held = bytearray()
    async for data in exchange.body():
        if len(held) + len(data) > most_bytes:
            raise TooMuch
        hold(len(data))
        held += data
    return bytes(held)
