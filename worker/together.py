"""Searches that several workers share: who leads one divides it, and who is named for a section computes that.

Each worker has the same section of an index in every search, so that its memory needs to hold the features of that
one. Whoever leads waits for the others only as long as computing it alone would take, about: what nobody has begun by
then, or doesn't finish, it computes itself. While it waits it computes its own sections of others' searches.
"""

import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Generic, Protocol, TypeVar

from das.sections import Section, sections_of
from jobs.errors import StorageError
from jobs.ids import SEARCH_PREFIX
from jobs.queue import Doorbell
from jobs.searches import Searches, SectionState, SectionTask
from jobs.settings import Settings
from jobs.workers import Workers
from worker.time_limit import out_of_time

log = logging.getLogger(__name__)

# Until a bell is heard, beyond the time that the leader's own section took.
_HEARD_S = 0.1
# What somebody has begun may take so many times as long as the leader's own, and this: its features may not be in
# memory yet.
_BEGUN_TIMES, _BEGUN_S = 2.0, 1.0
# Between two looks at whether others have finished theirs: a part of what the leader's own took, within limits.
_LOOKS, _SHORTEST_S, _LONGEST_S = 20, 0.002, 0.25
# A worker that helps looks so often at whether anybody waits for what it computes.
_WANTED_EVERY_S = 1.0
# What workers send each other; raised with every change of it.
_FORMAT = 2
# What is found in a section goes through the database in one piece, which both ends and the database itself hold in
# memory more than once. Eight million creators' sums are so many bytes.
_MOST_BYTES = 64 * 2**20

Found = TypeVar("Found")


@dataclass(frozen=True)
class Search(Generic[Found]):
    """What a worker needs that leads a search.

    Attributes:
        question: what the others are asked.
        shard_rows: works of each of the index's shards.
        result_bytes: how many bytes what another finds in a section takes at most, about.
        compute: finds here what is in a section, and raises what is to end the search.
        read: the same from what another found, or any error where that can't be used.
        alive: called now and then; raises where nobody waits for the search any more.
    """

    index_id: str
    method: str
    question: Callable[[], bytes]
    shard_rows: Sequence[int]
    result_bytes: Callable[[Section], int]
    compute: Callable[[Section], Found]
    read: Callable[[Section, bytes], Found]
    alive: Callable[[], None]


class SearchOver(Exception):
    """Whoever leads a search waits for this section no longer: there is nobody to compute for."""


class Lead(Protocol):
    """`Together.search`."""

    def __call__(self, search: Search[Found], /) -> list[Found] | None: ...


class Helps(Protocol):
    """What computes a section that another worker asks for."""

    def score_section(self, task: SectionTask, alive: Callable[[], None]) -> bytes:
        """What the scores of a search's queries come to in a section of an index that is loaded.

        It calls `alive` between its steps and lets through what that raises.
        """
        ...


