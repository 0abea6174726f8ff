"""The child's other thread: it keeps leases, progress and heartbeats going while the main thread computes."""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from jobs.errors import JobsError
from jobs.models import ClaimedJob, JsonObject
from jobs.outages import OUTAGE
from jobs.settings import Settings
from jobs.store import JobStore

log = logging.getLogger(__name__)

# Progress is written at most this often; steps in between are passed over.
PROGRESS_EVERY_S = 0.1


class JobsGone(Exception):
    """Every job of the batch was cancelled, erased or given to another worker: there is nobody to compute for."""


class Held:
    """The leases of one batch, and which of them are lost."""

    def __init__(self, jobs: Sequence[ClaimedJob]) -> None:
        self._lock = threading.Lock()
        self._tokens = {job.token for job in jobs}
        self._lost: set[str] = set()
        # What is to be written, and what was reported last.
        self.step: tuple[str, int, int] | None = None
        self.reported: tuple[str, int, int] | None = None

    @property
    def tokens(self) -> list[str]:
        """Those still held, as far as is known."""
        with self._lock:
            return sorted(self._tokens - self._lost)

    def keep_only(self, asked: Sequence[str], held: set[str]) -> None:
        """Of those `asked` about, only `held` still stand."""
        with self._lock:
            self._lost |= set(asked) - held

    def drop(self, token: str) -> None:
        """This job is done with."""
        with self._lock:
            self._tokens.discard(token)


class Pulse:
    """The thread. Nothing that fails in it can fail a job: what couldn't be written is written at the next beat."""

    def __init__(
        self, settings: Settings, store: JobStore, worker_id: str, describe: Callable[[], JsonObject]
    ) -> None:
        self._settings = settings
        self._store = store
        self._worker_id = worker_id
        self._describe = describe
        self._held: Held | None = None
        self._wake = threading.Event()
        self._beat_now = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="pulse", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the thread after the write it is at."""
        self._stopping = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(self._settings.database_timeout_seconds)

    def beat(self) -> None:
        """Say at once how the worker is, because that has changed."""
        self._beat_now.set()
        self._wake.set()

    @contextlib.contextmanager
    def holding(self, jobs: Sequence[ClaimedJob]) -> Iterator[Held]:
        """Keep these leases alive for the length of the block."""
        held = self._held = Held(jobs)
        try:
            yield held
        finally:
            self._held = None

    def report(self, held: Held, stage: str, done: int, total: int) -> None:
        """From the main thread, between two steps: how far the batch is. Costs nothing but a flag.

        Raises:
            JobsGone: all of its jobs are lost; stop computing.
        """
        if not held.tokens:
            raise JobsGone
        if held.reported != (stage, done, total):
            held.reported = held.step = (stage, done, total)
            self._wake.set()

    def _run(self) -> None:
        next_beat = next_renewal = next_progress = 0.0
        renew_every = self._settings.lease_seconds / 3
        while not self._stopping:
            now = time.monotonic()
            if now >= next_beat or self._beat_now.is_set():
                self._beat_now.clear()
                self._try(self._heartbeat)
                next_beat = now + self._settings.heartbeat_seconds
            held = self._held
            if held is not None:
                if held.step is not None and now >= next_progress:
                    self._try(self._write_progress, held)
                    next_progress = now + PROGRESS_EVERY_S
                    next_renewal = now + renew_every
                elif now >= next_renewal:
                    self._try(self._renew, held)
                    next_renewal = now + renew_every
            self._wake.clear()
            due = [next_beat]
            held = self._held
            if held is not None:
                # Without jobs there is nothing to renew, and a date in the past would make this loop spin.
                due.append(next_renewal)
                if held.step is not None:
                    due.append(next_progress)
            # A batch that is taken up while this sleeps has a fresh lease; the next renewal is in time for it.
            self._wake.wait(max(0.0, min(min(due) - time.monotonic(), renew_every)))

    def _try(self, write: Callable[..., None], *arguments: object) -> None:
        try:
            write(*arguments)
            OUTAGE.worked("signs of life")
        except JobsError as error:
            OUTAGE.failed("signs of life", error)
        except Exception:
            log.exception("a sign of life could not be written")

    def _heartbeat(self) -> None:
        self._store.workers.heartbeat(self._worker_id, self._describe())

    def _renew(self, held: Held) -> None:
        tokens = held.tokens
        if tokens:
            held.keep_only(tokens, self._store.leases.renew(tokens))

    def _write_progress(self, held: Held) -> None:
        step, tokens = held.step, held.tokens
        held.step = None
        if step is not None and tokens:
            held.keep_only(tokens, self._store.leases.progress(tokens, *step))
