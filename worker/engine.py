"""The engine that computes with `das`. It is loaded in the worker's child; the parent stays free of torch."""

import logging
import math
import os
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from celery.exceptions import SoftTimeLimitExceeded

from das.answer import CANDIDATES_GONE
from das.errors import DasError, SettingsError, WorksError
from das.images import decode_png
from das.index import AttributionIndex
from das.versions import Found, Version, look_of, name_in, versions_in
from jobs.models import ClaimedJob, JsonObject
from jobs.searches import SectionTask
from jobs.settings import Settings
from worker import memory, sections
from worker.child import OVERDUE_AGAIN_S, Progress, Tell
from worker.room import Room
from worker.time_limit import out_of_time
from worker.together import Lead

if TYPE_CHECKING:
    from das.attribution import Attributor
    from das.models import DiffusionModel

log = logging.getLogger(__name__)

T = TypeVar("T")

# The picture that warms the engine up: any will do, it only has to go the whole way.
WARM_UP_SIDE = 64


# For so long after it was last wanted an index is kept: an API process may not know yet of the one in its place.
LINGER_S = 60.0
_GB = 1e9


@dataclass(frozen=True)
class _Refusal:
    """Why a version isn't used, and what its directory looked like then: it is tried again once that changes."""

    reason: str
    look: int
    again_at: float = math.inf


@dataclass(frozen=True)
class _Whole:
    """A version that was found whole: where, and what the directory looked like then."""

    directory: Path
    look: int


