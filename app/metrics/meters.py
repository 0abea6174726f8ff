"""What this process counts itself: requests, and what it does with uploads before they are queued."""

import contextlib
import platform
import time
from collections.abc import Iterator
from importlib.metadata import version

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)

from app import DISTRIBUTION
from jobs.tracing import Tracing

# A page takes milliseconds, a long poll half a minute.
REQUEST_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
# From a thumbnail's decoding to a long computation on a CPU.
STAGE_BUCKETS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0)
# When a duty of this process was last done, in seconds since 1970.
LAST_DONE = "das_duty_last_done_timestamp_seconds"
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

# When a series began is in Prometheus already, and doubles what is sent.
disable_created_metrics()  # type: ignore[no-untyped-call]


def known_method(method: str) -> str:
    """A request's method, or `other`: a caller may write anything there."""
    return method if method in METHODS else "other"


class Meters:
    """The registry of one API process, its own meters, and its tracing. No label holds what a caller chooses."""

    def __init__(self, tracing: Tracing | None = None) -> None:
        self.tracing = tracing or Tracing()
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        Gauge("das_build_info", "Always 1.", ("version", "python"), registry=self.registry).labels(
            version(DISTRIBUTION), platform.python_version()
        ).set(1)
        self._requests = Histogram(
            "das_http_request_seconds",
            "Seconds until the answer began, by the route's template.",
            ("route", "method", "status"),
            registry=self.registry,
            buckets=REQUEST_BUCKETS,
        )
        self._rounds = Counter(
            "das_duty_rounds",
            "Rounds of what this process does again and again.",
            ("duty", "result"),
            registry=self.registry,
        )
        self._last_done = Gauge(
            LAST_DONE, "When a round of it was last done.", ("duty",), registry=self.registry
        )
        self._intake = Histogram(
            "das_intake_seconds",
            "Seconds that the API took for a step of an upload: fetching, decoding, screening.",
            ("step",),
            registry=self.registry,
            buckets=STAGE_BUCKETS,
        )

    def round(self, duty: str, done: bool) -> None:
        """Count a round of what is done again and again; `duty` is its name."""
        self._rounds.labels(duty, "done" if done else "failed").inc()
        if done:
            self._last_done.labels(duty).set_to_current_time()

    def request(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count a request; `route` is its template."""
        self._requests.labels(route, known_method(method), f"{status // 100}xx").observe(seconds)

    @contextlib.contextmanager
    def step(self, step: str) -> Iterator[None]:
        """Measure and trace a step of an upload, also one that fails."""
        began = time.perf_counter()
        try:
            with self.tracing.span(step):
                yield
        finally:
            self._intake.labels(step).observe(time.perf_counter() - began)
