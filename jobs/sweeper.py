"""The sweeper: finds what would wait for ever and sets it going again.

It runs in the API's process (started by `das serve`) and so goes on while every worker is dead. With several
API processes there are several sweepers; each job is found by one of them, and a bell too many is harmless.
"""

import logging
import threading
import time
from collections.abc import Callable

from jobs.queue import Doorbell
from jobs.settings import Settings
from jobs.store import JobStore

log = logging.getLogger(__name__)

TIDY_EVERY_S = 600.0
# The code of an answer that no worker could give.
UNHELD = "index-unheld"


class Sweeper:
    """A thread that sweeps every `sweep_seconds` until `stop`; a sweep that fails is logged.

    `tell_round` is told of each whether it could be made.
    """

    def __init__(
        self,
        settings: Settings,
        store: JobStore,
        doorbell: Doorbell,
        tell_round: Callable[[bool], None] = lambda _: None,
    ) -> None:
        self._settings = settings
        self._store = store
        self._doorbell = doorbell
        self._stopping = threading.Event()
        # Since when it has been seen that nobody holds an index that jobs wait for.
        self._unheld: dict[str, float] = {}
        self._thread = threading.Thread(target=self._run, name="sweeper", daemon=True)
        self._tell_round = tell_round

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
        if self._store.database.to_forget:
            self._store.database.forget()
        self._give_up_unheld()
        report = self._store.upkeep.sweep()
        for job_id in report.requeued:
            log.warning("%s lost its worker and is queued again", job_id)
        for job_id in report.failed:
            log.error("%s is given up", job_id)
        if not report.to_ring:
            return
        listeners = max(1, sum(worker.fresh for worker in self._store.workers.known()))
        missing = listeners - (self._doorbell.waiting() or 0)
        for job_id in report.to_ring[: max(0, missing)]:
            log.info("ringing again for %s", job_id)
            if not self._doorbell.ring(job_id):
                return

    def _give_up_unheld(self) -> None:
        """End jobs about indexes that no worker has held for `index_wait_seconds`, as far as this sweeper saw."""
        waiting = self._store.upkeep.waiting_indexes()
        unheld = waiting - self._store.workers.reach() if waiting else set()
        now = time.monotonic()
        self._unheld = {index_id: self._unheld.get(index_id, now) for index_id in unheld}
        for index_id, since in self._unheld.items():
            if now - since < self._settings.index_wait_seconds:
                continue
            reason = f"No worker has held the index {index_id} for {self._settings.index_wait_seconds:g} s."
            why = self._store.workers.why_unheld(index_id)
            reason += f" A worker could not load it: {why.rstrip('.')}." if why else ""
            reason += " Once one whose DAS_INDEX_DIR has it runs, send the picture again."
            for job_id in self._store.leases.fail_waiting(index_id, reason, UNHELD):
                log.error("%s is given up: no worker holds %s", job_id, index_id)

    def _run(self) -> None:
        self._store.database.keep_reserve()
        tidied = time.monotonic()
        while not self._stopping.wait(self._settings.sweep_seconds):
            try:
                self.sweep_once()
                self._tell_round(True)
                if time.monotonic() - tidied > TIDY_EVERY_S:
                    tidied = time.monotonic()
                    self._store.upkeep.tidy()
            except Exception:
                self._tell_round(False)
                log.exception("a sweep failed; the next is in %g s", self._settings.sweep_seconds)
