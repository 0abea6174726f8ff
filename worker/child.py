"""The worker's child process: loads the engine once, then answers bells one batch at a time."""

import logging
import os
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import psutil
from celery.exceptions import SoftTimeLimitExceeded

from das.errors import DasError
from jobs.errors import StorageError
from jobs.models import ClaimedJob, JsonObject
from jobs.queue import Doorbell
from jobs.settings import Settings
from jobs.store import JobStore
from worker.lease import Held, JobsGone, Pulse

log = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]


class Engine(Protocol):
    """What computes. Made by an `EngineFactory` in the child and kept for its lifetime."""

    def describe(self) -> JsonObject:
        """What it has loaded, for the heartbeat."""
        ...

    def decode(self, image_png: bytes) -> Any:
        """The stored image as the engine takes it."""
        ...

    def run(
        self, jobs: Sequence[ClaimedJob], images: Sequence[Any], progress: Progress
    ) -> Sequence[JsonObject]:
        """The results of jobs of the same index, method and candidates, in their order.

        It calls `progress(stage, done, total)` between its steps and lets through what that raises.
        """
        ...


EngineFactory = Callable[[Settings], Engine]


class Child:
    """Made in the parent, used in the child that is forked from it; opens nothing before `start`."""

    def __init__(self, settings: Settings, engine_factory: EngineFactory, worker_id: str) -> None:
        self.settings = settings
        self.worker_id = worker_id
        self._engine_factory = engine_factory
        self._engine: Engine | None = None
        self._state: JsonObject = {"engine": "loading"}
        self._answered = 0
        self._store: JobStore | None = None

    def start(self) -> None:
        """In the new child: connect, give signs of life, and load the engine, so that no query waits for that."""
        self._store = JobStore(self.settings)
        self._doorbell = Doorbell(self.settings)
        self._pulse = Pulse(self.settings, self._store, self.worker_id, self._info)
        self._pulse.start()
        try:
            self._load()
        except Exception:
            # Nobody waits for an answer yet. The heartbeat says so, and the first job tries again.
            log.exception("the engine can't be loaded")

    def stop(self) -> None:
        """The child ends in good order."""
        if self._store is not None:
            self._pulse.stop()
            self._doorbell.close()
            self._store.close()

    def drain(self) -> None:
        """Answer one bell: claim a batch, compute, write; ring again if more waits. Nothing to claim is fine."""
        store = self._opened()
        began = time.perf_counter()
        jobs = store.claim_batch(self.worker_id, self.settings.batch_size)
        claim_ms = _milliseconds_since(began)
        if not jobs:
            return
        with self._pulse.holding(jobs) as held:
            try:
                self._answer(jobs, held, claim_ms)
            except JobsGone:
                log.info("nobody waits for %s any more", ", ".join(job.id for job in jobs))
            except Exception as error:  # noqa: BLE001 - whatever it is, these jobs are settled by it
                self._settle_failure(held, jobs, error)
        waiting = store.next_queued()
        if waiting is not None:
            self._doorbell.ring(waiting)

    def _answer(self, jobs: Sequence[ClaimedJob], held: Held, claim_ms: float) -> None:
        engine = self._engine or self._load()
        store = self._opened()
        began = time.perf_counter()
        images = [engine.decode(store.image(job.id)) for job in jobs]
        decode_ms = _milliseconds_since(began)
        began = time.perf_counter()
        results = engine.run(jobs, images, lambda *step: self._pulse.report(held, *step))
        engine_ms = _milliseconds_since(began)
        # The thread has nothing to add to an answer, and would only get in its way.
        held.step = None
        for job, result in zip(jobs, results, strict=True):
            timings = {
                "queue_wait_ms": round(job.queue_wait_ms, 3),
                "claim_ms": claim_ms,
                "decode_ms": decode_ms,
                "engine_ms": engine_ms,
                "batch": len(jobs),
            }
            if store.finish(job.token, result, timings):
                self._answered += 1
            else:
                log.info("the answer to %s came too late and is discarded", job.id, extra={"job_id": job.id})
            held.drop(job.token)

    def _settle_failure(self, held: Held, jobs: Sequence[ClaimedJob], error: Exception) -> None:
        """Decide what becomes of the jobs that an exception left without an answer."""
        store = self._opened()
        unanswered = [job for job in jobs if job.token in held.tokens]
        names = ", ".join(job.id for job in unanswered)
        if len(unanswered) > 1:
            # One of them may be the cause. Claims take jobs that were tried before one at a time, so next time it
            # fails alone.
            log.warning("a batch failed (%r); each is tried alone: %s", error, names, exc_info=error)
            store.release(
                [job.token for job in unanswered], f"computed together with others: {_named(error)}"
            )
            return
        for job in unanswered:
            if isinstance(error, StorageError):
                log.warning("%s: %s", job.id, error, extra={"job_id": job.id})
                store.release([job.token], str(error))
            elif isinstance(error, SoftTimeLimitExceeded):
                limit = self.settings.soft_time_limit_seconds
                message = f"The computation took longer than {limit:g} s and was stopped."
                log.error("%s: %s", job.id, message, extra={"job_id": job.id})
                store.fail(job.token, message, "time-limit")
            elif isinstance(error, DasError):
                log.error("%s: %s", job.id, error, extra={"job_id": job.id})
                store.fail(job.token, str(error), getattr(error, "code", "not-attributable"))
            else:
                log.error("%s failed", job.id, exc_info=error, extra={"job_id": job.id})
                store.fail(
                    job.token,
                    f"The computation failed unexpectedly ({_named(error)})."
                    f" The worker's log has the details under {job.id}.",
                    "internal-error",
                )

    def _opened(self) -> JobStore:
        if self._store is None:
            raise RuntimeError("the child has not been started")
        return self._store

    def _load(self) -> Engine:
        self._state = {"engine": "loading"}
        self._pulse.beat()
        began = time.perf_counter()
        try:
            engine = self._engine_factory(self.settings)
        except Exception as error:
            self._state = {"engine": "failed", "error": str(error)}
            self._pulse.beat()
            raise
        log.info("the engine is loaded after %.1f s", time.perf_counter() - began)
        self._engine = engine
        self._state = {**engine.describe(), "engine": "ready"}
        self._pulse.beat()
        return engine

    def _info(self) -> JsonObject:
        return {
            **self._state,
            "pid": os.getpid(),
            "parent_pid": os.getppid(),
            "rss_mb": round(psutil.Process().memory_info().rss / 1e6, 1),
            "answered": self._answered,
        }


def _milliseconds_since(began: float) -> float:
    return round((time.perf_counter() - began) * 1000, 3)


def _named(error: Exception) -> str:
    text = str(error).strip()
    first = text.splitlines()[0][:200] if text else ""
    return f"{type(error).__name__}: {first}" if first else type(error).__name__
