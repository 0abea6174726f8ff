"""Reading the key or the sign-in of a request: the one place where a secret is looked at.

A key comes in `Authorization: Bearer das_…` and nowhere else. A browser that signed in sends a cookie, which counts
only where the request comes from the service's own page.
"""

import asyncio
import logging
import re
from urllib.parse import unquote_plus

from cachetools import TTLCache
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from app.callers import CHALLENGE, LOCAL, Caller, key_required
from app.footers import seen_with
from app.hosts import SAFE_METHODS
from app.limiting import Limiter
from app.middleware import request_id_of
from app.peers import address_of
from app.problems import Problem
from app.sessions import Sessions
from das.names import folded
from jobs.credentials import ID, Kind, Scope, Token
from jobs.errors import StorageError
from jobs.keys import LAST_USED_EVERY, ApiKey, Keys
from jobs.models import utc_now
from jobs.opt_outs import WITHOUT_KEY
from jobs.settings import Settings

logger = logging.getLogger(__name__)

# A key that was looked up is believed for so long: within that a revoked one ends in every process of the API.
BELIEVED_S = 5.0
KEYS_KEPT = 10_000
# Whatever a key is called in an address, it is told by its form.
KEY_IN_ADDRESS = re.compile(rf"dasl?_{ID}_")
OPT_OUT_TOKEN = "opt-out-token"
IN_ADDRESS = (
    "A key may not stand in an address: those are kept in logs and histories. Send it as Authorization: Bearer,"
    " and revoke this one."
)
REFUSED = "This key isn't known, or it was revoked or has expired."
NEEDED = "This service answers with a key only: send it as Authorization: Bearer das_…"


