"""The metrics of the whole service, read from its database when somebody asks.

Whatever process did it, a worker on another machine too, its rows tell; so workers need no port and nothing is lost
with a process that is killed (decision 34). Every API process tells the same of the whole service: take the maximum
over them and not the sum.
"""

import collections
import re
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prometheus_client import Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from app.metrics.loading import loaded_bytes, loaded_indexes, loading, searching
from app.metrics.looking import Look
from app.metrics.meters import STAGE_BUCKETS
from das.versions import name_in
from jobs.broker import running_server
from jobs.errors import StorageError
from jobs.happenings import Happening, Happenings
from jobs.models import WorkerInfo
from jobs.webhooks.deliveries import Outstanding
from jobs.webhooks.models import DeliveryState

if TYPE_CHECKING:
    from app.service import Service

BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64)
# The stages of an answer by what the worker measures of them, in milliseconds.
STAGES = {
    "queue": "queue_wait_ms",
    "claim": "claim_ms",
    "decoding": "decode_ms",
    "scoring": "engine_ms",
    "writing": "write_ms",
}
WORKER_STATES = ("ready", "loading", "failed", "silent")
# Codes are the service's own. A worker of another version may have others, but not any number of them.
CODE = re.compile(r"[a-z][a-z-]{0,39}")
MOST_CODES = 40


@dataclass(frozen=True)
class Standing:
    """How the service stands by its database."""

    queued: int
    running: int
    oldest_s: float
    pending_decisions: int
    workers: dict[str, int]
    resident_bytes: float
    loaded_indexes: int
    loaded_bytes: float
    known_until: float
    webhooks: Outstanding


class Whole:
    """Collects them. Register it once; scraped by several at once, the database is asked once a second."""

    def __init__(self, service: "Service") -> None:
        self._service = service
        self._happenings = Happenings(service.store.database)
        self._counts = Counts()
        self._added_up = (loading(), searching())
        self._database = Look("database", self._look, StorageError)
        self._broker = Look("broker", lambda: running_server(service.settings), OSError)

    def collect(self) -> Iterator[Metric]:
        """Every metric of the whole service; where the database can't be read, those that need none."""
        standing, server = self._database.latest(), self._broker.latest()
        parts = {
            "database": standing is not None,
            "broker": server is not None,
            "index": len(self._service.catalogue) > 0,
            "worker": standing is not None and standing.workers["ready"] > 0,
        }
        yield _gauge("das_part_up", "Whether what a question needs is there.", "part", parts.items())
        yield _gauge(
            "das_queue_limit", "Questions that may wait at once.", value=self._service.settings.queue_limit
        )
        if standing is not None:
            yield from _told(standing)
        yield from self._counts.collect()
        for one in self._added_up:
            yield from one.collect()
        yield from self._of_this_process()

    def _look(self) -> Standing:
        for happening in self._happenings.jobs():
            self._counts.count(happening)
        for outcome in self._happenings.decisions():
            self._counts.decisions.labels(outcome).inc()
        for end in self._happenings.deliveries():
            self._counts.deliveries.labels(end).inc()
        store = self._service.store
        workers = store.workers.known()
        for one in self._added_up:
            one.look(workers)
        return Standing(
            queued=store.queue_depth(),
            running=store.running(),
            oldest_s=store.oldest_queued_age() or 0.0,
            pending_decisions=store.decisions.pending(),
            workers=_by_state(workers),
            resident_bytes=sum(float(w.info.get("rss_mb", 0)) * 1e6 for w in workers if w.fresh),
            loaded_indexes=loaded_indexes(workers),
            loaded_bytes=loaded_bytes(workers),
            known_until=self._happenings.known_until.timestamp(),
            webhooks=store.webhook_deliveries.outstanding(),
        )

    def _of_this_process(self) -> Iterator[Metric]:
        versions = GaugeMetricFamily(
            "das_index_versions",
            "Versions of indexes: served here, or on the way to it.",
            labels=("name", "state"),
        )
        known = [(served.id, "served") for served in self._service.catalogue]
        known += [(coming.id, coming.state) for coming in self._service.versions.all_coming]
        for labels, count in collections.Counter(
            (name_in(index_id), state) for index_id, state in known
        ).items():
            versions.add_metric(labels, count)
        yield versions
        let_through = CounterMetricFamily(
            "das_limiter_let_through",
            "Requests and questions that went through uncounted, because counting failed.",
        )
        let_through.add_metric((), self._service.limiter.let_through)
        yield let_through
        disk = shutil.disk_usage(self._service.settings.data_dir)
        yield _gauge("das_disk_free_bytes", "Room on the disk of DAS_DATA_DIR.", value=disk.free)
        yield _gauge("das_disk_size_bytes", "Size of the disk of DAS_DATA_DIR.", value=disk.total)


