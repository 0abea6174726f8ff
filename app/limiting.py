"""How often a key, or an address without one, may ask: requests in a while, questions in a day.

Counted with `limits`, in Redis where there is one and in memory otherwise, in windows by the clock: the day's quota
is whole again at midnight UTC, and one round trip counts a request. The price of that is that somebody may spend two
windows' worth around the turn of one. Where counting fails nobody is held up: the request goes through, and that is
counted and told in the log.
"""

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NoReturn

from limits.aio.storage import MemoryStorage, RedisStorage, Storage
from redis import RedisError
from starlette.requests import Request

from app.callers import Caller
from app.key_schemas import Allowance, Quota
from app.peers import address_of
from app.problems import Problem
from das.plurals import counted
from jobs.broker import broker_url
from jobs.errors import BrokerError
from jobs.masking import masked
from jobs.settings import RATE, SECONDS_OF, Settings, is_loopback

logger = logging.getLogger(__name__)

# Counting may not hold a request up: after so long it goes through uncounted.
TIMEOUT_S = 0.25
# After a failure nothing is tried for so long, so that it costs one request its timeout and not all of them.
PAUSE_S = 1.0
TOLD_EVERY_S = 60.0
DAY_S = 86_400


@dataclass(frozen=True)
class Limit:
    """`most` in a window of `seconds`. `name` is what the headers call it."""

    name: str
    most: int
    seconds: int

    @classmethod
    def of(cls, name: str, text: str | None) -> "Limit | None":
        """The limit that a setting such as `100/minute` means; None for none."""
        found = re.fullmatch(RATE, text or "")
        return None if found is None else cls(name, int(found[1]), SECONDS_OF[found[2]])

    @property
    def policy(self) -> str:
        """Its entry in `RateLimit-Policy`."""
        return f'"{self.name}";q={self.most};w={self.seconds}'

    def standing(self, used: int, now: float) -> str:
        """Its entry in `RateLimit`."""
        return f'"{self.name}";r={max(0, self.most - used)};t={self.left(now)}'

    def left(self, now: float) -> int:
        """Seconds until the next window."""
        return max(1, self.seconds - int(now) % self.seconds)


@dataclass
class _Batch:
    """Those who come while one like them is counted, and how many there are when all of them have been."""

    size: int = 0
    counting: "asyncio.Task[int | None]" = field(init=False)


class Together:
    """Counts those together that come while one like them is being counted.

    A round trip for each would take a connection for each: where a hundred requests of one key come at once, opening
    those takes the event loop longer than counting may take, and all of them are cut off and opened again.
    """

    def __init__(self, add: Callable[[str, int, int], Awaitable[int | None]]) -> None:
        """`add(key, seconds, count)` is the round trip, and how many there are then; None where it isn't known."""
        self._add = add
        self._coming: dict[str, _Batch] = {}
        self._counted: dict[str, asyncio.Task[int | None]] = {}

    async def count(self, key: str, seconds: int) -> int | None:
        """Count one; how many there are with it, each of those that came together being one more."""
        batch = self._coming.get(key)
        if batch is None:
            batch = self._coming[key] = _Batch()
            batch.counting = asyncio.create_task(self._count(key, seconds, batch))
        batch.size += 1
        place = batch.size
        # Who goes away is counted all the same, and doesn't end it for the others.
        used = await asyncio.shield(batch.counting)
        return None if used is None else used - batch.size + place

    async def _count(self, key: str, seconds: int, batch: _Batch) -> int | None:
        before = self._counted.get(key)
        if before is not None:
            await asyncio.wait({before})
        # From here on nobody joins.
        del self._coming[key]
        self._counted[key] = batch.counting
        try:
            return await self._add(key, seconds, batch.size)
        finally:
            if self._counted[key] is batch.counting:
                del self._counted[key]


