"""Where a request came from: what is scarce is shared fairly between addresses."""

import ipaddress

from starlette.requests import Request


def address_of(request: Request) -> str:
    """The address that a request came from. One IPv6 network of 64 bits is one place: who has one, has all of it."""
    host = request.client.host if request.client else ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    return (
        host
        if address.version == 4 or address.is_loopback
        else str(ipaddress.ip_network((address, 64), strict=False))
    )
