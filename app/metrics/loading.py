"""What workers did, counted from what their signs of life add up; and what they have loaded."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from prometheus_client import Counter
from prometheus_client.core import Metric

from jobs.models import WorkerInfo


class AddedUp:
    """Counts from its first look on. A worker says what it did since its process began, so no sign of life is needed
    twice and none that is missed is missing.

    Args:
        part: where in a worker's sign of life the figures are.
        counters: of each figure there.
    """

    def __init__(self, part: str, counters: Mapping[str, Counter]) -> None:
        self._part = part
        self._counters = counters
        self._seen: dict[tuple[str, Any], dict[str, float]] | None = None

    def look(self, workers: Sequence[WorkerInfo]) -> None:
        """Count what has changed since the last look."""
        now = {(worker.id, worker.info.get("pid")): self._figures(worker) for worker in workers}
        for process, figures in now.items():
            before = figures if self._seen is None else self._seen.get(process, {})
            for name, counter in self._counters.items():
                counter.inc(max(0.0, figures[name] - before.get(name, 0.0)))
        self._seen = now

    def collect(self) -> Iterator[Metric]:
        """The counters."""
        for counter in self._counters.values():
            yield from counter.collect()

    def _figures(self, worker: WorkerInfo) -> dict[str, float]:
        return {name: _number(worker, self._part, name) for name in self._counters}


def loading() -> AddedUp:
    """Indexes that workers load and let make way."""
    return AddedUp(
        "memory",
        {
            "loads": Counter("das_index_loads", "Indexes that workers loaded.", registry=None),
            "evictions": Counter(
                "das_index_evictions", "Loaded indexes that made way for another, by a budget.", registry=None
            ),
            "seconds": Counter(
                "das_index_load_seconds", "Seconds that workers spent loading indexes.", registry=None
            ),
        },
    )


def searching() -> AddedUp:
    """Searches that workers share."""
    return AddedUp(
        "searches",
        {
            "led": Counter("das_searches_shared", "Searches that workers divided among them.", registry=None),
            "helped": Counter(
                "das_search_sections", "Sections that workers scored for another's search.", registry=None
            ),
            "taken_back": Counter(
                "das_search_sections_taken_back",
                "Sections that the leading worker scored itself, because the one meant for it didn't in time.",
                registry=None,
            ),
        },
    )


def loaded_indexes(workers: Sequence[WorkerInfo]) -> int:
    """How many indexes the workers that are alive have in memory, each worker's counted."""
    return sum(len(worker.info.get("loaded") or ()) for worker in workers if worker.fresh)


def loaded_bytes(workers: Sequence[WorkerInfo]) -> float:
    """What these take with their models."""
    return sum(_number(worker, "memory", "taken") for worker in workers if worker.fresh)


def _number(worker: WorkerInfo, part: str, name: str) -> float:
    # A worker of an earlier version says nothing of this.
    return float((worker.info.get(part) or {}).get(name, 0))
