"""The engine that computes with `das`. It is loaded in the worker's child; the parent stays free of torch."""

import gc
import logging
import os
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from celery.exceptions import SoftTimeLimitExceeded

from das.answer import CANDIDATES_GONE
from das.errors import DasError, SettingsError, WorksError
from das.images import decode_png
from das.index import AttributionIndex
from das.manifest import ModelRecord
from das.versions import Found, Version, look_of, name_in, versions_in
from jobs.models import ClaimedJob, JsonObject
from jobs.settings import Settings
from worker.child import Progress, Tell

if TYPE_CHECKING:
    from das.attribution import Attributor
    from das.models import DiffusionModel

log = logging.getLogger(__name__)

# The picture that warms the engine up: any will do, it only has to go the whole way.
WARM_UP_SIDE = 64


# For so long after it was last wanted an index is kept: an API process may not know yet of the one in its place.
LINGER_S = 60.0


@dataclass(frozen=True)
class _Refusal:
    """Why a version isn't used, and what its directory looked like then: it is tried again once that changes."""

    reason: str
    look: int


class AttributionEngine:
    """The newest version of every index under `index_dir` with its model loaded, ready to answer the first query as
    fast as the next.

    A version that can't be opened, or whose model can't be loaded, is left out and named in `describe`, and the one
    before it answers. What takes another's place is opened beside it; that one is let go when no question names it
    any more. Versions share a loaded model.

    Raises:
        DasError: no index at all can be used.
    """

    def __init__(self, settings: Settings, tell: Tell = lambda _: None) -> None:
        """`tell` is told the name of each index before it is loaded."""
        self._settings = settings
        self._tell = tell
        self._threads = settings.torch_threads or usable_cores()
        self._attributors: dict[str, Attributor] = {}
        self._refused: dict[str, _Refusal] = {}
        # Directories that hold no index, and those of what is refused, by name.
        self._failed: dict[str, str] = {}
        # Since when something newer is there and nothing asks for it.
        self._unwanted: dict[str, float] = {}
        self.keep_up()
        if not self._attributors:
            raise SettingsError("; ".join(self._failed.values()))

    @staticmethod
    def found(settings: Settings) -> list[str]:
        return [version.id for version in _versions(settings)]

    def due(self) -> bool:
        found = _versions(self._settings)
        # Copies: this is asked by the thread that gives signs of life.
        loaded, unwanted, now = {*self._attributors}, self._unwanted.copy(), time.monotonic()
        if any(now - since >= LINGER_S for since in unwanted.values()):
            return True
        for name, versions in found.versions.items():
            for version in versions:
                if not self._holds(version) and not self._is_refused(version):
                    return True
                if version.id in loaded:
                    # Whether a question still names what was replaced shows when it is looked for.
                    others = {index_id for index_id in loaded if name_in(index_id) == name} - {version.id}
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
                    self._open(version)
                if version.id in self._attributors:
                    newest[name] = version.id
                    break
        for version in found:
            if version.id in asked and not self._holds(version) and not self._is_refused(version):
                changed = True
                self._open(version)
            if (refusal := self._refused.get(version.id)) is not None:
                self._failed[version.place.name] = refusal.reason
        # What has nothing in its place that can be used, whatever is in the folder, answers on.
        replaced = {one for one in self._attributors if newest.get(name_in(one), one) != one}
        return self._let_go(replaced.difference(asked)) or changed

    def describe(self) -> JsonObject:
        return {
            "indexes": sorted(self._attributors),
            "device": self._settings.device,
            "threads": self._threads,
            "failed": self._failed,
            "refused": {
                index_id: refusal.reason
                for index_id, refusal in self._refused.items()
                if index_id not in self._attributors
            },
        }

    def decode(self, image_png: bytes) -> np.ndarray:
        return decode_png(image_png)

    def run(
        self, jobs: Sequence[ClaimedJob], images: Sequence[np.ndarray], progress: Progress
    ) -> list[JsonObject]:
        attributor = self._attributors[jobs[0].index_id]
        candidates = [_rows(attributor.index, job.candidate_works) for job in jobs]
        answers = attributor.attribute_batch(
            images,
            candidates=candidates,
            method=jobs[0].method,
            top_k=[job.top_k for job in jobs],
            prompts=[job.prompt for job in jobs],
            seeds=[job.seed for job in jobs],
            progress=progress,
        )
        return [
            {**answer.as_result(), "notes": _left_out(job.candidate_works, rows)}
            for job, rows, answer in zip(jobs, candidates, answers, strict=True)
        ]

    def _holds(self, version: Version) -> bool:
        """Whether a version is loaded, from where it is now: a kernel's factor is read when it is asked for."""
        attributor = self._attributors.get(version.id)
        return attributor is not None and attributor.index.path == version.directory

    def _is_refused(self, version: Version) -> bool:
        refusal = self._refused.get(version.id)
        return refusal is not None and refusal.look == look_of(version.directory)

    def _open(self, version: Version) -> None:
        """Open a version and load its model; it is refused where that can't be done.

        Raises:
            SoftTimeLimitExceeded: time ran out, which says nothing of the version.
        """
        # torch takes seconds to import, and may not be in the process that forks this one.
        from das.attribution import Attributor

        look = look_of(version.directory)
        try:
            index = AttributionIndex.open(version.directory, model_dir=self._settings.model_dir)
            self._tell(index.id)
            index.check_whole()
            attributor = Attributor(
                index, self._loaded_model_of(index), device=self._settings.device, threads=self._threads
            )
            self._warm_up(attributor)
        except Exception as error:
            if _out_of_time(error):
                raise SoftTimeLimitExceeded from error
            if isinstance(error, DasError):
                log.error("the index in %s is left out: %s", version.place, error)
                self._refused[version.id] = _Refusal(str(error), look)
                return
            # Not enough memory, say. Whatever it is, those that are loaded go on answering.
            log.exception("the index in %s is left out", version.place)
            reason = (
                f"{version.place} couldn't be loaded ({type(error).__name__}); the worker's log says why."
            )
            self._refused[version.id] = _Refusal(reason, look)
        else:
            self._refused.pop(version.id, None)
            self._attributors[version.id] = attributor
            log.info("index %s is open on %s", index.id, self._settings.device)

    def _loaded_model_of(self, index: AttributionIndex) -> "DiffusionModel | None":
        """The model of an index where another that is loaded has the same one, as its versions do."""
        for attributor in self._attributors.values():
            loaded = attributor.index.manifest
            if loaded.config == index.manifest.config and _same_model(loaded.model, index.manifest.model):
                return attributor.model
        return None

    def _let_go(self, unwanted: set[str]) -> bool:
        """Let go what was unwanted for long enough; whether anything was."""
        now = time.monotonic()
        self._unwanted = {index_id: self._unwanted.get(index_id, now) for index_id in unwanted}
        over = [index_id for index_id, since in self._unwanted.items() if now - since >= LINGER_S]
        for index_id in over:
            log.info("index %s is let go: another is in its place, and no question names it", index_id)
            del self._attributors[index_id], self._unwanted[index_id]
        if over:
            gc.collect()
            if self._settings.device.startswith("cuda"):
                import torch

                torch.cuda.empty_cache()
        return bool(over)

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


def _out_of_time(error: BaseException | None) -> bool:
    """Whether the time limit is behind an error, also where a library or ours made another of it."""
    while error is not None and not isinstance(error, SoftTimeLimitExceeded):
        error = error.__cause__ or error.__context__
    return error is not None


def _same_model(one: ModelRecord, other: ModelRecord) -> bool:
    """Whether two indexes are of one model, wherever each was last seen."""
    nowhere: dict[str, None] = {"relative": None}
    return one.model_copy(update=nowhere) == other.model_copy(update=nowhere)


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
