"""Searches that several workers share: who leads one divides it, and who is named for a section computes that.

Each worker has the same section of an index in every search, so that its memory needs to hold the features of that
one. Whoever leads waits for the others only as long as computing it alone would take, about: what nobody has begun by
then, or doesn't finish, it computes itself. While it waits it computes its own sections of others' searches.
"""

import logging
import time
from collections.abc import Callable, Collection, Sequence
from typing import Protocol

from celery.exceptions import SoftTimeLimitExceeded

from das.sections import Section, sections_of
from jobs.errors import StorageError
from jobs.ids import SEARCH_PREFIX
from jobs.models import WorkerInfo
from jobs.queue import Doorbell
from jobs.searches import Searches, SectionState, SectionTask
from jobs.settings import Settings
from jobs.workers import Workers

log = logging.getLogger(__name__)

# Between two looks at whether others have finished theirs.
_PAUSES_S = (0.002, 0.004, 0.008, 0.016)
# Until a bell is heard, beyond the time that the leader's own section took.
_HEARD_S = 0.1
# What somebody has begun may take so many times as long as the leader's own, and this: its features may not be in
# memory yet.
_BEGUN_TIMES, _BEGUN_S = 2.0, 1.0

Compute = Callable[[Section], bytes]
Alive = Callable[[int, int], None]
"""Told how many of how many sections are there; raises where nobody waits for the search any more."""


Lead = Callable[[str, str, Callable[[], bytes], Sequence[int], Compute, Alive], list[bytes] | None]
"""`Together.search`."""


class Helps(Protocol):
    """What computes a section that another worker asks for."""

    def score_section(self, task: SectionTask) -> bytes:
        """What the scores of a search's queries come to in a section of an index that is loaded."""
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

    def search(
        self,
        index_id: str,
        method: str,
        question: Callable[[], bytes],
        shard_rows: Sequence[int],
        compute: Compute,
        alive: Alive,
        /,
    ) -> list[bytes] | None:
        """What is found in each section of an index, in order; None where there is nobody to share with.

        Args:
            question: what the others are asked.
            shard_rows: works of each of the index's shards.
            compute: finds it here, and raises what is to end the search.

        Raises:
            StorageError: nobody can be asked.
        """
        if self._settings.search_workers == 1:
            return None
        holders = self._holders(index_id)
        sections = sections_of(shard_rows, min(self._settings.search_workers, len(holders)))
        if len(sections) == 1:
            return None
        named = divided(holders, self._worker_id, len(sections))
        search_id = self._searches.begin(
            index_id,
            method,
            question(),
            [(one.begin, one.end, worker) for one, worker in zip(sections, named, strict=True)],
        )
        self.led += 1
        try:
            return self._led(search_id, sections, named.index(self._worker_id), compute, alive)
        finally:
            try:
                self._searches.end(search_id)
            except StorageError as error:
                log.warning("%s is over and stays in the database for a while: %s", search_id, error)

    def figures(self) -> dict[str, int]:
        """For the heartbeat; that they are there says that this worker takes part."""
        return {"led": self.led, "helped": self.helped, "taken_back": self.taken_back}

    def _led(
        self, search_id: str, sections: Sequence[Section], own: int, compute: Compute, alive: Alive
    ) -> list[bytes]:
        self._searches.take_over(search_id, own)
        for number in range(len(sections)):
            if number != own:
                self._doorbell.ring(search_id)
        began = time.monotonic()
        found = {own: compute(sections[own])}
        took = time.monotonic() - began
        waiting_since, looks = time.monotonic(), 0
        while missing := [number for number in range(len(sections)) if number not in found]:
            alive(len(found), len(sections))
            states = self._searches.states(search_id, missing)
            here = {number: one.result for number, one in states.items() if one.result}
            if here:
                found |= here
                continue
            waited = time.monotonic() - waiting_since
            due = [one for one in missing if self._is_due(states.get(one), waited, took)]
            if due:
                self._searches.take_over(search_id, due[0])
                self.taken_back += 1
                found[due[0]] = compute(sections[due[0]])
            elif not self._help_with_one():
                time.sleep(_PAUSES_S[min(looks, len(_PAUSES_S) - 1)])
                looks += 1
        return [found[number] for number in range(len(sections))]

    @staticmethod
    def _is_due(state: SectionState | None, waited: float, took: float) -> bool:
        """Whether the leader computes a section itself, after waiting for so long; its own took it `took` seconds."""
        if state is None or state.result is not None:
            # The search was forgotten, or whoever was named couldn't.
            return True
        return waited >= (_BEGUN_TIMES * took + _BEGUN_S if state.taken else took + _HEARD_S)

    def _help_with_one(self) -> bool:
        if self._engine is None:
            return False
        task = self._searches.take(self._worker_id, self._loaded())
        if task is None:
            return False
        try:
            result = self._engine.score_section(task)
        except Exception as error:
            # Whoever leads computes it, and tells what is wrong with it.
            log.exception("section %d of %s can't be computed here", task.number, task.search_id)
            self._searches.hand_in(task.search_id, task.number, b"")
            if isinstance(error, SoftTimeLimitExceeded):
                raise
        else:
            self._searches.hand_in(task.search_id, task.number, result)
            self.helped += 1
        return True

    def _holders(self, index_id: str) -> list[str]:
        """The workers that can take part in searches of an index, this one among them, in an order of their own."""
        others = {worker.id for worker in self._workers.known() if _takes_part(worker, index_id)}
        return sorted(others | {self._worker_id})


def divided(holders: Sequence[str], leading: str, count: int) -> list[str]:
    """Who computes each of `count` sections. The same holder has the same section whoever leads."""
    place = holders.index(leading)
    group = place // count
    named = []
    for number in range(count):
        mates = holders[number::count]
        named.append(mates[group % len(mates)])
    return named


def _takes_part(worker: WorkerInfo, index_id: str) -> bool:
    # A worker of an earlier version says nothing of searches.
    return worker.ready and "searches" in worker.info and index_id in (worker.info.get("loaded") or ())
