"""The sweeper: finds what would wait for ever and sets it going again.

It runs in the API's process (started by `das serve`) and so goes on while every worker is dead. With several
API processes there are several sweepers; each job is found by one of them, and a bell too many is harmless.
"""

import logging
import threading
import time

from jobs.queue import Doorbell
from jobs.settings import Settings
from jobs.store import JobStore

log = logging.getLogger(__name__)

TIDY_EVERY_S = 600.0


class Sweeper:
    """A thread that sweeps every `sweep_seconds` until `stop`; a sweep that fails is logged."""

    def __init__(self, settings: Settings, store: JobStore, doorbell: Doorbell) -> None:
        self._settings = settings
        self._store = store
        self._doorbell = doorbell
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sweeper", daemon=True)

    def start(self) -> None:
        """Begin to sweep."""
        self._thread.start()

    def stop(self) -> None:
        """Stop after the sweep that is being made."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def sweep_once(self) -> None:
        """One sweep, and the bells that it calls for.

        A worker that finishes rings on while more is queued, so one bell a worker is enough however long the
        queue; and where that many bells lie untaken in the broker, none was lost.
        """
        report = self._store.sweep()
        for job_id in report.requeued:
            log.warning("%s lost its worker and is queued again", job_id)
        for job_id in report.failed:
            log.error("%s is given up", job_id)
        if not report.to_ring:
            return
        listeners = max(1, sum(worker.fresh for worker in self._store.workers()))
        missing = listeners - (self._doorbell.waiting() or 0)
        for job_id in report.to_ring[: max(0, missing)]:
            log.info("ringing again for %s", job_id)
            if not self._doorbell.ring(job_id):
                return

    def _run(self) -> None:
        tidied = time.monotonic()
        while not self._stopping.wait(self._settings.sweep_seconds):
            try:
                self.sweep_once()
                if time.monotonic() - tidied > TIDY_EVERY_S:
                    tidied = time.monotonic()
                    self._store.tidy()
            except Exception:
                log.exception("a sweep failed; the next is in %g s", self._settings.sweep_seconds)
