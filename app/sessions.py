"""Who is signed in: a cookie that names a key and is signed, so that nothing is stored for it.

It holds no secret of the key. It ends after half a day, with the key, or when its owner signs out; whoever revokes
the key ends every sign-in with it.
"""

import base64
import hashlib
import hmac
import re
import secrets
from datetime import UTC, datetime, timedelta

from starlette.requests import Request
from starlette.responses import Response

from das import durable
from jobs.credentials import ID
from jobs.settings import Settings

LONGEST = timedelta(hours=12)
SECRET_FILE = "session.key"
SECRET_BYTES = 32
COOKIE = re.compile(rf"({ID})\.([0-9]{{1,12}})\.([A-Za-z0-9_-]{{43}})")


class Sessions:
    """Makes and reads the cookie."""

    def __init__(self, settings: Settings) -> None:
        self._secret = _secret(settings)
        self._public_https = (settings.public_url or "").startswith("https://")

    def key_of(self, request: Request) -> str | None:
        """The id of the key that a request's browser signed in with; None if it didn't, or that is over."""
        found = COOKIE.fullmatch(request.cookies.get(self._name(request), ""))
        if found is None:
            return None
        key_id, ends, signature = found.groups()
        if not hmac.compare_digest(signature, self._sign(key_id, ends)):
            return None
        return key_id if int(ends) > datetime.now(UTC).timestamp() else None

    def sign_in(self, request: Request, response: Response, key_id: str, ends: datetime) -> None:
        """Let the browser that this response goes to be signed in until `ends`."""
        moment = str(int(ends.timestamp()))
        value = f"{key_id}.{moment}.{self._sign(key_id, moment)}"
        response.set_cookie(
            self._name(request),
            value,
            # Not beyond it, whatever the browser's clock says.
            max_age=max(0, int((ends - datetime.now(UTC)).total_seconds())),
            path="/",
            secure=self.secure(request),
            httponly=True,
            samesite="strict",
        )

    def sign_out(self, request: Request, response: Response) -> None:
        """Let that browser forget it."""
        response.delete_cookie(
            self._name(request), path="/", secure=self.secure(request), httponly=True, samesite="strict"
        )

    @staticmethod
    def ends(key_ends: datetime | None) -> datetime:
        """When somebody is signed out who signs in now with a key of this end: in half a day, or with the key."""
        ends = datetime.now(UTC) + LONGEST
        return ends if key_ends is None else min(ends, key_ends)

    def _sign(self, key_id: str, ends: str) -> str:
        digest = hmac.digest(self._secret, f"session.{key_id}.{ends}".encode(), hashlib.sha256)
        return base64.urlsafe_b64encode(digest).decode().rstrip("=")

    def secure(self, request: Request) -> bool:
        """Whether cookies for this request's browser may go over TLS only."""
        return self._public_https or request.url.scheme == "https"

    def _name(self, request: Request) -> str:
        # With this beginning a browser takes it from the host itself alone, over TLS.
        return "__Host-das" if self.secure(request) else "das"


def _secret(settings: Settings) -> bytes:
    """What cookies are signed with: the setting's, or random bytes in the data directory, made at the first start."""
    if settings.session_secret is not None:
        return hashlib.sha256(settings.session_secret.get_secret_value().encode()).digest()
    path = settings.prepare_data_dir() / SECRET_FILE
    with durable.lock(path.with_suffix(".lock")):
        if not path.exists():
            durable.write_bytes(path, secrets.token_bytes(SECRET_BYTES), mode=0o600)
        return path.read_bytes()