class Limiter:
    """Counts requests and questions, and refuses those that are too many."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._of_key = Limit.of("requests", settings.rate_limit)
        self._of_address = Limit.of("requests", settings.address_rate_limit)
        self._opt_outs = Limit.of("opt-outs", settings.opt_out_rate_limit)
        self._exempts_itself = not settings.keys_required
        self._storage: Storage | None = None
        self._paused_until = 0.0
        self._told_at = -TOLD_EVERY_S
        self._together = Together(self._add)
        self.let_through = 0
        """Requests and questions that weren't counted because counting failed."""

    async def request(self, request: Request, caller: Caller | None) -> None:
        """Count a request of a caller, or of whoever shows no key that works; raises `Problem` rate-limited."""
        limit, whose = self._limit_of(caller, address_of(request))
        if limit is None:
            return
        used = await self._count(limit, whose)
        if used is None:
            return
        headers = request.state.headers = {
            "RateLimit-Policy": limit.policy, "RateLimit": limit.standing(used, time.time()),
        }  # fmt: skip
        if used > limit.most:
            raise _refused(
                "rate-limited", f"More than {limit.most} requests in {_span(limit)}.", limit, headers
            )

    async def opt_out(self, caller: Caller) -> None:
        """Count an opt-out of who comes without a key; raises `Problem` rate-limited."""
        limit = self._opt_outs
        exempt = self._exempts_itself and is_loopback(caller.address)
        if limit is None or caller.key is not None or exempt:
            return
        used = await self._count(limit, f"address/{caller.address}")
        if used is not None and used > limit.most:
            headers = {"RateLimit-Policy": limit.policy, "RateLimit": limit.standing(used, time.time())}
            raise _refused(
                "rate-limited", f"More than {limit.most} opt-outs in {_span(limit)}.", limit, headers
            )

    async def question(self, caller: Caller) -> None:
        """Count a question of a caller; raises `Problem` quota-exhausted."""
        limit = self._quota_of(caller)
        if limit is not None:
            self._refuse_beyond(limit, await self._count(limit, _whose(caller)))

    async def questions(self, caller: Caller, count: int) -> None:
        """Count so many questions at once, or none; raises `Problem` quota-exhausted where they aren't all left."""
        limit = self._quota_of(caller)
        if limit is None:
            return
        used = await self._add(_key(limit, _whose(caller)), limit.seconds, count)
        if used is not None and used > limit.most:
            await self.give_back(caller, count)
            left = max(0, limit.most - (used - count))
            self._refuse(
                limit,
                used - count,
                f"It has {counted(count, 'picture')}; of this day's {limit.most} there are {left} left.",
            )

    async def give_back(self, caller: Caller, count: int) -> None:
        """Count so many questions less: nothing came of them."""
        limit = self._quota_of(caller)
        if limit is not None:
            await self._add(_key(limit, _whose(caller)), limit.seconds, -count)

    async def refuse_exhausted(self, caller: Caller) -> None:
        """Answer 429 before a body is read that could only be thrown away; nothing is counted."""
        limit = self._quota_of(caller)
        if limit is not None:
            used = await self._read(limit, _whose(caller))
            self._refuse_beyond(limit, None if used is None else used + 1)

    async def told(self, caller: Caller, works: Allowance) -> Quota:
        """What a caller may still do; `works` is how much of the budget of them is used up."""
        requests, whose = self._limit_of(caller, caller.address)
        questions = self._quota_of(caller)
        return Quota(
            requests=await self._allowance(requests or Limit("requests", 0, 60), whose, requests is None),
            questions=await self._allowance(
                questions or Limit("questions", 0, DAY_S), _whose(caller), questions is None
            ),
            works=works,
            counting=time.monotonic() >= self._paused_until,
        )

    def _limit_of(self, caller: Caller | None, address: str) -> tuple[Limit | None, str]:
        if caller is not None and caller.key is not None:
            return self._of_key, _whose(caller)
        if self._exempts_itself and is_loopback(address):
            return None, ""
        return self._of_address, f"address/{address}"

    def _quota_of(self, caller: Caller) -> Limit | None:
        most = caller.daily_quota or self._settings.quota
        return None if most is None or caller.key is None else Limit("questions", most, DAY_S)

    def _refuse_beyond(self, limit: Limit, used: int | None) -> None:
        if used is not None and used > limit.most:
            self._refuse(limit, used, f"The {limit.most} questions of this day are used up.")

    def _refuse(self, limit: Limit, used: int, why: str) -> NoReturn:
        headers = {"RateLimit-Policy": limit.policy, "RateLimit": limit.standing(used, time.time())}
        raise _refused("quota-exhausted", why, limit, headers)

    async def _allowance(self, limit: Limit, whose: str, unlimited: bool) -> Allowance:
        used = 0 if unlimited else await self._read(limit, whose) or 0
        return Allowance(
            limit=None if unlimited else limit.most,
            used=min(used, limit.most),
            remaining=None if unlimited else max(0, limit.most - used),
            renewed_at=datetime.fromtimestamp(int(time.time()) + limit.left(time.time()), UTC),
        )

    async def _count(self, limit: Limit, whose: str) -> int | None:
        return await self._together.count(_key(limit, whose), limit.seconds)

    async def _add(self, key: str, seconds: int, count: int) -> int | None:
        return await self._ask(lambda storage: storage.incr(key, seconds, count), max(1, count))

    async def _read(self, limit: Limit, whose: str) -> int | None:
        return await self._ask(lambda storage: storage.get(_key(limit, whose)))

    async def _ask(self, what: Callable[[Storage], Awaitable[int]], for_many: int = 1) -> int | None:
        """A number from the storage; None where it can't be had in time, for so many who go through then."""
        if time.monotonic() < self._paused_until:
            self.let_through += for_many
            return None
        try:
            if self._storage is None:
                self._storage = self._open()
            async with asyncio.timeout(TIMEOUT_S):
                return int(await what(self._storage))
        except (RedisError, OSError, TimeoutError) as error:
            self._fail_open(error, for_many)
            return None

    def _open(self) -> Storage:
        try:
            url = broker_url(self._settings)
        except BrokerError:
            return MemoryStorage()
        # What isn't `redis` at its beginning, limits takes for another kind of server.
        uri = f"redis+{url}" if url.startswith("unix:") else url
        return RedisStorage(
            uri,
            implementation="redispy",
            key_prefix="das:limits",
            socket_timeout=TIMEOUT_S,
            socket_connect_timeout=TIMEOUT_S,
        )

    def _fail_open(self, error: Exception, for_many: int) -> None:
        self.let_through += for_many
        self._paused_until = time.monotonic() + PAUSE_S
        if time.monotonic() - self._told_at >= TOLD_EVERY_S:
            self._told_at = time.monotonic()
            logger.warning(
                "requests can't be counted and go through, %d so far: %s",
                self.let_through,
                masked(str(error) or type(error).__name__),
                extra={"let_through": self.let_through},
            )


def _key(limit: Limit, whose: str) -> str:
    return f"{limit.name}/{whose}/{limit.seconds}/{int(time.time()) // limit.seconds}"


def _whose(caller: Caller) -> str:
    # A key and the one that replaces it share what they may.
    return f"owner/{caller.owner}"


def _span(limit: Limit) -> str:
    unit = next((unit for unit, seconds in SECONDS_OF.items() if seconds == limit.seconds), None)
    return f"{limit.seconds} seconds" if unit is None else f"a{'n' * (unit == 'hour')} {unit}"


def _refused(code: str, why: str, limit: Limit, headers: dict[str, str]) -> Problem:
    wait = limit.left(time.time())
    return Problem(code, f"{why} Try again in {wait} s.", {**headers, "Retry-After": str(wait)})
