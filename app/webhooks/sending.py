"""One attempt of a delivery: a signed POST to an address that is looked at anew, and what came of it."""

import asyncio
import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import h11

from app.addresses import AddressRefused, parse
from app.connecting import Connector, Exchange, MoreThanTaken

# For all of it: names, connection, the answer's head.
SECONDS = 15.0
# What is read of an answer's body, for how long, and how much of it is kept for people to read.
BODY_SECONDS = 3.0
BODY_BYTES = 4 * 1024
KEPT_CHARACTERS = 1000
# The head, and what belongs to the body's transfer, come on top.
MOST_BYTES = BODY_BYTES + 32 * 1024
UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
SLOW = f"The receiver didn't answer within {SECONDS:g} s."


@dataclass(frozen=True)
class Sent:
    """What came of an attempt. `error` is a sentence, None where the receiver took it (2xx)."""

    seconds: float
    status_code: int | None
    error: str | None
    response: str | None = None
    retry_after: float | None = None


async def send(connector: Connector, url: str, headers: list[tuple[str, str]], body: str) -> Sent:
    """POST a JSON body to an address. Redirects aren't followed: where they lead was seen by nobody."""
    began = time.monotonic()

    def spent() -> float:
        return round(time.monotonic() - began, 3)

    try:
        target = parse(url)
        async with asyncio.timeout(SECONDS) as limit, connector.exchange(target, MOST_BYTES) as exchange:
            response = await exchange.ask(
                "POST", [("Content-Type", "application/json"), *headers], body.encode("utf-8")
            )
            # It is known now whether it was taken: what it says besides has a time of its own.
            limit.reschedule(None)
            text = await _text(exchange)
    except TimeoutError:
        return Sent(spent(), None, SLOW)
    except AddressRefused as error:
        return Sent(spent(), None, str(error))
    except MoreThanTaken:
        return Sent(spent(), None, "The receiver's answer begins with more than is read.")
    status = response.status_code
    return Sent(spent(), status, _fault(status), text, _retry_after(response))


async def _text(exchange: Exchange) -> str | None:
    """The beginning of an answer's body, as far as it comes in time and is text."""
    held = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for data in exchange.body():
                held += data
                if len(held) > BODY_BYTES:
                    break
    except (TimeoutError, AddressRefused, MoreThanTaken, OSError, h11.RemoteProtocolError):
        # Whatever it is worth, the status has been said.
        pass
    text = bytes(held[:BODY_BYTES]).decode("utf-8", "replace")
    return UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text)[:KEPT_CHARACTERS] or None


def _fault(status: int) -> str | None:
    if 200 <= status < 300:
        return None
    if 300 <= status < 400:
        return f"The receiver answered {status}, which leads elsewhere: redirects aren't followed."
    return f"The receiver answered {status}."


def _retry_after(response: h11.Response) -> float | None:
    """The seconds that an answer asks to wait for, by number or date."""
    for name, value in response.headers:
        if name == b"retry-after":
            text = value.decode("latin-1").strip()
            if re.fullmatch(r"[0-9]{1,9}", text):
                return float(text)
            try:
                moment = parsedate_to_datetime(text)
            except ValueError:
                return None
            aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
            return max(0.0, (aware - datetime.now(UTC)).total_seconds())
    return None
