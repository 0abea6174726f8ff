"""What surrounds every request: its id, the security headers, the refusal of cross-site writes.

Plain ASGI, since Starlette's BaseHTTPMiddleware would run each request in an extra task.
"""

import logging
import re
import secrets
from collections.abc import Callable

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger(__name__)

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
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


def request_id_of(request: Request) -> str:
    """The id of this request: the caller's own if it was valid, else one made here."""
    return str(request.scope["state"]["request_id"])


class RequestFrame:
    """Gives each request its id and each response the id and the security headers.

    An exception that nothing handled is answered here (`on_error`), inside the frame, so that the 500 has the
    same headers; it is raised on for the server's log.
    """

    def __init__(self, app: ASGIApp, on_error: Callable[[Request], Response]) -> None:
        self.app = app
        self.on_error = on_error

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        asked = Headers(scope=scope).get("x-request-id", "")
        request_id = asked if ACCEPTED_REQUEST_ID.fullmatch(asked) else f"req_{secrets.token_hex(8)}"
        scope.setdefault("state", {})["request_id"] = request_id

        started = False

        async def framed(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = request_id
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            await self.app(scope, receive, framed)
        except Exception:
            logger.error("request %s (%s %s) failed", request_id, scope["method"], scope["path"])
            if not started:
                await self.on_error(Request(scope))(scope, receive, framed)
            raise


def is_cross_site_write(request: Request) -> bool:
    """Whether a browser says that another site's page makes this writing request.

    The service has no log-in, so any page that a visitor has open could otherwise post to it. Programs don't
    send the header.
    """
    return request.method not in SAFE_METHODS and request.headers.get("sec-fetch-site") == "cross-site"
