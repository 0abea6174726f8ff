"""What surrounds every request: its id, its line in the log, and the security headers.

Plain ASGI, since Starlette's BaseHTTPMiddleware would run each request in an extra task.
"""

import contextlib
import logging
import re
import secrets
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.metrics.meters import Meters, known_method
from jobs.tracing import Span

# One line for each request. Its text has every field; a JSON line has each by its name as well.
requests = logging.getLogger("app.requests")
# The status of a request whose client had gone before it was answered.
NEVER_ANSWERED = 499
NO_ROUTE = "(none)"
UNTRACED = frozenset({"/healthz", "/readyz", "/metrics"})
NO_CALLER = "-"

# What a caller may call a request: it lands in logs and headers, so it can't hold anything but these.
ACCEPTED_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "img-src 'self' blob:",  # a picture that was chosen is shown before it is sent
        "style-src 'self'",
        "script-src 'self'",
        "font-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
SECURITY_HEADERS = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "x-content-type-options": "nosniff",
    # With `no-referrer` browsers would send `Origin: null` from the page's own forms.
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}
# Below this an address is as good as a key: no page it leads to is told of it, nobody keeps it or lists it.
OPEN_TO_TOKENS = "/s/"
UNTOLD = {
    "referrer-policy": "no-referrer",
    "x-robots-tag": "noindex, nofollow",
    "cache-control": "no-store",
}


def request_id_of(request: Request) -> str:
    """The id of this request: the caller's own if it was valid, else one made here."""
    return str(request.scope["state"]["request_id"])


class RequestFrame:
    """Gives each request its id and its line in the log, and each response the id and the security headers.

    An exception that nothing handled is answered here (`on_error`), inside the frame, so that the 500 has the
    same headers; it is raised on for the server's log.
    """

    def __init__(self, app: ASGIApp, on_error: Callable[[Request], Response], meters: Meters) -> None:
        self.app = app
        self.on_error = on_error
        self.meters = meters

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        asked = Headers(scope=scope).get("x-request-id", "")
        request_id = asked if ACCEPTED_REQUEST_ID.fullmatch(asked) else f"req_{secrets.token_hex(8)}"
        scope.setdefault("state", {})["request_id"] = request_id

        began = time.perf_counter()
        status, sent, answered = NEVER_ANSWERED, 0, 0.0

        async def framed(message: Message) -> None:
            nonlocal status, sent, answered
            if message["type"] == "http.response.start":
                status = message["status"]
                answered = time.perf_counter() - began
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = request_id
                for name, value in scope["state"].get("headers", {}).items():
                    headers.setdefault(name, value)
                if scope["path"].startswith(OPEN_TO_TOKENS):
                    headers.update(UNTOLD)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
            else:
                sent += len(message.get("body", b""))
            await send(message)

        try:
            with self._traced(scope) as span:
                try:
                    await self.app(scope, receive, framed)
                except Exception:
                    if status == NEVER_ANSWERED:
                        await self.on_error(Request(scope))(scope, receive, framed)
                    raise
                finally:
                    method, route = known_method(scope["method"]), _route(scope)
                    span.tell(
                        f"{method} {route}",
                        http__request__method=method,
                        http__route=route,
                        http__response__status_code=status,
                    )
        finally:
            took = time.perf_counter() - began
            # Streams of events stay open for long: it counts when they began.
            self.meters.request(_route(scope), scope["method"], status, answered or took)
            _log(scope, status, took * 1000, sent)

    def _traced(self, scope: Scope) -> AbstractContextManager[Span]:
        """The request's span, below the caller's own if it sent a `traceparent`. Health checks have none."""
        if scope["path"] in UNTRACED:
            return contextlib.nullcontext(Span())
        return self.meters.tracing.span(
            known_method(scope["method"]), parent=Headers(scope=scope).get("traceparent"), server=True
        )


def _route(scope: Scope) -> str:
    """The route's template, so that no id of a caller gets into a log or a label."""
    return str(getattr(scope.get("route"), "path", NO_ROUTE))


def _log(scope: Scope, status: int, milliseconds: float, sent: int) -> None:
    """One line for a request: by its route's template, so that no id, prompt or tag of a caller gets into it."""
    state = scope["state"]
    told = {
        "request_id": state["request_id"],
        "method": scope["method"],
        "route": _route(scope),
        "status": status,
        "milliseconds": round(milliseconds, 1),
        "bytes": sent,
        "caller": state.get("caller", NO_CALLER),
    }
    requests.info(
        "%(request_id)s %(method)s %(route)s %(status)d in %(milliseconds).1f ms, %(bytes)d bytes, %(caller)s",
        told,
        extra=told,
    )
