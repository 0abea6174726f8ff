"""Under which addresses the service answers, and whose pages may write to it.

A browser lets any page send requests to any address, and a page whose own name was made to point at this machine
(DNS rebinding) may read the answers too. Both tell themselves: the first by `Origin` and `Sec-Fetch-Site`, the
second by the name in `Host`. Programs send neither of the former, and every name that is asked for by `Host`.
"""

import ipaddress
import re
from collections.abc import Callable
from typing import NamedTuple

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from app.problems import Problem
from jobs.settings import HOST, Settings

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
# What asks for these, an orchestrator above all, knows the process by an address of its own; they tell no secret.
ANY_HOST_PATHS = frozenset({"/healthz", "/readyz"})
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
OWN_SITES = frozenset({"same-origin", "none"})
DEFAULT_PORTS = {"http": 80, "https": 443}

AUTHORITY = re.compile(rf"({HOST})(?::([0-9]{{1,5}}))?")
ORIGIN = re.compile(rf"(https?)://{AUTHORITY.pattern}", re.IGNORECASE)


class Authority(NamedTuple):
    """A host and, where one is named, a port. Names are in lower case, IPv6 addresses in their shortest form."""

    host: str
    port: int | None

    @classmethod
    def of(cls, text: str) -> "Authority | None":
        """The authority that a Host header holds; None if it isn't one."""
        found = AUTHORITY.fullmatch(text)
        return None if found is None else cls(canonical(found[1]), int(found[2]) if found[2] else None)


class Origin(NamedTuple):
    """Scheme, host and port: what a browser means by one origin."""

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, text: str) -> "Origin | None":
        """The origin that a text holds; None for `null` and for anything else that isn't one of http or https."""
        found = ORIGIN.fullmatch(text)
        if found is None:
            return None
        scheme = found[1].lower()
        return cls(scheme, canonical(found[2]), int(found[3]) if found[3] else DEFAULT_PORTS[scheme])


def canonical(host: str) -> str:
    """A host as it is compared: in lower case, without the root's dot, an IPv6 address bare and shortest."""
    bare = host.lower().removesuffix(".").removeprefix("[").removesuffix("]")
    try:
        return str(ipaddress.ip_address(bare))
    except ValueError:
        return bare


class OwnAddressesOnly:
    """Refuses requests for another host, and writes that another site's page sent.

    Plain ASGI and before the routes, so that nothing is left out: files, the API's description, addresses that
    don't exist.
    """

    def __init__(
        self, app: ASGIApp, settings: Settings, respond: Callable[[Problem, Request], Response]
    ) -> None:
        self.app = app
        self.respond = respond
        self.public = Origin.of(settings.public_url or "")
        named = [settings.host, *settings.allowed_host_names, *([self.public.host] if self.public else [])]
        self.hosts = frozenset(map(canonical, (*LOOPBACK_NAMES, *named)))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            problem = self.objection(scope)
            if problem is not None:
                request = Request(scope)
                await self.respond(problem, request)(scope, receive, send)
                return
        await self.app(scope, receive, send)

    def objection(self, scope: Scope) -> Problem | None:
        """Why a request isn't taken; None if it is."""
        headers = Headers(scope=scope)
        writes = scope["method"] not in SAFE_METHODS
        if scope["path"] in ANY_HOST_PATHS and not writes:
            return None
        given = headers.getlist("host")
        asked = Authority.of(given[0]) if len(given) == 1 else None
        if asked is None:
            return Problem("malformed-host", "The request has to name one host, as name or name:port.")
        if asked.host not in self.hosts:
            return Problem(
                "unknown-host",
                f"This service isn't known as {asked.host}. If it should be, its operator names that host in"
                " DAS_ALLOWED_HOSTS or DAS_PUBLIC_URL.",
            )
        if not writes:
            return None
        if not OWN_SITES.issuperset(headers.getlist("sec-fetch-site")):
            return _cross_site("Another site's page sent this request; ask from this service's own page.")
        own = self._own_origins(str(scope["scheme"]), asked)
        for origin in headers.getlist("origin"):
            if Origin.of(origin) not in own:
                return _cross_site(
                    "The page that sent this request isn't this service's own. Behind a proxy, DAS_PUBLIC_URL has"
                    " to be the address that people use."
                )
        return None

    def _own_origins(self, scheme: str, asked: Authority) -> set[Origin]:
        """What the service's own page is called by a browser that sent this request.

        Behind a proxy that is the public address, which the proxy may or may not pass on in `Host`. Under the
        public name itself nothing else counts: `http://name` isn't `https://name`.
        """
        own = {self.public} if self.public else set()
        if self.public is None or asked.host != self.public.host:
            own.add(Origin(scheme, asked.host, asked.port or DEFAULT_PORTS.get(scheme, 0)))
        return own


def _cross_site(why: str) -> Problem:
    return Problem("cross-site", why)