class Together:
    """One worker's part in searches; also counts what it did."""

    def __init__(
        self, settings: Settings, searches: Searches, workers: Workers, doorbell: Doorbell, worker_id: str
    ) -> None:
        self._settings = settings
        self._searches = searches
        self._workers = workers
        self._doorbell = doorbell
        self._worker_id = worker_id
        self._loaded: Callable[[], Collection[str]] = tuple
        self._engine: Helps | None = None
        self._kind = f"{_FORMAT}, {version('das-attribution')} on {settings.device.partition(':')[0]}"
        # Indexes of which was told that their searches aren't divided.
        self._undivided: set[str] = set()
        self.led = self.helped = self.taken_back = 0

    def serve(self, engine: Helps, loaded: Callable[[], Collection[str]]) -> None:
        """From now on sections of the indexes that `loaded` names are computed by this engine."""
        self._engine, self._loaded = engine, loaded

    def help(self) -> int:
        """Compute sections that wait for this worker; how many there were.

        At most as many as there may be others that lead: then it is the turn of questions that wait here.
        """
        done = 0
        while done < self._settings.search_workers and self._help_with_one():
            done += 1
        return done

    def pass_on(self, rung_for: str, passed_on: int) -> None:
        """Let the bell of a search be heard by others while a section waits, which isn't meant for this worker."""
        if not rung_for.startswith(SEARCH_PREFIX) or not self._searches.waits(rung_for):
            return
        if passed_on + 1 < sum(worker.fresh for worker in self._workers.known()):
            self._doorbell.ring(rung_for, passed_on + 1)

    def search(self, search: Search[Found], /) -> list[Found] | None:
        """What is found in each section of an index, in order; None where there is nobody to share with."""
        if self._settings.search_workers == 1:
            return None
        try:
            holders = self._holders(search.index_id)
            sections = sections_of(search.shard_rows, min(self._settings.search_workers, len(holders)))
            if len(sections) == 1 or self._is_too_large(search, sections):
                return None
            named = divided(holders, self._worker_id, len(sections))
            asked = [(one.begin, one.end, worker) for one, worker in zip(sections, named, strict=True)]
            search_id = self._searches.begin(search.index_id, search.method, search.question(), asked)
        except StorageError as error:
            log.warning("a search of %s is led alone: %s", search.index_id, error)
            return None
        self.led += 1
        given_up = True
        try:
            found = self._led(search, search_id, sections, named.index(self._worker_id))
            given_up = False
        finally:
            try:
                self._searches.end(search_id, given_up=given_up)
            except StorageError as error:
                log.warning("%s is over and stays in the database for a while: %s", search_id, error)
        return found

    def told(self) -> dict[str, str | int]:
        """For the heartbeat: whom this worker shares searches with, and what it did."""
        return {"kind": self._kind, "led": self.led, "helped": self.helped, "taken_back": self.taken_back}

    def _led(
        self, search: Search[Found], search_id: str, sections: Sequence[Section], own: int
    ) -> list[Found]:
        self._take_over(search_id, own)
        for number in range(len(sections)):
            # Where the broker hangs, one bell costs seconds.
            if number != own and not self._doorbell.ring(search_id):
                break
        began = time.monotonic()
        found = {own: search.compute(sections[own])}
        took = time.monotonic() - began
        patience, helping = _Patience(took / len(sections[own]), sections), 0.0
        while missing := [number for number in range(len(sections)) if number not in found]:
            search.alive()
            states, due = self._states(search_id, missing), []
            for number in missing:
                state = states.get(number)
                if state is not None and state.result:
                    try:
                        found[number] = search.read(sections[number], state.result)
                    except Exception as error:
                        if out_of_time(error):
                            raise
                        log.exception("what was found in section %d of %s can't be used", number, search_id)
                        due.append(number)
                elif patience.is_over(number, state):
                    due.append(number)
            if due:
                self._take_over(search_id, due[0])
                self.taken_back += 1
                found[due[0]] = search.compute(sections[due[0]])
            elif len(found) < len(sections):
                before = time.monotonic()
                # Of this question's time no more than it might have to wait anyway.
                if helping <= took and self._help_with_one():
                    helping += time.monotonic() - before
                else:
                    time.sleep(min(_LONGEST_S, max(_SHORTEST_S, took / _LOOKS)))
        return [found[number] for number in range(len(sections))]

    def _states(self, search_id: str, numbers: Collection[int]) -> Mapping[int, SectionState]:
        """None of them where the database can't be asked: then this worker computes them all."""
        try:
            return self._searches.states(search_id, numbers)
        except StorageError as error:
            log.warning("%s goes on alone: %s", search_id, error)
            return {}

    def _take_over(self, search_id: str, number: int) -> None:
        """Keep others from beginning what is computed here, where that can be written."""
        try:
            self._searches.take_over(search_id, number, self._worker_id)
        except StorageError as error:
            log.debug("section %d of %s may be computed twice: %s", number, search_id, error)

    def _help_with_one(self) -> bool:
        """Compute a section that waits for this worker; False where there is none. Nothing that fails here is a
        failure of what this worker computes itself, but for the time limit."""
        if self._engine is None:
            return False
        try:
            task = self._searches.take(self._worker_id, self._loaded())
        except StorageError as error:
            log.warning("whether others ask for help isn't known: %s", error)
            return False
        if task is None:
            return False
        try:
            result = self._engine.score_section(task, self._as_long_as_wanted(task))
        except SearchOver:
            log.info("nobody waits for section %d of %s any more", task.number, task.search_id)
        except Exception as error:
            # Whoever leads computes it, and tells what is wrong with it.
            log.exception("section %d of %s can't be computed here", task.number, task.search_id)
            self._hand_in(task, b"")
            if out_of_time(error):
                raise
        else:
            self.helped += self._hand_in(task, result)
        return True

    def _as_long_as_wanted(self, task: SectionTask) -> Callable[[], None]:
        """What raises `SearchOver` once nobody waits for a section, and may be called as often as one likes."""
        looked = time.monotonic()

        def alive() -> None:
            nonlocal looked
            if time.monotonic() - looked < _WANTED_EVERY_S:
                return
            wanted = True
            try:
                wanted = self._searches.is_wanted(task)
            except StorageError as error:
                log.debug(
                    "whether section %d of %s is wanted isn't known: %s", task.number, task.search_id, error
                )
            if not wanted:
                raise SearchOver
            looked = time.monotonic()

        return alive

    def _hand_in(self, task: SectionTask, result: bytes) -> bool:
        try:
            return self._searches.hand_in(task, result)
        except Exception as error:
            if out_of_time(error):
                raise
            # It may be that it is too large.
            log.exception(
                "what was found in section %d of %s can't be handed in", task.number, task.search_id
            )
            return False

    def _is_too_large(self, search: Search[Found], sections: Sequence[Section]) -> bool:
        """Whether what others find may be more than is sent; told once for each index."""
        most = max(map(search.result_bytes, sections))
        if most <= _MOST_BYTES:
            return False
        if search.index_id not in self._undivided:
            self._undivided.add(search.index_id)
            log.warning(
                "%s: what is found in a section may take %.0f MB, and more than %.0f aren't sent through the"
                " database; this worker scores all works itself. More workers or a smaller DAS_BATCH_SIZE make it"
                " less.",
                search.index_id,
                most / 2**20,
                _MOST_BYTES / 2**20,
            )
        return True

    def _holders(self, index_id: str) -> list[str]:
        """The workers that can take part in searches of an index, this one among them, in an order of their own.

        They are of the same version and kind of device, so that a ranking isn't put together of two arithmetics.
        """
        others = {
            worker.id
            for worker in self._workers.known()
            if worker.ready
            and (worker.info.get("searches") or {}).get("kind") == self._kind
            and index_id in (worker.info.get("loaded") or ())
        }
        return sorted(others | {self._worker_id})


class _Patience:
    """How long a leader waits for others, from when its own section is scored.

    Args:
        each: seconds that its own took it for each work.
    """

    def __init__(self, each: float, sections: Sequence[Section]) -> None:
        self._takes = [each * len(section) for section in sections]
        self._since = time.monotonic()
        self._begun: dict[int, float] = {}

    def is_over(self, number: int, state: SectionState | None) -> bool:
        """Whether the leader scores a section itself that nothing was found in yet."""
        if state is None or state.result is not None:
            # The search was forgotten, or whoever was named couldn't.
            return True
        now, takes = time.monotonic(), self._takes[number]
        if not state.taken:
            return now - self._since >= takes + _HEARD_S
        return now - self._begun.setdefault(number, now) >= _BEGUN_TIMES * takes + _BEGUN_S


def divided(holders: Sequence[str], leading: str, count: int) -> list[str]:
    """Who computes each of `count` sections. The same holder has the same section whoever leads."""
    place = holders.index(leading)
    group = place // count
    named = []
    for number in range(count):
        mates = holders[number::count]
        named.append(mates[group % len(mates)])
    return named
