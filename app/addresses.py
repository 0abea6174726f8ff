"""Which addresses of others this service connects to: its callers choose them, and mustn't reach what it can.

An address is https on its default port, of a host on the public internet, unless the operator's DAS_FETCH_ALLOW
lists it. A host is resolved once, all that its name leads to is looked at, and the connection is made to what was
looked at: a name that changes its mind in between (DNS rebinding) changes nothing.
"""

import asyncio
import ipaddress
import re
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from urllib.parse import quote, urljoin, urlsplit

from das.errors import DasError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
# The addresses that a host's name leads to, as text; raises OSError where there is none.
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]

MAX_URL_LENGTH = 2048
MAX_HOST_LENGTH = 253
DEFAULT_PORTS = {"https": 443, "http": 80}
# What may stand in an address as it is; all else is written as its UTF-8 in percent signs.
PLAIN = "!#$%&'()*+,/:;=?@[]~-._"
# How WHATWG's parser knows an IPv4 address, in whichever of its many spellings.
NUMERIC = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)", re.IGNORECASE)

# Of IPv6 only this is handed out to hosts. It leaves out every form that holds an IPv4 address (mapped, NAT64).
UNICAST = ipaddress.IPv6Network("2000::/3")
# Parts of the public space that aren't hosts': protocols, documentation, 6to4, benchmarks, anycast relays.
SPECIAL: tuple[Network, ...] = tuple(
    map(
        ipaddress.ip_network,
        ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20", "192.0.0.0/24", "192.88.99.0/24"),
    )
)


class AddressRefused(DasError):
    """An address that isn't connected to. `code` is a stable slug; the message is for whoever sent the address, and
    tells nothing of what its host is from here."""

    def __init__(self, code: str, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code


@dataclass(frozen=True)
class Target:
    """The parts of an address. `path` has the query; `host` is in lower case, an IPv6 address without brackets."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        """What a request's Host header says."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.authority}{self.path}"

    def joined(self, location: str) -> "Target":
        """Where a redirect leads from here. Raises `AddressRefused`."""
        try:
            return parse(urljoin(self.url, location[: MAX_URL_LENGTH + 1]))
        except ValueError as error:
            raise _unusable() from error


@dataclass(frozen=True)
class Allowed:
    """What the operator trusts beside the public internet: hosts by name, networks."""

    hosts: frozenset[str] = frozenset()
    networks: tuple[Network, ...] = ()

    @classmethod
    def of(cls, entries: Sequence[str]) -> "Allowed":
        """From the entries of DAS_FETCH_ALLOW, which its setting has seen to be one or the other."""
        hosts, networks = set(), []
        for entry in entries:
            bare = entry.strip("[]").lower()
            try:
                networks.append(ipaddress.ip_network(bare))
            except ValueError:
                hosts.add(bare.removesuffix("."))
        return cls(frozenset(hosts), tuple(networks))

    def trusts(self, host: str, address: Address) -> bool:
        """Whether a connection to this address, for this host, was allowed by the operator."""
        return host in self.hosts or any(
            address.version == network.version and address in network for network in self.networks
        )


def parse(url: str) -> Target:
    """The parts of an address that a caller sent.

    Raises `AddressRefused` for one that isn't http or https, holds a password, or can't be told apart by everybody
    in the same way.
    """
    if len(url) > MAX_URL_LENGTH:
        raise AddressRefused("address", f"The address has more than {MAX_URL_LENGTH} characters.")
    # `urlsplit` would take some of these away, and others read a backslash as a slash.
    if not url or re.search(r"[\x00-\x20\x7f-\xa0\\\ud800-\udfff]", url):
        raise _unusable()
    try:
        parts = urlsplit(url)
        port = parts.port
        host = (parts.hostname or "").encode("idna").decode("ascii").removesuffix(".")
    except ValueError as error:
        raise _unusable() from error
    if parts.scheme not in DEFAULT_PORTS:
        raise AddressRefused("scheme", "The address has to begin with https://.")
    if "@" in parts.netloc:
        raise AddressRefused("credentials", "The address holds a user's name or password: leave that out.")
    if not host or len(host) > MAX_HOST_LENGTH or port == 0:
        raise _unusable()
    if parts.netloc.startswith("["):
        address = _literal(host, ipaddress.IPv6Address)
    elif NUMERIC.fullmatch(host):
        address = _literal(host, ipaddress.IPv4Address)
    elif re.fullmatch(r"[a-z0-9._-]+", host):
        address = host
    else:
        raise _unusable()
    path = parts.path or "/"
    target = path if not parts.query else f"{path}?{parts.query}"
    return Target(parts.scheme, address, port or DEFAULT_PORTS[parts.scheme], quote(target, safe=PLAIN))


def is_public(address: Address) -> bool:
    """Whether an address is one of the public internet's hosts."""
    if address.version == 6 and address not in UNICAST:
        return False
    if any(address.version == network.version and address in network for network in SPECIAL):
        return False
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified)


async def resolve_by_system(host: str, port: int) -> list[str]:
    """What the system's resolver says of a name."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]


async def looked_up(target: Target, allowed: Allowed, resolve: Resolve = resolve_by_system) -> list[str]:
    """The addresses to connect to for a target, in their order, each of them allowed.

    Raises `AddressRefused`: a host that isn't known is told in the same words as one that isn't public, so that
    nobody can ask for the names of a network that they can't see.
    """
    unknown = AddressRefused(
        "not-public", "The host of the address isn't known, or isn't on the public internet."
    )
    try:
        literal = _address(target.host)
        found = [literal] if literal else [_address(text) for text in await resolve(target.host, target.port)]
    except (OSError, UnicodeError) as error:
        raise unknown from error
    addresses = [address for address in found if address is not None]
    if not addresses or len(addresses) < len(found):
        raise unknown
    if all(allowed.trusts(target.host, address) for address in addresses):
        return list(dict.fromkeys(map(str, addresses)))
    if target.scheme != "https":
        raise AddressRefused("scheme", "The address has to begin with https://.")
    if target.port != DEFAULT_PORTS["https"]:
        raise AddressRefused("port", "The address names a port other than 443: leave it out.")
    # One that isn't public is enough: whoever names both has something in mind.
    if not all(is_public(address) or allowed.trusts(target.host, address) for address in addresses):
        raise unknown
    return list(dict.fromkeys(map(str, addresses)))


def _literal(text: str, kind: type[ipaddress.IPv4Address] | type[ipaddress.IPv6Address]) -> str:
    if "%" in text:
        raise _unusable()
    try:
        return str(kind(text))
    except ValueError as error:
        raise _unusable() from error


def _address(text: str) -> Address | None:
    """The address that a text is; None for a name, and for one that is meant for one interface only."""
    try:
        return None if "%" in text else ipaddress.ip_address(text)
    except ValueError:
        return None


def _unusable() -> AddressRefused:
    return AddressRefused(
        "address", "That is no address that can be used: it has to look like https://host/path."
    )