class Counts:
    """What is counted of the rows that came since this process began; kept out of the registry, told by `Whole`."""

    def __init__(self) -> None:
        self.events = Counter("das_job_events", "What happened to questions.", ("kind",), registry=None)
        self.attempts = Counter(
            "das_attempts", "Starts of a question by a worker.", ("attempt",), registry=None
        )
        self.batches = Histogram(
            "das_claim_batch_size",
            "Questions that a worker claimed at once.",
            registry=None,
            buckets=BATCH_BUCKETS,
        )
        self.lost = Counter(
            "das_lease_losses",
            "Attempts that ended without an answer: the worker was silent, or they were given back.",
            ("cause",),
            registry=None,
        )
        self.failures = Counter("das_failures", "Questions that failed, by reason.", ("code",), registry=None)
        self.stages = Histogram(
            "das_stage_seconds",
            "Seconds that an answered question took, by stage and whole.",
            ("stage",),
            registry=None,
            buckets=STAGE_BUCKETS,
        )
        self.decisions = Counter("das_decisions", "Decisions made, by outcome.", ("outcome",), registry=None)
        self.deliveries = Counter(
            "das_webhook_deliveries",
            "Webhooks that were delivered, or failed: given up after a day or because they were refused for ever.",
            ("outcome",),
            registry=None,
        )
        for outcome in (DeliveryState.DELIVERED, DeliveryState.FAILED):
            self.deliveries.labels(outcome)
        for cause in ("silent", "given-back"):
            self.lost.labels(cause)
        self._codes: set[str] = set()

    def collect(self) -> Iterator[Metric]:
        for meter in (
            self.events, self.attempts, self.batches, self.lost, self.failures, self.stages, self.decisions,
            self.deliveries,
        ):  # fmt: skip
            yield from meter.collect()

    def count(self, happening: Happening) -> None:
        """Count one change of a job."""
        self.events.labels(happening.kind).inc()
        if happening.kind == "started":
            self.attempts.labels("first" if happening.data.get("attempt") == 1 else "further").inc()
            if "batch" in happening.data:
                self.batches.observe(happening.data["batch"])
        if happening.lost_lease is not None:
            self.lost.labels(happening.lost_lease).inc()
        if happening.kind == "failed":
            self.failures.labels(self._code(str(happening.data.get("code")))).inc()
        for stage, name in STAGES.items():
            if name in (happening.timings or {}):
                self.stages.labels(stage).observe(float((happening.timings or {})[name]) / 1000)
        if happening.whole_s is not None:
            self.stages.labels("whole").observe(happening.whole_s)

    def _code(self, code: str) -> str:
        if code in self._codes:
            return code
        if not CODE.fullmatch(code) or len(self._codes) >= MOST_CODES:
            return "other"
        self._codes.add(code)
        return code


def _told(standing: Standing) -> Iterator[Metric]:
    waiting = {"queued": standing.queued, "running": standing.running}
    yield _gauge("das_jobs", "Questions that aren't answered yet.", "state", waiting.items())
    yield _gauge(
        "das_oldest_queued_seconds", "Age of the question that waits longest; 0 if none waits.",
        value=standing.oldest_s,
    )  # fmt: skip
    yield _gauge(
        "das_decisions_pending", "Decisions that wait for an answer.", value=standing.pending_decisions
    )
    webhooks = standing.webhooks
    yield _gauge(
        "das_webhook_deliveries_pending", "Webhooks that aren't delivered yet.", value=webhooks.pending
    )
    yield _gauge(
        "das_webhook_oldest_pending_seconds", "Age of the webhook that waits longest; 0 if none waits.",
        value=webhooks.oldest_s,
    )  # fmt: skip
    yield _gauge(
        "das_webhook_overdue_seconds", "For how long a webhook could have been attempted and nobody has.",
        value=webhooks.overdue_s,
    )  # fmt: skip
    yield _gauge("das_workers", "Workers of the last hour.", "state", standing.workers.items())
    yield _gauge(
        "das_workers_resident_bytes", "Memory of the workers that are alive.", value=standing.resident_bytes
    )
    yield _gauge(
        "das_workers_loaded_indexes", "Indexes that live workers have loaded.", value=standing.loaded_indexes
    )
    yield _gauge(
        "das_workers_loaded_bytes", "What those take, with their models.", value=standing.loaded_bytes
    )
    yield _gauge(
        "das_counted_until_timestamp_seconds", "Up to when rows are counted here.", value=standing.known_until
    )


def _by_state(workers: Iterable[WorkerInfo]) -> dict[str, int]:
    counted = dict.fromkeys(WORKER_STATES, 0)
    for worker in workers:
        state = str(worker.info.get("engine")) if worker.fresh else "silent"
        counted[state if state in counted else "loading"] += 1
    return counted


def _gauge(
    name: str,
    text: str,
    label: str | None = None,
    values: Iterable[tuple[str, float]] = (),
    *,
    value: float | None = None,
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=(label,) if label else None, value=value)
    for of, number in values:
        family.add_metric((of,), float(number))
    return family
