"""What keeps the job protocol going: workers' signs of life, the sweep, and tidying up."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import delete, func, select, update

from jobs.blobs import BlobStore
from jobs.claims import LeaseProtocol, Notify
from jobs.database import Database
from jobs.models import Job, JobState, JsonObject, SweepReport, WorkerBeat, WorkerInfo, utc_now
from jobs.settings import Settings

# A worker that was silent for this long is no longer listed.
FORGET_WORKER_AFTER = timedelta(hours=1)
# An image without a job is either just being accepted or was orphaned by a kill; after this, the latter.
ORPHAN_AFTER = timedelta(minutes=10)


class Upkeep(LeaseProtocol):
    """The housekeeping half of `JobStore`."""

    def __init__(self, settings: Settings, database: Database, blobs: BlobStore, notify: Notify) -> None:
        super().__init__(settings, database, notify)
        self.blobs = blobs

    def heartbeat(self, worker_id: str, info: JsonObject) -> None:
        """A worker's sign of life. `info["engine"]` is "loading", "ready" or "failed"."""
        now = utc_now()
        with self.database.write() as session:
            beat = session.get(WorkerBeat, worker_id)
            if beat is None:
                session.add(WorkerBeat(id=worker_id, started_at=now, seen_at=now, info=info))
            else:
                beat.seen_at, beat.info = now, info

    def retire(self, worker_id: str) -> None:
        """Take a worker that stopped in good order off the list."""
        with self.database.write() as session:
            session.execute(delete(WorkerBeat).where(WorkerBeat.id == worker_id))

    def workers(self) -> Sequence[WorkerInfo]:
        """The workers that gave a sign of life within the last hour, the latest to speak first."""
        now = utc_now()
        stale = timedelta(seconds=self.settings.stale_after_seconds)
        with self.database.read() as session:
            beats = session.scalars(select(WorkerBeat).order_by(WorkerBeat.seen_at.desc())).all()
        return [
            WorkerInfo(
                id=beat.id,
                started_at=beat.started_at,
                seen_at=beat.seen_at,
                fresh=now - beat.seen_at < stale,
                info=beat.info,
            )
            for beat in beats
        ]

    def sweep(self, now: datetime | None = None) -> SweepReport:
        """Find jobs that would wait for ever, because their lease expired or their bell was lost.

        Any number of processes may sweep at once: each job is found by one of them. The caller rings for
        `SweepReport.to_ring`.
        """
        now = now or utc_now()
        expired = (Job.state == JobState.RUNNING, Job.lease_expires_at < now)
        unheard = now - timedelta(seconds=self.settings.rering_seconds)
        overdue = (Job.state == JobState.QUEUED, func.coalesce(Job.rung_at, Job.created_at) < unheard)
        with self.database.read() as session:
            # Almost always there is nothing to do, and a reader holds nobody up.
            work = [session.scalar(select(Job.id).where(*which).limit(1)) for which in (expired, overdue)]
        if not any(work):
            return SweepReport()
        requeued, failed = self.release_expired(now)
        with self.database.write() as session:
            rung = session.scalars(update(Job).where(*overdue).values(rung_at=now).returning(Job.id)).all()
        return SweepReport(requeued=requeued, failed=failed, to_ring=sorted({*rung, *requeued}))

    def tidy(self) -> None:
        """Now and then: remove images whose job is erased or was never written, and forget silent workers.

        Raises:
            StorageError: an image can't be removed.
        """
        ids = self.blobs.settled_ids(ORPHAN_AFTER)
        with self.database.write() as session:
            session.execute(delete(WorkerBeat).where(WorkerBeat.seen_at < utc_now() - FORGET_WORKER_AFTER))
            wanted = set(session.scalars(select(Job.id).where(Job.state != JobState.ERASED)))
        for job_id in ids:
            if job_id not in wanted:
                self.blobs.delete(job_id)