class Access:
    """Who sent which request."""

    def __init__(self, settings: Settings, keys: Keys, sessions: Sessions, limiter: Limiter) -> None:
        self._required = settings.keys_required
        self._open_to_opt_outs = settings.opt_outs_open
        self._keys = keys
        self._sessions = sessions
        self._limiter = limiter
        self._believed: TTLCache[str, ApiKey] = TTLCache(KEYS_KEPT, BELIEVED_S)
        self._looking_up: dict[str, asyncio.Task[ApiKey | None]] = {}
        self._notes: set[asyncio.Task[None]] = set()

    async def caller(self, request: Request) -> Caller:
        """The caller of a request, who is also named in its line of the log.

        Raises `Problem`: key-in-address, key-required, key-refused, cross-site, or rate-limited.
        """
        refuse_keys_in_addresses(request)
        try:
            caller = await self._caller(request)
        except Problem:
            # Whoever tries keys is held to what an address may do.
            await self._limiter.request(request, None)
            raise
        request.state.caller = caller.key or caller.owner
        await self._limiter.request(request, caller)
        return caller

    async def visitor(self, request: Request, by_token: bool, anybody: bool = False) -> Caller:
        """The caller of a request about opt-outs, who may have no key where the operator allows it.

        Args:
            by_token: who sends an opt-out's token needs no key either.
            anybody: nobody needs one.
        """
        # The cookie of a session or a key that has ended shows nothing.
        session = await self._sessions.of(request)
        signed_in = session is not None and await self.by_id(session.key_id) is not None
        bears = "authorization" in request.headers or signed_in
        open_ = anybody or self._open_to_opt_outs or (by_token and OPT_OUT_TOKEN in request.headers)
        if bears or not self._required or not open_:
            return await self.caller(request)
        refuse_keys_in_addresses(request)
        request.state.caller = WITHOUT_KEY
        await self._limiter.request(request, None)
        return Caller(WITHOUT_KEY, address_of(request), request_id_of(request), scopes=frozenset())

    async def _caller(self, request: Request) -> Caller:
        key = await self._shown(request)
        if key is not None:
            return _caller(key, request)
        if self._required:
            raise key_required(NEEDED)
        return Caller(LOCAL.owner, address_of(request), request_id_of(request))

    async def by_token(self, text: str) -> ApiKey | None:
        """The active key or link that a text is."""
        token = Token.read(text)
        if token is None:
            return None
        key = await self.by_id(token.id)
        return key if key is not None and token.matches(key.kind, key.digest) else None

    async def by_id(self, key_id: str) -> ApiKey | None:
        """The active key or link of an id, as it was a few seconds ago at most."""
        key = self._believed.get(key_id)
        if key is None:
            # One look for all who come meanwhile: a hundred requests of one key would otherwise take every thread.
            looking = self._looking_up.get(key_id)
            if looking is None:
                looking = self._looking_up[key_id] = asyncio.create_task(self._look_up(key_id))
            # A client that goes doesn't end the look of the others.
            key = await asyncio.shield(looking)
        return key if key is not None and key.state(utc_now()) == "active" else None

    async def _look_up(self, key_id: str) -> ApiKey | None:
        looking = asyncio.current_task()
        try:
            key = await run_in_threadpool(self._keys.find, key_id)
        finally:
            current = self._looking_up.get(key_id) is looking
            if current:
                del self._looking_up[key_id]
        # Nothing is kept of what was never given out, which would be as much as anybody likes to make up, nor of what
        # was changed since the look began.
        if current and key is not None:
            self._believed[key_id] = key
        return key

    def forget(self, key_id: str) -> None:
        """Look a key up anew the next time, because it was changed."""
        self._believed.pop(key_id, None)
        self._looking_up.pop(key_id, None)

    async def _shown(self, request: Request) -> ApiKey | None:
        """The active key that a request shows; None if it shows none."""
        bearer = _bearer(request)
        if bearer is None:
            key = await self._signed_in(request)
        else:
            key = await self.by_token(bearer)
            if key is None or key.kind != Kind.KEY:
                raise _refused()
        if key is not None:
            self._note_use(key)
        seen_with(request, key)
        return key

    async def _signed_in(self, request: Request) -> ApiKey | None:
        session = await self._sessions.of(request)
        key = None if session is None else await self.by_id(session.key_id)
        if key is not None and request.method not in SAFE_METHODS and not _shows_where_it_is_from(request):
            raise Problem(
                "cross-site",
                "Who is signed in asks from this service's own page; a program sends its key as Authorization.",
            )
        request.state.signed_in = None if key is None else key.name
        request.state.operates = key is not None and Scope.ADMIN in key.scopes
        return key

    def _note_use(self, key: ApiKey) -> None:
        now = utc_now()
        if key.last_used_at is not None and now - key.last_used_at < LAST_USED_EVERY:
            return
        key.last_used_at = now
        task = asyncio.create_task(run_in_threadpool(self._write_use, key.id))
        self._notes.add(task)
        task.add_done_callback(self._notes.discard)

    def _write_use(self, key_id: str) -> None:
        try:
            self._keys.used(key_id)
        except StorageError as error:
            logger.warning("it wasn't noted that a key was used: %s", error)


def refuse_keys_in_addresses(request: Request) -> None:
    """Raises `Problem` key-in-address where the query holds a key."""
    query = request.url.query
    if query and (KEY_IN_ADDRESS.search(query) or KEY_IN_ADDRESS.search(unquote_plus(query))):
        raise Problem("key-in-address", IN_ADDRESS)


def _bearer(request: Request) -> str | None:
    """What a request shows as its bearer token; None without. Another scheme may be a proxy's and isn't read."""
    given = request.headers.getlist("authorization")
    if len(given) > 1:
        raise _refused("The request has more than one Authorization header.")
    scheme, _, credentials = given[0].partition(" ") if given else ("", "", "")
    return credentials.strip() if scheme.lower() == "bearer" else None


def _refused(why: str = REFUSED) -> Problem:
    return Problem("key-refused", why, {"WWW-Authenticate": f'{CHALLENGE}, error="invalid_token"'})


def _shows_where_it_is_from(request: Request) -> bool:
    # What they say was compared by `app.hosts`; every browser sends one of them with every form.
    return "origin" in request.headers or "sec-fetch-site" in request.headers


def _caller(key: ApiKey, request: Request) -> Caller:
    return Caller(
        owner=key.owner,
        address=address_of(request),
        request_id=request_id_of(request),
        scopes=frozenset(Scope(scope) for scope in key.scopes),
        indexes=None if key.indexes is None else frozenset(key.indexes),
        key=key.prefix,
        name=key.name,
        daily_quota=key.daily_quota,
        daily_works=key.daily_works,
        rights_holders=frozenset(map(folded, key.rights_holders or ())),
    )
