"""Who asks. Every use case takes a `Caller`, and sees and changes that caller's questions only."""

import ipaddress
from dataclasses import dataclass, field, replace
from typing import Annotated

from fastapi import Depends
from starlette.requests import Request

from jobs.models import LOCAL_OWNER


@dataclass(frozen=True)
class Caller:
    """Whoever sent a request. `owner` is the name that their questions are stored under.

    `address` is where they ask from: what is scarce is shared fairly between addresses.
    """

    owner: str
    address: str = field(default="", compare=False)


# The service has no keys yet: everybody who can reach it is one and the same.
LOCAL = Caller(LOCAL_OWNER)


def address_of(request: Request) -> str:
    """The address that a request came from. One IPv6 network of 64 bits is one place: who has one, has all of it."""
    host = request.client.host if request.client else ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    return host if address.version == 4 else str(ipaddress.ip_network((address, 64), strict=False))


async def caller_of(request: Request) -> Caller:
    """The caller of a request: the one place that will read a key."""
    # Async, since FastAPI would give anything else a turn of a thread, in every request.
    request.state.caller = LOCAL.owner
    return replace(LOCAL, address=address_of(request))


Asking = Annotated[Caller, Depends(caller_of)]
