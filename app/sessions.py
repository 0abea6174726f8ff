"""Who is signed in: a cookie that names a key and a session of it, and is signed.

It holds no secret of the key. The session ends after half a day, with the key, or when somebody signs out, and so
does every copy of the cookie: the database knows which sessions there are, and is asked for one every few seconds.
For sessions that somebody made up it isn't asked, because of the signature.
"""

import base64
import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cachetools import TTLCache
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from das import durable
from jobs.audit import Actor
from jobs.credentials import ID
from jobs.keys import ApiKey
from jobs.sessions import SessionRows, digest_of
from jobs.settings import Settings

LONGEST = timedelta(hours=12)
SECRET_FILE = "session.key"
SECRET_BYTES = 32
SESSION_BYTES = 16
COOKIE = re.compile(rf"({ID})\.([0-9]{{1,12}})\.([A-Za-z0-9_-]{{22}})\.([A-Za-z0-9_-]{{43}})")
# As long as a key: within that a session ends in every process of the API, and at once in the one that ends it.
BELIEVED_S = 5.0
SESSIONS_KEPT = 10_000


@dataclass(frozen=True)
class Shown:
    """What a request's cookie says, which bears our signature: a key's id, and the digest of one of its sessions."""

    key_id: str
    digest: str


class Sessions:
    """Makes and reads the cookie, and knows which sessions there are."""

    def __init__(self, settings: Settings, rows: SessionRows) -> None:
        self._secret = _secret(settings)
        self._public_https = (settings.public_url or "").startswith("https://")
        self._rows = rows
        self._believed: TTLCache[str, str] = TTLCache(SESSIONS_KEPT, BELIEVED_S)
        self._endings = 0

    def shown(self, request: Request) -> Shown | None:
        """What a request's cookie says; None without one, or where its time is over. The session may have ended."""
        found = COOKIE.fullmatch(request.cookies.get(self._name(request), ""))
        if found is None:
            return None
        key_id, ends, session_id, signature = found.groups()
        if not hmac.compare_digest(signature, self._sign(key_id, ends, session_id)):
            return None
        return Shown(key_id, digest_of(session_id)) if int(ends) > datetime.now(UTC).timestamp() else None

    async def of(self, request: Request) -> Shown | None:
        """The session that a request's browser is signed in by; None if it isn't, or that is over."""
        shown = self.shown(request)
        if shown is None or shown.digest in self._believed:
            return shown
        before = self._endings
        if not await run_in_threadpool(self._rows.there, shown.digest):
            return None
        if before == self._endings:
            self._believed[shown.digest] = shown.key_id
        return shown

    async def sign_in(self, request: Request, response: Response, key: ApiKey, by: Actor) -> None:
        """Let the browser that this response goes to be signed in with a key, and no longer as it was before."""
        session_id = secrets.token_urlsafe(SESSION_BYTES)
        ends = self.ends(key.expires_at)
        before = self.shown(request)
        await run_in_threadpool(
            self._rows.begin, session_id, key.id, ends, by, None if before is None else before.digest
        )
        self._forget(None if before is None else before.key_id)
        moment = str(int(ends.timestamp()))
        response.set_cookie(
            self._name(request),
            f"{key.id}.{moment}.{session_id}.{self._sign(key.id, moment, session_id)}",
            # Not beyond it, whatever the browser's clock says.
            max_age=max(0, int((ends - datetime.now(UTC)).total_seconds())),
            path="/",
            secure=self.secure(request),
            httponly=True,
            samesite="strict",
        )

    async def sign_out(self, request: Request, response: Response, key: str, by: Actor) -> None:
        """End the session of a request's browser, whoever has a copy of its cookie; `key` is its key's prefix."""
        shown = self.shown(request)
        if shown is not None:
            await run_in_threadpool(self._rows.end, shown.digest, key, by)
            self._forget(shown.key_id)
        self.forget_cookie(request, response)

    async def end_all(self, key: ApiKey, by: Actor) -> int:
        """End every session of a key; returns how many there were."""
        ended = await run_in_threadpool(self._rows.end_all, key.id, key.prefix, by)
        self._forget(key.id)
        return ended

    def _forget(self, key_id: str | None) -> None:
        """Look anew for what is believed of a key's sessions."""
        self._endings += 1
        for digest in list(self._believed):
            if self._believed.get(digest) == key_id:
                self._believed.pop(digest, None)

    def forget_cookie(self, request: Request, response: Response) -> None:
        """Let that browser forget its cookie."""
        response.delete_cookie(
            self._name(request), path="/", secure=self.secure(request), httponly=True, samesite="strict"
        )

    @staticmethod
    def ends(key_ends: datetime | None) -> datetime:
        """When somebody is signed out who signs in now with a key of this end: in half a day, or with the key."""
        ends = datetime.now(UTC) + LONGEST
        return ends if key_ends is None else min(ends, key_ends)

    def _sign(self, key_id: str, ends: str, session_id: str) -> str:
        digest = hmac.digest(self._secret, f"session.{key_id}.{ends}.{session_id}".encode(), hashlib.sha256)
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
