"""The engine that computes with `das`. It is loaded in the worker's child; the parent stays free of torch."""

import logging
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from das.errors import SettingsError
from das.images import decode_png
from das.index import AttributionIndex
from jobs.models import ClaimedJob, JsonObject
from jobs.settings import Settings
from worker.child import Progress

if TYPE_CHECKING:
    from das.attribution import Attributor

log = logging.getLogger(__name__)

# The picture that warms the engine up: any will do, it only has to go the whole way.
WARM_UP_SIDE = 64


class AttributionEngine:
    """Every index under `index_dir` with its model loaded, ready to answer the first query as fast as the next.

    Raises:
        DasError: an index or a model can't be opened; nothing is served by halves.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._threads = settings.torch_threads or usable_cores()
        self._attributors: dict[str, Attributor] = {}
        self._open_indexes()

    def describe(self) -> JsonObject:
        return {
            "indexes": sorted(self._attributors),
            "device": self._settings.device,
            "threads": self._threads,
        }

    def decode(self, image_png: bytes) -> np.ndarray:
        return decode_png(image_png)

    def run(
        self, jobs: Sequence[ClaimedJob], images: Sequence[np.ndarray], progress: Progress
    ) -> list[JsonObject]:
        attributor = self._attributor(jobs[0].index_id)
        answers = attributor.attribute_batch(
            images,
            candidates=[
                None if job.candidate_rows is None else np.asarray(job.candidate_rows) for job in jobs
            ],
            method=jobs[0].method,
            top_k=[job.top_k for job in jobs],
            prompts=[job.prompt for job in jobs],
            seeds=[job.seed for job in jobs],
            progress=progress,
        )
        return [answer.as_result() for answer in answers]

    def _attributor(self, index_id: str) -> "Attributor":
        if index_id not in self._attributors:
            # It may have been built, and the API started with it, after this worker.
            self._open_indexes()
        try:
            return self._attributors[index_id]
        except KeyError as error:
            raise SettingsError(
                f"the worker has no index {index_id}; it has {', '.join(sorted(self._attributors))}."
                " Let DAS_INDEX_DIR name the same directory for the worker and the service."
            ) from error

    def _open_indexes(self) -> None:
        # torch takes seconds to import, and may not be in the process that forks this one.
        from das.attribution import Attributor

        for directory in self._settings.index_directories():
            index = AttributionIndex.open(directory)
            if index.id in self._attributors:
                continue
            attributor = Attributor(index, device=self._settings.device, threads=self._threads)
            for method in index.methods:
                # The first computation of its kind allocates and chooses kernels; nobody should wait for that.
                attributor.attribute_batch(
                    [np.full((WARM_UP_SIDE, WARM_UP_SIDE, 3), 128, np.uint8)], method=method, top_k=1
                )
            self._attributors[index.id] = attributor
            log.info("index %s is open on %s", index.id, self._settings.device)


def usable_cores() -> int:
    """The cores this process may use, which in a container can be fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
