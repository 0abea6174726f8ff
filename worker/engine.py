"""The engine that computes with `das`. It is loaded in the worker's child; the parent stays free of torch."""

import logging
import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from das.answer import CANDIDATES_GONE
from das.errors import DasError, SettingsError, WorksError
from das.images import decode_png
from das.index import AttributionIndex
from das.manifest import MANIFEST_NAME, read_manifest
from jobs.models import ClaimedJob, JsonObject
from jobs.settings import Settings
from worker.child import Progress, Tell

if TYPE_CHECKING:
    from das.attribution import Attributor

log = logging.getLogger(__name__)

# The picture that warms the engine up: any will do, it only has to go the whole way.
WARM_UP_SIDE = 64


class AttributionEngine:
    """Every index under `index_dir` with its model loaded, ready to answer the first query as fast as the next.

    An index that can't be opened, or whose model can't be loaded, is left out and named in `describe`: the others
    answer.

    Raises:
        DasError: no index at all can be used.
    """

    def __init__(self, settings: Settings, tell: Tell = lambda _: None) -> None:
        """`tell` is told the name of each index before it is loaded."""
        self._settings = settings
        self._tell = tell
        self._failed: dict[str, str] = {}
        self._threads = settings.torch_threads or usable_cores()
        self._attributors: dict[str, Attributor] = {}
        # Found and can't be opened: it isn't tried again for every bell.
        self._refused: dict[str, str] = {}
        self._open_indexes()

    @staticmethod
    def found(settings: Settings) -> list[str]:
        try:
            directories = settings.index_directories()
        except SettingsError:
            return []
        return [index_id for path in directories if (index_id := _id_of(path)) is not None]

    def open_further(self) -> bool:
        if not {*self.found(self._settings)} - {*self._attributors} - {*self._refused}:
            return False
        self._open_indexes()
        return True

    def describe(self) -> JsonObject:
        return {
            "indexes": sorted(self._attributors),
            "device": self._settings.device,
            "threads": self._threads,
            "failed": self._failed,
            "refused": self._refused,
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

    def _open_indexes(self) -> None:
        # torch takes seconds to import, and may not be in the process that forks this one.
        from das.attribution import Attributor

        self._failed, self._refused = {}, {}
        for directory in self._settings.index_directories():
            try:
                index = AttributionIndex.open(directory, model_dir=self._settings.model_dir)
                if index.id in self._attributors:
                    continue
                self._tell(index.id)
                attributor = Attributor(index, device=self._settings.device, threads=self._threads)
                self._warm_up(attributor)
            except DasError as error:
                log.error("the index in %s is left out: %s", directory, error)
                self._failed[directory.name] = str(error)
                refused = _id_of(directory)
                if refused is not None:
                    self._refused[refused] = str(error)
                continue
            self._attributors[index.id] = attributor
            log.info("index %s is open on %s", index.id, self._settings.device)
        if not self._attributors:
            raise SettingsError("; ".join(self._failed.values()))

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

    for directory in settings.index_directories():
        try:
            index = AttributionIndex.open(directory, model_dir=settings.model_dir)
            import_pipeline(index.model_source.pipeline)
        except DasError as error:
            log.debug("nothing is imported ahead for %s: %s", directory, error)


def _id_of(directory: Path) -> str | None:
    return _id_in(directory, (directory / MANIFEST_NAME).stat().st_mtime_ns)


@lru_cache(maxsize=256)
def _id_in(directory: Path, _written_at: int) -> str | None:
    """The id of the index in a directory; None if it can't be read. Read again when the manifest was written."""
    try:
        return read_manifest(directory).id
    except DasError:
        return None


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
