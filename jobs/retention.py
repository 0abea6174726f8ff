"""Removing what has been kept for long enough: pictures, questions, and batches without a question left.

Any number of processes may do it at once, each a bounded part in every round; what one has taken others pass over.
"""

import logging
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import exists, func, select, update

from jobs.audit import SERVICE
from jobs.batch_rows import Batch, BatchItem, BatchState, ItemState
from jobs.batches import Batches
from jobs.errors import StorageError
from jobs.keeping import ENDED
from jobs.models import Job, JobState, utc_now
from jobs.store import JobStore

logger = logging.getLogger(__name__)

# What one round takes; a service that was off for long has a lot to catch up with.
UPLOADS_AT_ONCE = 200
RESULTS_AT_ONCE = 50
BATCHES_AT_ONCE = 5


@dataclass(frozen=True)
class Removed:
    """Ids of what a round removed: of questions whose picture went, of questions, of batches."""

    uploads: list[str] = field(default_factory=list)
    results: list[str] = field(default_factory=list)
    batches: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Due:
    """How many pictures and whole questions go by a moment."""

    uploads: int
    results: int


class Retention:
    """Removes what is due. Its methods block."""

    def __init__(self, store: JobStore, batches: Batches) -> None:
        self._store = store
        self._batches = batches
        self._database = store.database

    def round(self, now: datetime | None = None) -> Removed:
        """Remove what is due at this moment, so much of it at once.

        Raises:
            StorageError: something can't be removed now. What is recorded as gone and lies there still is found by
                `Upkeep.tidy`, the rest by the next round.
        """
        now = now or utc_now()
        results = self._results_due(now)
        if results:
            self._store.erase_all(results, SERVICE)
        uploads = self._take_uploads(now)
        failed: StorageError | None = None
        for job_id in uploads:
            try:
                self._store.blobs.delete(job_id)
            except StorageError as error:
                failed = error
        batches = self._batches_due(now)
        for batch_id in batches:
            self._batches.erase(batch_id, by=SERVICE)
        if failed is not None:
            raise failed
        if results or uploads or batches:
            logger.info(
                "kept for long enough: %d pictures, %d questions and %d batches were removed",
                len(uploads),
                len(results),
                len(batches),
            )
        return Removed(uploads, results, batches)

    def due(self, moment: datetime) -> Due:
        """What goes by then if nothing else becomes of it."""
        keeping, uploads, results = self._store.keeping, 0, 0
        with self._database.read() as session:
            counted = select(func.count()).select_from(Job).where(Job.state.in_(ENDED))
            there = counted.where(Job.upload_gone_at.is_(None))
            for whose, before in keeping.uploads_over(session, moment):
                uploads += session.scalar(there.where(Job.finished_at < before, whose)) or 0
            for whose, before in keeping.results_over(session, moment):
                results += session.scalar(counted.where(Job.finished_at < before, whose)) or 0
        return Due(uploads, results)

    def _results_due(self, now: datetime) -> list[str]:
        due: list[str] = []
        with self._database.read() as session:
            for whose, before in self._store.keeping.results_over(session, now):
                due += session.scalars(
                    select(Job.id)
                    .where(Job.state.in_(ENDED), Job.finished_at < before, whose)
                    .order_by(Job.finished_at)
                    .limit(RESULTS_AT_ONCE - len(due))
                )
                if len(due) >= RESULTS_AT_ONCE:
                    break
        return due

    def _take_uploads(self, now: datetime) -> list[str]:
        """Record that pictures are gone, each by one process; that removes them next.

        In this order, since a picture that nothing is known of is found by tidying up, and one that is told of and
        isn't there would be a fault to whoever reads it.
        """
        taken: list[str] = []
        with self._database.read() as session:
            over = self._store.keeping.uploads_over(session, now)
            due = [
                select(Job.id)
                .where(Job.state.in_(ENDED), Job.upload_gone_at.is_(None), Job.finished_at < before, whose)
                .order_by(Job.finished_at)
                for whose, before in over
            ]
            # Almost always there is nothing to do, and a reader holds nobody up.
            if all(session.scalar(which.limit(1)) is None for which in due):
                return taken
        with self._database.write() as session:
            for which in due:
                left = UPLOADS_AT_ONCE - len(taken)
                ids = session.scalars(which.limit(left).with_for_update(skip_locked=True)).all()
                if ids:
                    gone = update(Job).where(Job.id.in_(ids))
                    session.execute(gone.values(upload_gone_at=now, version=Job.version + 1))
                taken += ids
                if len(taken) >= UPLOADS_AT_ONCE:
                    break
        return taken

    def _batches_due(self, now: datetime) -> list[str]:
        """Batches of which no question is left and nothing waits, nor has waited since the questions' time."""
        due: list[str] = []
        of_it = BatchItem.batch_id == Batch.id
        question = exists().where(of_it, Job.id == BatchItem.job_id, Job.state != JobState.ERASED)
        with self._database.read() as session:
            for whose, before in self._store.keeping.results_over(session, now, Batch.owner):
                # Whoever reads an item moves `claimable_at` on, to half a minute ahead: nearly when it ended.
                open_ = exists().where(
                    of_it, (BatchItem.state == ItemState.WAITING) | (BatchItem.claimable_at >= before)
                )
                due += session.scalars(
                    select(Batch.id)
                    .where(
                        Batch.state.in_((BatchState.OPEN, BatchState.CANCELLED)),
                        Batch.created_at < before,
                        whose,
                        ~open_,
                        ~question,
                    )
                    .order_by(Batch.created_at)
                    .limit(BATCHES_AT_ONCE - len(due))
                )
                if len(due) >= BATCHES_AT_ONCE:
                    break
        return due
