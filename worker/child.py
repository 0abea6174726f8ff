"""The worker's child process: loads the engine once, then answers bells one batch at a time."""

import contextlib
import logging
import math
import mmap
import os
import signal
import struct
import time
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol

import psutil
from celery.exceptions import SoftTimeLimitExceeded

from das.errors import DasError
from jobs.claims import Waiting
from jobs.errors import StorageError
from jobs.models import ClaimedJob, JobState, JsonObject, utc_now
from jobs.process import end_with_parent
from jobs.queue import Doorbell
from jobs.searches import SectionTask
from jobs.settings import Settings
from jobs.store import JobStore
from jobs.tracing import Tracing, open_tracing
from worker import spans
from worker.lease import Held, JobsGone, Pulse
from worker.linger import Linger
from worker.preference import to_load
from worker.spans import Marks
from worker.together import Lead, Together
from worker.trials import Trials

log = logging.getLogger(__name__)

_NUMBER = struct.Struct("q")
_LOADING, _ENDING, _UP = (place * _NUMBER.size for place in range(3))
# Loading takes seconds and what made it fail is seldom gone at once.
LOAD_AGAIN_S = 30.0
# A version that took longer than a batch may would take as long again, while questions wait.
OVERDUE_AGAIN_S = 3600.0
LONG_AGO = datetime.min.replace(tzinfo=UTC)
# Where API and worker share the cores, a page that somebody waits for goes before an answer that takes longer anyway.
NICENESS = 10

Progress = Callable[[str, int, int], None]


class Engine(Protocol):
    """What computes. Made by an `EngineFactory` in the child and kept for its lifetime."""

    def describe(self) -> JsonObject:
        """What it has loaded, for the heartbeat.

        `indexes` are those that it answers about, `loaded` those of them that are in memory; `refused`, if given,
        those that it found and can't open, each with the reason.
        """
        ...

    def due(self) -> bool:
        """Whether `keep_up` has something to do. Quick; also asked by the thread that gives signs of life."""
        ...

    def keep_up(self, asked: Collection[str] = ()) -> bool:
        """Open what is new and let go what is over, and say whether anything was tried or changed.

        `asked` are the ids of the indexes that unanswered questions name: those stay, or are opened again. What can't
        be opened is left out.
        """
        ...

    def load(self, index_id: str) -> None:
        """Have an index in memory that it answers about, whatever makes way; refused where that can't be done."""
        ...

    def leave_out(self, index_id: str, reason: str) -> None:
        """Refuse an index for an hour; `reason` is a sentence."""
        ...

    def load_seconds(self, index_id: str) -> float:
        """How long loading an index took the last time; 0 where that isn't known."""
        ...

    def decode(self, image_png: bytes) -> Any:
        """The stored image as the engine takes it."""
        ...

    def run(
        self,
        jobs: Sequence[ClaimedJob],
        images: Sequence[Any],
        progress: Progress,
        lead: Lead | None = None,
    ) -> Sequence[JsonObject]:
        """The results of jobs of the same index, which is loaded, method and candidates, in their order.

        It calls `progress(stage, done, total)` between its steps and lets through what that raises. By `lead` it may
        have other workers take part in a search.
        """
        ...

    def score_section(self, task: SectionTask, alive: Callable[[], None]) -> bytes:
        """What is found in a section of an index, which is loaded, for another worker that leads the search.

        It calls `alive` between its steps and lets through what that raises.
        """
        ...


Tell = Callable[[str], None]


class EngineFactory(Protocol):
    """Makes the engine, which loads what it finds and has room for, and tells what it is loading as it goes on."""

    def __call__(self, settings: Settings, tell: Tell, /) -> Engine: ...

    def found(self, settings: Settings, /) -> list[str]:
        """The ids of the indexes that it would open now. Quick; nothing is loaded."""
        ...


