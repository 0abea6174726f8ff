"""What keeps the job protocol going: the sweep, and tidying up."""

from datetime import datetime, timedelta

from sqlalchemy import func, select, update

from jobs.blobs import BlobStore
from jobs.claims import Leases
from jobs.database import Database
from jobs.idempotency import Idempotency
from jobs.models import OPEN_STATES, Job, JobState, SweepReport, utc_now
from jobs.searches import Searches
from jobs.settings import Settings
from jobs.workers import Workers

# An image without a job is either just being accepted or was orphaned by a kill; after this, the latter.
ORPHAN_AFTER = timedelta(minutes=10)


class Upkeep:
    """The housekeeping of the store."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        blobs: BlobStore,
        leases: Leases,
        workers: Workers,
        idempotency: Idempotency,
        searches: Searches,
    ) -> None:
        self._settings = settings
        self._database = database
        self._blobs = blobs
        self._leases = leases
        self._workers = workers
        self._idempotency = idempotency
        self._searches = searches

    def sweep(self, now: datetime | None = None) -> SweepReport:
        """Find jobs that would wait for ever, because their lease expired or their bell was lost, and forget searches
        that nobody leads any more.

        Any number of processes may sweep at once: each job is found by one of them. The caller rings for
        `SweepReport.to_ring`.
        """
        self._searches.forget_old()
        now = now or utc_now()
        expired = (Job.state == JobState.RUNNING, Job.lease_expires_at < now)
        unheard = now - timedelta(seconds=self._settings.rering_seconds)
        overdue = (Job.state == JobState.QUEUED, func.coalesce(Job.rung_at, Job.created_at) < unheard)
        with self._database.read() as session:
            # Almost always there is nothing to do, and a reader holds nobody up.
            work = [session.scalar(select(Job.id).where(*which).limit(1)) for which in (expired, overdue)]
        if not any(work):
            return SweepReport()
        requeued, failed = self._leases.release_expired(now)
        with self._database.write() as session:
            rung = session.scalars(update(Job).where(*overdue).values(rung_at=now).returning(Job.id)).all()
        return SweepReport(requeued=requeued, failed=failed, to_ring=sorted({*rung, *requeued}))

    def waiting_indexes(self) -> set[str]:
        """The indexes that jobs wait for."""
        with self._database.read() as session:
            return set(session.scalars(select(Job.index_id).where(Job.state == JobState.QUEUED).distinct()))

    def open_indexes(self) -> set[str]:
        """The indexes that questions without an answer name, whether they wait or are being computed."""
        with self._database.read() as session:
            return set(session.scalars(select(Job.index_id).where(Job.state.in_(OPEN_STATES)).distinct()))

    def tidy(self) -> None:
        """Now and then: remove images whose job is erased, has had its time or was never written, forget silent
        workers and old idempotency keys, and see that there is room for erasing.

        Raises:
            StorageError: an image can't be removed.
        """
        self._database.keep_reserve()
        ids = self._blobs.settled_ids(ORPHAN_AFTER)
        self._workers.forget_silent()
        self._idempotency.forget_old()
        with self._database.read() as session:
            kept = select(Job.id).where(Job.state != JobState.ERASED, Job.upload_gone_at.is_(None))
            wanted = set(session.scalars(kept))
        for job_id in ids:
            if job_id not in wanted:
                self._blobs.delete(job_id)
