"""`JobStore`: all that is done to jobs. The database is the truth; the queue only rings.

Its methods block for a few milliseconds; from an event loop, call them in a thread.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import delete, func, select, update

from jobs.blobs import BlobStore
from jobs.claims import NO_LEASE, Notify, record_event
from jobs.database import Database
from jobs.errors import BadCursor, JobNotFound, QueueFull
from jobs.ids import PREFIX, new_job_id
from jobs.models import (
    OPEN_STATES,
    Job,
    JobEvent,
    JobFilters,
    JobState,
    JsonObject,
    NewJob,
    Page,
    Stage,
    utc_now,
)
from jobs.notify import Notifier
from jobs.settings import Settings
from jobs.upkeep import Upkeep

# What a tombstone keeps is id, state and times; every other column is emptied.
EMPTIED: dict[str, Any] = {
    "client_tag": None,
    "index_id": "",
    "method": "",
    "candidates": "",
    "top_k": 0,
    "prompt": None,
    "seed": None,
    "input": {},
    "lookalikes": None,
    "candidate_rows": None,
    "stage": "",
    "progress_done": 0,
    "progress_total": 0,
    "attempt": 0,
    "result": None,
    "timings": None,
    "error": None,
}


class JobStore(Upkeep):
    """Jobs in the database and their images in the blob store.

    The workers' half (claim, renew, finish, …) is in `LeaseProtocol`, what keeps it all going in `Upkeep`. A
    store belongs to one process; it may be shared by its threads. Jobs come back detached: reading their
    fields needs no session.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        database: Database | None = None,
        blobs: BlobStore | None = None,
        notify: Notify | None = None,
    ) -> None:
        super().__init__(
            settings,
            database or Database(settings),
            blobs or BlobStore(settings),
            notify or Notifier(settings).publish,
        )

    def create(self, new: NewJob, image_png: bytes) -> Job:
        """Accept an upload: keep its normalised image and queue the job. Ring after this returned.

        Raises:
            QueueFull: too many jobs wait already.
            StorageError: the image or the row can't be written; neither is left behind then.
        """
        now = utc_now()
        job = Job(
            id=new_job_id(),
            state=JobState.QUEUED,
            version=1,
            created_at=now,
            client_tag=new.client_tag,
            index_id=new.index_id,
            method=new.method,
            candidates=new.candidates,
            top_k=new.top_k,
            prompt=new.prompt,
            seed=new.seed,
            input=new.input,
            lookalikes=new.lookalikes,
            candidate_rows=new.candidate_rows,
            stage=Stage.RECEIVED if new.lookalikes is None else Stage.SCREENED,
            progress_done=0,
            progress_total=0,
            attempt=0,
            rung_at=now,
        )
        # Before the transaction, which holds up every other writer while it is open.
        self.blobs.put(job.id, image_png)
        try:
            with self.database.write() as session:
                waiting = session.scalar(
                    select(func.count()).select_from(Job).where(Job.state == JobState.QUEUED)
                )
                if (waiting or 0) >= self.settings.queue_limit:
                    raise QueueFull(self.settings.queue_limit)
                session.add(job)
                record_event(session, job.id, "created")
        except BaseException:
            self.blobs.delete(job.id)
            raise
        return job

    def get(self, job_id: str) -> Job | None:
        """The job, or None if there never was one of this id. An erased job is there, as a tombstone."""
        with self.database.read() as session:
            return session.get(Job, job_id)

    def list(self, filters: JobFilters | None = None, cursor: str | None = None, limit: int = 20) -> Page:
        """A page of jobs, newest first. `cursor` is the `next_cursor` of the page before.

        Raises:
            BadCursor: the cursor isn't one of ours.
        """
        filters = filters or JobFilters()
        statement = select(Job).order_by(Job.id.desc()).limit(limit + 1)
        if cursor is not None:
            if not cursor.startswith(PREFIX) or len(cursor) > 40:
                raise BadCursor(f"{cursor!r} isn't a cursor of this list; start again without one")
            statement = statement.where(Job.id < cursor)
        if filters.state is None:
            statement = statement.where(Job.state != JobState.ERASED)
        else:
            statement = statement.where(Job.state == filters.state)
        if filters.client_tag is not None:
            statement = statement.where(Job.client_tag == filters.client_tag)
        if filters.created_after is not None:
            statement = statement.where(Job.created_at > filters.created_after)
        with self.database.read() as session:
            jobs = session.scalars(statement).all()
        shown = [*jobs[:limit]]
        return Page(jobs=shown, next_cursor=shown[-1].id if len(jobs) > limit else None)

    def events(self, job_id: str, after: int = 0) -> Sequence[JobEvent]:
        """What happened to the job, in order, from the event after number `after`."""
        with self.database.read() as session:
            return session.scalars(
                select(JobEvent).where(JobEvent.job_id == job_id, JobEvent.id > after).order_by(JobEvent.id)
            ).all()

    def image(self, job_id: str) -> bytes:
        """The normalised upload as PNG.

        Raises:
            StorageError: it is gone or can't be read.
        """
        return self.blobs.get(job_id)

    def set_screened(self, job_id: str, lookalikes: Sequence[JsonObject]) -> Job | None:
        """Keep what the app's screening found, however far the job is by now.

        Returns the job, or None if there is none or it has been erased meanwhile.
        """
        with self.database.write() as session:
            job = session.get(Job, job_id, with_for_update=True)
            if job is None or job.state == JobState.ERASED:
                return None
            job.lookalikes = [*lookalikes]
            job.version += 1
            # A worker that runs over all works doesn't wait for the screening and may be further by now.
            if job.stage == Stage.RECEIVED:
                job.stage = Stage.SCREENED
            record_event(session, job_id, "screened")
        self._notify(job.id, job.version)
        return job

    def cancel(self, job_id: str) -> Job:
        """Stop the job if it is still open; a finished one is returned as it is. The image stays.

        A worker in the middle of it notices at its next step; what it would still write is discarded.

        Raises:
            JobNotFound: there is none, or only its tombstone.
        """
        with self.database.write() as session:
            job = session.get(Job, job_id, with_for_update=True)
            if job is None or job.state == JobState.ERASED:
                raise JobNotFound(job_id)
            changed = session.scalars(
                update(Job)
                .where(Job.id == job_id, Job.state.in_(OPEN_STATES))
                .values(state=JobState.CANCELLED, finished_at=utc_now(), version=Job.version + 1, **NO_LEASE)
                .returning(Job),
                execution_options={"populate_existing": True},
            ).one_or_none()
            if changed is None:
                return job
            record_event(session, job_id, "cancelled")
        self._notify(changed.id, changed.version)
        return changed

    def erase(self, job_id: str) -> None:
        """Remove the image, the answer and all that is known of the job; a tombstone with its times stays.

        Erasing twice is fine, and completes an erasure whose image could not be removed the first time.

        Raises:
            JobNotFound: there never was such a job.
            StorageError: the image can't be removed now; the sweeper goes on trying.
        """
        now = utc_now()
        with self.database.write() as session:
            job = session.get(Job, job_id, with_for_update=True)
            if job is None:
                raise JobNotFound(job_id)
            if job.state != JobState.ERASED:
                for column, value in {**EMPTIED, **NO_LEASE}.items():
                    setattr(job, column, value)
                job.state = JobState.ERASED
                job.finished_at = job.finished_at or now
                job.version += 1
                session.execute(delete(JobEvent).where(JobEvent.job_id == job_id))
                record_event(session, job_id, "erased")
        self.blobs.delete(job_id)
        self._notify(job_id, job.version)

    def next_queued(self) -> str | None:
        """The id of the job that a claim would take next; None if none waits."""
        with self.database.read() as session:
            return session.scalar(
                select(Job.id).where(Job.state == JobState.QUEUED).order_by(Job.id).limit(1)
            )

    def queue_depth(self) -> int:
        """How many jobs wait for a worker."""
        with self.database.read() as session:
            count = session.scalar(select(func.count()).select_from(Job).where(Job.state == JobState.QUEUED))
        return count or 0

    def oldest_queued_age(self) -> float | None:
        """For how many seconds the oldest waiting job has been waiting; None if none waits."""
        with self.database.read() as session:
            oldest = session.scalar(select(func.min(Job.created_at)).where(Job.state == JobState.QUEUED))
        return None if oldest is None else (utc_now() - oldest).total_seconds()

    def close(self) -> None:
        """Close the connections to the database."""
        self.database.close()


def open_store(settings: Settings) -> JobStore:
    """A store for this process, with the directories it needs made.

    Raises:
        SettingsError: a directory or URL can't be used.
    """
    settings.prepare_data_dir()
    return JobStore(settings)
