"""The sweeper: finds what would wait for ever and sets it going again.

It is a duty of the API's processes or of I/O workers (`app.duties`) and so goes on while every worker is dead. Of
several sweepers each job is found by one, and a bell too many is harmless.
"""

import logging
import time

from jobs.queue import Doorbell
from jobs.settings import Settings
from jobs.store import JobStore

log = logging.getLogger(__name__)

# The code of an answer that no worker could give.
UNHELD = "index-unheld"
# What a bell names that rings for no question.
NO_JOB = "look"


class Sweeper:
    """Sweeps; what it has seen before counts, so a process keeps one."""

    def __init__(self, settings: Settings, store: JobStore, doorbell: Doorbell) -> None:
        self._settings = settings
        self._store = store
        self._doorbell = doorbell
        # Since when it has been seen that nobody holds an index that jobs wait for.
        self._unheld: dict[str, float] = {}

    def sweep_once(self) -> None:
        """One sweep, and the bells that it calls for.

        A worker that finishes rings on while more is queued, so one bell a worker is enough however long the
        queue; and where that many bells lie untaken in the broker, none was lost.
        """
        self._give_up_unheld()
        workers = self._store.workers.known()
        listeners = max(1, sum(worker.fresh for worker in workers))
        if any(worker.ready and worker.info.get("due") for worker in workers):
            self._have_them_look(listeners)
        report = self._store.upkeep.sweep()
        for job_id in report.requeued:
            log.warning("%s lost its worker and is queued again", job_id)
        for job_id in report.failed:
            log.error("%s is given up", job_id)
        if not report.to_ring:
            return
        missing = listeners - (self._doorbell.waiting() or 0)
        for job_id in report.to_ring[: max(0, missing)]:
            log.info("ringing again for %s", job_id)
            if not self._doorbell.ring(job_id):
                return

    def _have_them_look(self, listeners: int) -> None:
        """Ring for workers that have an index to open or to let go, which they do when they hear a bell.

        Whoever is free hears it; one sweep after another, in the end it is those who have something to do.
        """
        waiting = self._doorbell.waiting()
        if waiting is not None and waiting < listeners:
            self._doorbell.ring(NO_JOB)

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