class Child:
    """Made in the parent, used in the child that is forked from it; opens nothing before `start`."""

    def __init__(self, settings: Settings, engine_factory: EngineFactory, worker_id: str) -> None:
        self.settings = settings
        self.worker_id = worker_id
        self._engine_factory = engine_factory
        self._engine: Engine | None = None
        self._state: JsonObject = {"engine": "loading"}
        self._load_again_at = 0.0
        # Until then nothing is opened or let go; `inf`: at the next bell.
        self._keep_up_again_at = 0.0
        self._loaded_at = LONG_AGO
        self._trials = Trials()
        self._answered = 0
        self._linger = Linger(settings)
        self._store: JobStore | None = None
        self._tracing = Tracing()
        # A page that parent and child share: the process id of the child while it loads its engine, whether the
        # worker is to end, and the child's process id once it hears bells. The child writes the first and then reads
        # the second, the parent the other way round.
        self._shared = mmap.mmap(-1, 3 * _NUMBER.size)

    def start(self) -> None:
        """In the new child: connect, give signs of life, and load the engine, so that no query waits for that."""
        # A parent that is killed has nobody who would hear of this one's answer.
        end_with_parent(os.getppid(), signal.SIGKILL)
        _NUMBER.pack_into(self._shared, _LOADING, os.getpid())
        if _NUMBER.unpack_from(self._shared, _ENDING)[0]:
            # Celery replaces a child that died, also while it is told to end.
            os._exit(0)
        self._store = JobStore(self.settings)
        self._tracing = open_tracing("das-worker")
        self._doorbell = Doorbell(self.settings)
        self._together = Together(
            self.settings, self._store.searches, self._store.workers, self._doorbell, self.worker_id
        )
        self._pulse = Pulse(self.settings, self._store, self.worker_id, self._info)
        self._pulse.start()
        # From here on for this thread and those that it starts; the signs of life keep their rank.
        os.nice(NICENESS)
        self._engine_or_none()
        _NUMBER.pack_into(self._shared, _LOADING, 0)
        _NUMBER.pack_into(self._shared, _UP, os.getpid())

    def about_to_fork(self) -> None:
        """In the parent, before a child is forked: the one before it, if there was one, hears nothing any more."""
        _NUMBER.pack_into(self._shared, _UP, 0)

    def is_up(self) -> bool:
        """In the parent: whether the child has done what `start` does, and would hear a bell at once."""
        (pid,) = _NUMBER.unpack_from(self._shared, _UP)
        if not pid:
            return False
        try:
            # One that has died is there until Celery looks for it, who alone may collect it.
            return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
        except ChildProcessError:
            return False

    def end_if_loading(self) -> None:
        """In the parent, which was told to end: end the child if it is loading. It holds no job yet."""
        _NUMBER.pack_into(self._shared, _ENDING, 1)
        (pid,) = _NUMBER.unpack_from(self._shared, _LOADING)
        if pid:
            log.info("the worker is told to end while it loads, and does so at once")
            # The child may have died and not be collected yet; nobody else has its number as long.
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def stop(self) -> None:
        """The child ends in good order."""
        if self._store is not None:
            self._pulse.stop()
            self._doorbell.close()
            self._store.close()
            self._tracing.close()

    def drain(self, rung_for: str, passed_on: int = 0) -> None:
        """Answer one bell: claim a batch, compute, write; ring again if more waits. Nothing to claim is fine."""
        store = self._opened()
        engine = self._engine_or_none()
        if engine is None:
            self._pass_on(rung_for, (), passed_on)
            self._together.pass_on(rung_for, passed_on)
            return
        # Somebody else's question is half answered, so it goes before all that waits.
        helped = self._together.help()
        self._together.pass_on(rung_for, passed_on)
        if helped and self._doorbell.ring(rung_for, passed_on):
            # A batch has a bell of its own, so that helping takes nothing of its time.
            return
        if self._kept_up(engine) and self._doorbell.ring(rung_for, passed_on):
            # The batch has its own bell, so that what was loaded takes nothing of its time.
            return
        if self._loaded_another(engine) and self._doorbell.ring(rung_for, passed_on):
            return
        loaded = engine.describe()["loaded"]
        self._linger.wait(lambda most: store.leases.questions_waiting(loaded, most))
        began = time.perf_counter()
        jobs = store.leases.claim(self.worker_id, self.settings.batch_size, loaded)
        claim_ms = _milliseconds_since(began)
        if rung_for not in {job.id for job in jobs}:
            self._pass_on(rung_for, loaded, passed_on)
        if not jobs:
            return
        marks, failed = Marks(), None
        with self._pulse.holding(jobs) as leases:
            try:
                self._answer(engine, jobs, leases, claim_ms, marks)
            except JobsGone:
                log.info("nobody waits for %s any more", ", ".join(job.id for job in jobs))
                failed = "gone"
            except Exception as error:  # noqa: BLE001 - whatever it is, these jobs are settled by it
                self._settle_failure(leases, jobs, error)
                failed = type(error).__name__
        self._linger.after(jobs)
        spans.tell(self._tracing, jobs, marks, failed)
        # Where memory ran out, others made way.
        self._state = {**engine.describe(), "engine": "ready"}
        waiting = store.leases.next_queued(self._state["loaded"])
        if waiting is None and (others := self._to_load(engine)) is not None:
            waiting = others.first
        if waiting is not None:
            self._doorbell.ring(waiting)
        # What came meanwhile was rung for when only others could hear it.
        self._together.help()

    def _kept_up(self, engine: Engine) -> bool:
        """Open what is new and let go what is over, but not at two bells in a row; whether there was anything.

        However often files change, questions are answered in between.
        """
        again, self._keep_up_again_at = self._keep_up_again_at, 0.0
        if time.monotonic() < again:
            self._keep_up_again_at = 0.0 if again == math.inf else again
            return False
        try:
            if not engine.keep_up(self._opened().upkeep.open_indexes()):
                return False
            self._keep_up_again_at = math.inf
        except SoftTimeLimitExceeded:
            log.error(
                "a version of an index isn't loaded after %g s (DAS_SOFT_TIME_LIMIT_SECONDS): what is loaded answers,"
                " and it is tried again in an hour. Start the worker anew to have it loaded without that limit.",
                self.settings.soft_time_limit_seconds,
            )
            self._keep_up_again_at = time.monotonic() + OVERDUE_AGAIN_S
        self._tell_ready(engine)
        return True

    def _loaded_another(self, engine: Engine) -> bool:
        """Load the index whose questions come next where it isn't in memory; whether that was tried."""
        others = self._to_load(engine)
        if others is None:
            return False
        with self._trials.of(others.index_id):
            engine.load(others.index_id)
        self._loaded_at = utc_now()
        self._tell_ready(engine)
        return True

    def _to_load(self, engine: Engine) -> Waiting | None:
        """The questions whose index is to be loaded before others are claimed; None mostly."""
        known = engine.describe()
        if len(known["loaded"]) == len(known["indexes"]):
            return None
        store = self._opened()
        waiting = store.leases.waiting_by_index(known["indexes"])
        if all(one.index_id in known["loaded"] for one in waiting):
            return None
        elsewhere: set[str] = set()
        for worker in store.workers.known():
            if worker.fresh and worker.id != self.worker_id:
                elsewhere.update(worker.info.get("loaded") or (), [str(worker.info.get("loading"))])
        return to_load(waiting, known["loaded"], elsewhere, engine.load_seconds, self._loaded_at, utc_now())

    def _pass_on(self, job_id: str, held: Sequence[str], passed_on: int) -> None:
        """Let the bell of a job about an index that this worker lacks be heard by another, each worker once.

        Should those that hold it all be busy, they look for it themselves when they have done.
        """
        store = self._opened()
        job = store.get(job_id)
        if job is None or job.state != JobState.QUEUED or job.index_id in held:
            return
        if passed_on + 1 < sum(worker.fresh for worker in store.workers.known()):
            self._doorbell.ring(job_id, passed_on + 1)

    def _answer(
        self, engine: Engine, jobs: Sequence[ClaimedJob], held: Held, claim_ms: float, marks: Marks
    ) -> None:
        store = self._opened()

        def progress(stage: str, done: int, total: int) -> None:
            marks.reach(stage)
            self._pulse.report(held, stage, done, total)

        began = time.perf_counter()
        marks.reach("decoding")
        images = [engine.decode(store.image(job.id)) for job in jobs]
        decode_ms = _milliseconds_since(began)
        began = time.perf_counter()
        marks.reach("scoring")
        results = engine.run(jobs, images, progress, self._together.search)
        engine_ms = _milliseconds_since(began)
        marks.reach("writing")
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
            if store.leases.finish(job.token, result, timings):
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
            # Its text may quote what another owner asked.
            kind = type(error).__name__
            store.leases.release(
                [job.token for job in unanswered], f"computed together with others, which failed with {kind}"
            )
            return
        for job in unanswered:
            if isinstance(error, StorageError):
                log.warning("%s: %s", job.id, error, extra={"job_id": job.id})
                store.leases.release([job.token], str(error))
            elif isinstance(error, SoftTimeLimitExceeded):
                limit = self.settings.soft_time_limit_seconds
                message = f"The computation took longer than {limit:g} s and was stopped."
                log.error("%s: %s", job.id, message, extra={"job_id": job.id})
                store.leases.fail(job.token, message, "time-limit")
            elif isinstance(error, DasError):
                log.error("%s: %s", job.id, error, extra={"job_id": job.id})
                store.leases.fail(job.token, str(error), getattr(error, "code", "not-attributable"))
            else:
                log.error("%s failed", job.id, exc_info=error, extra={"job_id": job.id})
                store.leases.fail(
                    job.token,
                    f"The computation failed unexpectedly ({_named(error)})."
                    f" The worker's log has the details under {job.id}.",
                    "internal-error",
                )

    def _opened(self) -> JobStore:
        if self._store is None:
            raise RuntimeError("the child has not been started")
        return self._store

    def _engine_or_none(self) -> Engine | None:
        """The engine, loaded if need be; None where that failed, now or less than `LOAD_AGAIN_S` ago."""
        if self._engine is None and time.monotonic() >= self._load_again_at:
            try:
                return self._load()
            except Exception:
                # The heartbeat says so, and no question is put to this worker meanwhile.
                log.exception("the engine can't be loaded; a bell after %g s tries again", LOAD_AGAIN_S)
                self._load_again_at = time.monotonic() + LOAD_AGAIN_S
        return self._engine

    def _load(self) -> Engine:
        self._tell("the libraries")
        began = time.perf_counter()
        try:
            engine = self._engine_factory(self.settings, self._tell)
        except Exception as error:
            self._state = {"engine": "failed", "error": str(error)}
            self._pulse.beat()
            raise
        log.info("the engine is loaded after %.1f s", time.perf_counter() - began)
        self._engine = engine
        self._together.serve(engine, lambda: engine.describe()["loaded"])
        if (index_id := self._trials.left_out()) is not None:
            engine.leave_out(
                index_id,
                f"{index_id} ended the worker's process each time that it was loaded, as too little memory does; it"
                " is tried again in an hour.",
            )
        self._tell_ready(engine)
        return engine

    def _tell_ready(self, engine: Engine) -> None:
        self._state = {**engine.describe(), "engine": "ready"}
        self._pulse.beat()

    def _tell(self, what: str) -> None:
        # One that failed counts as failed until it has loaded: trying again would keep questions waiting. One that
        # is ready stays so: between two batches it loads another index, and is as busy as with a batch.
        begun = {"engine": "loading"} if self._state["engine"] == "loading" else self._state
        self._state = {**begun, "loading": what}
        self._pulse.beat()

    def _info(self) -> JsonObject:
        # A question about an index that was added since is worth taking: its bell makes this worker open it.
        state = self._state
        indexes = {*state.get("indexes", ()), *self._engine_factory.found(self.settings)}
        return {
            **state,
            "indexes": sorted(indexes - {*state.get("refused", ())}),
            # About these it answers by now, whether they are in memory or were and make way for each other.
            "answers": state.get("indexes", []),
            "loaded": state.get("loaded", []),
            "due": self._engine is not None and self._engine.due(),
            "pid": os.getpid(),
            "parent_pid": os.getppid(),
            "rss_mb": round(psutil.Process().memory_info().rss / 1e6, 1),
            "answered": self._answered,
            "searches": self._together.told(),
        }


def _milliseconds_since(began: float) -> float:
    return round((time.perf_counter() - began) * 1000, 3)


def _named(error: Exception) -> str:
    text = str(error).strip()
    first = text.splitlines()[0][:200] if text else ""
    return f"{type(error).__name__}: {first}" if first else type(error).__name__