class AttributionEngine:
    """The newest version of every index under `index_dir` with its model loaded, ready to answer the first query as
    fast as the next; with a budget of memory as many of them as that holds, and the others when they are asked for.

    A version that can't be opened, or whose model can't be loaded, is left out and named in `describe`, and the one
    before it answers. What takes another's place is opened beside it; that one is let go when no question names it
    any more. Indexes of the same model share it.

    Raises:
        DasError: no index at all can be used.
    """

    def __init__(self, settings: Settings, tell: Tell = lambda _: None) -> None:
        """`tell` is told the name of each index before it is loaded."""
        # What is measured as an index's may not be the libraries'.
        import das.attribution  # noqa: F401

        self._settings = settings
        self._tell = tell
        self._threads = settings.torch_threads or usable_cores()
        budget = settings.memory_budget_gb
        self._room = Room(None if budget is None else int(budget * _GB))
        # What is answered about, and what of it is in memory: all, unless there is a budget.
        self._answers: dict[str, _Whole] = {}
        self._attributors: dict[str, Attributor] = {}
        self._refused: dict[str, _Refusal] = {}
        # Directories that hold no index, and those of what is refused, by name.
        self._failed: dict[str, str] = {}
        # Since when something newer is there and nothing asks for it.
        self._unwanted: dict[str, float] = {}
        self._started = False
        self.keep_up()
        self._started = True
        for index_id in [*self._answers]:
            # Where none fits into the budget, the first is worth more than an empty memory.
            if not self._attributors:
                self.load(index_id)
        if not self._answers:
            raise SettingsError("; ".join(self._failed.values()))

    @staticmethod
    def found(settings: Settings) -> list[str]:
        return [version.id for version in _versions(settings)]

    def due(self) -> bool:
        found = _versions(self._settings)
        # Copies: this is asked by the thread that gives signs of life.
        answers, unwanted, now = {*self._answers}, self._unwanted.copy(), time.monotonic()
        if any(now - since >= LINGER_S for since in unwanted.values()):
            return True
        for name, versions in found.versions.items():
            for version in versions:
                if not self._holds(version) and not self._is_refused(version):
                    return True
                if version.id in answers:
                    # Whether a question still names what was replaced shows when it is looked for.
                    others = {index_id for index_id in answers if name_in(index_id) == name} - {version.id}
                    if others - unwanted.keys():
                        return True
                    break
        return False

    def keep_up(self, asked: Collection[str] = ()) -> bool:
        found, changed = _versions(self._settings), False
        self._failed = dict(found.unreadable)
        newest: dict[str, str] = {}
        for name, versions in found.versions.items():
            for version in versions:
                if not self._holds(version) and not self._is_refused(version):
                    changed = True
                    # What comes while questions are answered is loaded before it is asked: only that shows that it
                    # can take another's place. At the start it would take the room of what was loaded before it.
                    self._open(version, if_it_fits=not self._started or version.id in self._answers)
                if version.id in self._answers:
                    newest[name] = version.id
                    break
        for version in found:
            if version.id in asked and not self._holds(version) and not self._is_refused(version):
                changed = True
                self._open(version, if_it_fits=True)
            if (refusal := self._refused.get(version.id)) is not None:
                self._failed[version.place.name] = refusal.reason
        # What isn't in memory can't answer any more once it is gone.
        gone = self._answers.keys() - self._attributors.keys() - {version.id for version in found}
        for index_id in gone:
            self._forget(index_id)
        # What has nothing in its place that can be used, whatever is in the folder, answers on.
        replaced = {one for one in self._answers if newest.get(name_in(one), one) != one}
        return self._let_go(replaced.difference(asked)) or changed or bool(gone)

    def describe(self) -> JsonObject:
        room = self._room
        return {
            "indexes": sorted(self._answers),
            "loaded": sorted(self._attributors),
            "memory": {
                "budget": room.budget,
                "taken": room.taken,
                "indexes": {index_id: room.bytes_of(index_id) for index_id in sorted(room.loaded)},
                "loads": room.loads,
                "evictions": room.evictions,
                "seconds": round(room.seconds, 3),
            },
            "oversized": [index_id for index_id in sorted(self._attributors) if room.too_large(index_id)],
            "device": self._settings.device,
            "threads": self._threads,
            "failed": dict(self._failed),
            "refused": {
                index_id: refusal.reason
                for index_id, refusal in self._refused.items()
                if index_id not in self._answers
            },
        }

    def load(self, index_id: str) -> None:
        version = next((one for one in _versions(self._settings) if one.id == index_id), None)
        if version is None or self._is_refused(version):
            self._forget(index_id)
            return
        try:
            self._open(version)
        except SoftTimeLimitExceeded:
            limit = self._settings.soft_time_limit_seconds
            self.leave_out(
                index_id,
                f"{version.place} isn't loaded after {limit:g} s (DAS_SOFT_TIME_LIMIT_SECONDS); it is tried again in"
                " an hour.",
            )

    def leave_out(self, index_id: str, reason: str) -> None:
        log.error("%s", reason)
        for version in _versions(self._settings):
            if version.id == index_id and index_id not in self._attributors:
                look, again_at = look_of(version.directory), time.monotonic() + OVERDUE_AGAIN_S
                self._refuse(version, reason, look, again_at)

    def load_seconds(self, index_id: str) -> float:
        return self._room.seconds_of(index_id)

    def decode(self, image_png: bytes) -> np.ndarray:
        return decode_png(image_png)

    def run(
        self,
        jobs: Sequence[ClaimedJob],
        images: Sequence[np.ndarray],
        progress: Progress,
        lead: Lead | None = None,
    ) -> list[JsonObject]:
        attributor = self._attributors[jobs[0].index_id]
        self._room.use(jobs[0].index_id)
        candidates = [_rows(attributor.index, job.candidate_works) for job in jobs]
        spread = None if lead is None else sections.spread(attributor, lead, progress)
        answers = self._alone_if_need_be(
            jobs[0].index_id,
            lambda: attributor.attribute_batch(
                images,
                candidates=candidates,
                method=jobs[0].method,
                top_k=[job.top_k for job in jobs],
                prompts=[job.prompt for job in jobs],
                seeds=[job.seed for job in jobs],
                progress=progress,
                spread=spread,
            ),
        )
        return [
            {**answer.as_result(), "notes": _left_out(job.candidate_works, rows)}
            for job, rows, answer in zip(jobs, candidates, answers, strict=True)
        ]

    def score_section(self, task: SectionTask, alive: Callable[[], None]) -> bytes:
        self._room.use(task.index_id)
        return sections.score(self._attributors[task.index_id], task, alive)

    def _holds(self, version: Version) -> bool:
        """Whether a version is answered about from where it is now: parts of it are read when they are asked for."""
        whole = self._answers.get(version.id)
        return whole is not None and whole.directory == version.directory

    def _is_refused(self, version: Version) -> bool:
        refusal = self._refused.get(version.id)
        return (
            refusal is not None
            and refusal.look == look_of(version.directory)
            and time.monotonic() < refusal.again_at
        )

    def _open(self, version: Version, *, if_it_fits: bool = False) -> None:
        """Open a version, check it and load its model; it is refused where that can't be done.

        With a budget it is loaded in the place of what was used least lately; with `if_it_fits` only where it has
        room as things are, and otherwise when it is asked for.

        Raises:
            SoftTimeLimitExceeded: time ran out, which says nothing of the version.
        """
        look = look_of(version.directory)
        try:
            index = AttributionIndex.open(version.directory, model_dir=self._settings.model_dir)
            self._tell(index.id)
            if self._answers.get(index.id) != _Whole(version.directory, look):
                index.check_whole()
            self._expect(index)
            if not if_it_fits or index.id in self._attributors or self._room.fits(index.id):
                self._load(index)
        except Exception as error:
            if out_of_time(error):
                raise SoftTimeLimitExceeded from error
            # Whatever it is, those that are loaded go on answering.
            if memory.ran_out(error):
                log.exception("the index in %s is left out", version.place)
                reason = f"{version.place} needs more memory than there is on {self._settings.device}."
            elif isinstance(error, DasError):
                log.error("the index in %s is left out: %s", version.place, error)
                reason = str(error)
            else:
                log.exception("the index in %s is left out", version.place)
                reason = (
                    f"{version.place} couldn't be loaded ({type(error).__name__}); the worker's log says why."
                )
            self._refuse(version, reason, look)
        else:
            self._refused.pop(version.id, None)
            self._answers[version.id] = _Whole(version.directory, look)

    def _refuse(self, version: Version, reason: str, look: int, again_at: float = math.inf) -> None:
        self._refused[version.id] = _Refusal(reason, look, again_at)
        self._failed[version.place.name] = reason
        if version.id not in self._attributors:
            self._forget(version.id)

    def _expect(self, index: AttributionIndex) -> None:
        from das.footprint import index_bytes, model_bytes

        own = index_bytes(index, self._settings.device)
        self._room.expect(index.id, index.manifest.model.digest, own, model_bytes(index))

    def _load(self, index: AttributionIndex) -> None:
        """Load an opened index with its model, measured, and let go what makes way for it."""
        # Before anything makes way: it may be that one's model.
        model = self._loaded_model_of(index)
        self._evict(self._room.in_the_way(index.id), f"{index.id} is loaded")
        began = time.monotonic()
        attributor, own, of_model = self._alone_if_need_be(index.id, lambda: self._measured(index, model))
        self._room.measured(index.id, own, of_model, time.monotonic() - began)
        self._attributors[index.id] = attributor
        log.info(
            "index %s is loaded on %s after %.1f s; with its model it takes %.2f GB, and all that is loaded %.2f GB",
            index.id,
            self._settings.device,
            self._room.seconds_of(index.id),
            self._room.bytes_of(index.id) / _GB,
            self._room.taken / _GB,
        )
        # What was expected may have been too little.
        self._evict(self._room.in_the_way(index.id), f"{index.id} takes more than its files told")
        if self._room.too_large(index.id):
            log.warning(
                "%s alone takes more than DAS_MEMORY_BUDGET_GB; nothing else is loaded beside it", index.id
            )

    def _measured(
        self, index: AttributionIndex, model: "DiffusionModel | None"
    ) -> "tuple[Attributor, int, int | None]":
        """An index ready to answer, what it takes, and what its model takes where that wasn't there yet, in bytes."""
        # torch takes seconds to import, and may not be in the process that forks this one.
        from das.attribution import Attributor
        from das.index_model import load_model_of

        device, of_model = self._settings.device, None
        before = self._settled(index)
        if model is None:
            model = load_model_of(index, device=device)
            of_model = self._settled(index) - before
        attributor = Attributor(index, model, device=device, threads=self._threads)
        self._warm_up(attributor)
        return attributor, self._settled(index) - before - (of_model or 0), of_model

    def _settled(self, *opened: AttributionIndex) -> int:
        apart = [*(whole.directory for whole in self._answers.values()), *(index.path for index in opened)]
        return memory.settled(self._settings.device, apart)

    def _alone_if_need_be(self, index_id: str, work: Callable[[], T]) -> T:
        """What `work` gives; where memory runs out and there is a budget, once more with nothing else loaded."""
        try:
            return work()
        except Exception as error:
            others = [one for one in self._room.loaded if one != index_id]
            if self._room.budget is None or not others or out_of_time(error) or not memory.ran_out(error):
                raise
            log.warning("memory ran out beside other indexes (%s): %s goes on alone", error, index_id)
        self._evict(others, f"{index_id} needs their memory")
        return work()

    def _loaded_model_of(self, index: AttributionIndex) -> "DiffusionModel | None":
        """The model of an index where another that is loaded has the same one, by the digest of all that decides
        its numbers."""
        for attributor in self._attributors.values():
            if attributor.index.manifest.model.digest == index.manifest.model.digest:
                return attributor.model
        return None

    def _evict(self, index_ids: Sequence[str], why: str) -> None:
        """Let go of what is loaded, to load it again when it is asked for."""
        for index_id in index_ids:
            log.info("index %s makes way: %s", index_id, why)
            del self._attributors[index_id]
            self._room.unloaded(index_id)
            self._room.evictions += 1
        if index_ids:
            self._settled()

    def _let_go(self, unwanted: set[str]) -> bool:
        """Let go what was unwanted for long enough; whether anything was."""
        now = time.monotonic()
        self._unwanted = {index_id: self._unwanted.get(index_id, now) for index_id in unwanted}
        over = [index_id for index_id, since in self._unwanted.items() if now - since >= LINGER_S]
        for index_id in over:
            log.info("index %s is let go: another is in its place, and no question names it", index_id)
            del self._unwanted[index_id]
            self._forget(index_id)
        if over:
            self._settled()
        return bool(over)

    def _forget(self, index_id: str) -> None:
        self._answers.pop(index_id, None)
        self._attributors.pop(index_id, None)
        self._room.forget(index_id)

    def _warm_up(self, attributor: "Attributor") -> None:
        """Compute each method once: the first time allocates and chooses kernels, and nobody should wait for that."""
        picture = np.full((WARM_UP_SIDE, WARM_UP_SIDE, 3), 128, np.uint8)
        for method in attributor.index.methods:
            attributor.attribute_batch([picture], method=method, top_k=1)


