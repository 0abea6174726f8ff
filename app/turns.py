"""Taking turns at something scarce, shared fairly between addresses."""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from app.problems import Problem

# What an address has used is forgotten by half in this time.
HALF_LIFE_S = 30.0
# An address that used more than this lately leaves one place to those who didn't.
HEAVY_S = 2.0
# Addresses that are remembered; the one that used least is forgotten first.
REMEMBERED = 1000
RETRY_S = 5


@dataclass
class _Use:
    """Seconds that an address has used, as of `at`."""

    seconds: float = 0.0
    at: float = 0.0
    waiting: deque[asyncio.Future[bool]] = field(default_factory=deque)

    def lately(self, now: float) -> float:
        return float(self.seconds * 0.5 ** ((now - self.at) / HALF_LIFE_S))


class Turns:
    """`places` at once. A place that comes free goes to the address that used least lately.

    Addresses that used much share all places but one, so that whoever comes new needn't wait for them. At most
    `most_waiting` wait, half of them of one address, and none for longer than `patience` seconds; beyond that the
    answer is 503.
    """

    def __init__(
        self, places: int, most_waiting: int, patience: float, what: str = "pictures are being read"
    ) -> None:
        """`what` is what there is too much of where the answer is 503."""
        self._places = places
        self._most_waiting = most_waiting
        self._patience = patience
        self._what = what
        self._uses: dict[str, _Use] = {}
        self._taken = 0
        self._taken_by_heavy = 0

    @contextlib.asynccontextmanager
    async def turn(self, address: str) -> AsyncIterator[None]:
        """A place for the length of the block. Raises `Problem` busy."""
        use = self._uses.setdefault(address, _Use())
        place: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        waiting = sum(len(each.waiting) for each in self._uses.values())
        if waiting >= self._most_waiting or len(use.waiting) >= self._most_waiting / 2:
            raise self._busy()
        use.waiting.append(place)
        self._give()
        try:
            async with asyncio.timeout(self._patience):
                heavy = await asyncio.shield(place)
        except BaseException as error:
            if place.done():
                self._take_back(place.result())
            else:
                use.waiting.remove(place)
            raise (self._busy() if isinstance(error, TimeoutError) else error) from error
        began = time.monotonic()
        try:
            yield
        finally:
            now = time.monotonic()
            use.seconds, use.at = use.lately(now) + now - began, now
            self._take_back(heavy)
            self._forget(now)

    def _give(self) -> None:
        """Hand out the places that are free."""
        now = time.monotonic()
        while self._taken < self._places:
            asking = [use for use in self._uses.values() if use.waiting]
            if not asking:
                return
            lightest = min(asking, key=lambda use: use.lately(now))
            heavy = lightest.lately(now) > HEAVY_S
            if heavy and self._taken_by_heavy >= max(1, self._places - 1):
                return
            self._taken += 1
            self._taken_by_heavy += heavy
            lightest.waiting.popleft().set_result(heavy)

    def _take_back(self, heavy: bool) -> None:
        self._taken -= 1
        self._taken_by_heavy -= heavy
        self._give()

    def _forget(self, now: float) -> None:
        if len(self._uses) > REMEMBERED:
            idle = [address for address, use in self._uses.items() if not use.waiting]
            del self._uses[min(idle, key=lambda address: self._uses[address].lately(now))]

    def _busy(self) -> Problem:
        return Problem(
            "busy",
            f"Too many {self._what} at this moment. Try again in a few seconds.",
            {"Retry-After": str(RETRY_S)},
        )