def import_ahead(settings: Settings) -> None:
    """Import what loading the models will need, and load nothing; no device is touched.

    Only for the CPU: some of the libraries look at import for a GPU, after which CUDA works in no forked process.
    What can't be found out here is left to the engine, which says what is wrong with it.
    """
    if settings.device != "cpu":
        return
    from das.attribution import Attributor  # noqa: F401
    from das.models.loading import import_pipeline

    for version in _versions(settings).newest:
        try:
            index = AttributionIndex.open(version.directory, model_dir=settings.model_dir)
            import_pipeline(index.model_source.pipeline)
        except DasError as error:
            log.debug("nothing is imported ahead for %s: %s", version.place, error)


def _versions(settings: Settings) -> Found:
    try:
        return versions_in(settings.index_directories())
    except SettingsError:
        return Found()


def _rows(index: AttributionIndex, work_ids: Sequence[str] | None) -> np.ndarray | None:
    """Where the index has these works now, less those that it no longer has; None for all works."""
    if work_ids is None:
        return None
    rows = [row for work_id in work_ids if (row := index.works.find(work_id)) is not None]
    if not rows:
        raise WorksError(
            f"none of the {len(work_ids)} candidates is in {index.id} any more: ask again, to have others chosen"
        )
    return np.asarray(rows)


def _left_out(asked: Sequence[str] | None, rows: np.ndarray | None) -> list[str]:
    missing = 0 if asked is None or rows is None else len(asked) - len(rows)
    if not missing:
        return []
    are, were = ("is", "was") if missing == 1 else ("are", "were")
    return [CANDIDATES_GONE.format(count=missing, are=are, were=were)]


def usable_cores() -> int:
    """The cores this process may use, which in a container can be fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
