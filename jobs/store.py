"""`JobStore`: all that is done to jobs. The database is the truth; the queue only rings.

Its methods block for a few milliseconds; from an event loop, call them in a thread.
"""

from collections.abc import Sequence
from dataclasses import fields
from functools import partial
from typing import Any

from sqlalchemy import JSON, Column, bindparam, delete, func, select, update
from sqlalchemy.orm import Session

from jobs.audit import SERVICE, Actor, Audit, record
from jobs.batch_ends import announce_ended, hold_batches_of
from jobs.batch_rows import ItemClaim, complete_item, erase_items
from jobs.blobs import BlobStore
from jobs.claims import JOBS, NO_LEASE, Leases, Notify, record_ends, record_event
from jobs.database import Database
from jobs.decisions import Decisions, erase_decisions
from jobs.errors import BadCursor, JobNotFound, QueueFull
from jobs.idempotency import Claim, Idempotency, complete, forget_request
from jobs.ids import JOB_ID, new_job_id
from jobs.keeping import Keeping
from jobs.models import (
    OPEN_STATES,
    Event,
    Job,
    JobEvent,
    JobFilters,
    JobState,
    JobSummary,
    JsonObject,
    NewJob,
    Page,
    Stage,
    Standing,
    utc_now,
)
from jobs.near import events_of, standing_of
from jobs.notify import Notifier
from jobs.opt_outs import OptOuts
from jobs.pace import Pace
from jobs.policies import Policies
from jobs.revealed import RevealedWorks
from jobs.searches import Searches
from jobs.sessions import SessionRows
from jobs.settings import Settings
from jobs.shares import Shares, erase_shares
from jobs.turns import next_turn
from jobs.upkeep import Upkeep
from jobs.webhooks.deliveries import Deliveries
from jobs.webhooks.endpoints import Endpoints
from jobs.webhooks.outbox import erase_deliveries
from jobs.webhooks.sealing import Seal
from jobs.workers import Workers


def _empty(column: Column[Any]) -> Any:
    if column.nullable:
        return None
    return {} if isinstance(column.type, JSON) else column.type.python_type()


# What a tombstone keeps; every other column is emptied.
KEPT = ("id", "owner", "state", "version", "created_at", "started_at", "finished_at")
EMPTIED: dict[str, Any] = {column.name: _empty(column) for column in JOBS.columns if column.name not in KEPT}

# What a list reads of each row: a hundred answers with their works would be a megabyte.
SUMMARISED = (
    Job.id,
    Job.state,
    Job.created_at,
    Job.started_at,
    Job.finished_at,
    Job.client_tag,
    Job.index_id,
    Job.method,
    Job.result["summary"].as_string().label("summary"),
    Job.result[("in_model", "verdict")].as_string().label("in_model"),
    Job.result[("copy", "verdict")].as_string().label("copied"),
    Job.result[("works", 0, "work_id")].as_string().label("first_work"),
)

# Built once: putting one of these together takes longer than running it, and everybody who polls runs them.
VERSIONS = select(JOBS.c.id, JOBS.c.version).where(JOBS.c.id.in_(bindparam("job_ids", expanding=True)))
WAITING = select(func.count()).select_from(JOBS).where(JOBS.c.state == JobState.QUEUED)
RUNNING = select(func.count()).select_from(JOBS).where(JOBS.c.state == JobState.RUNNING)
OWNERS = select(func.count(JOBS.c.owner.distinct())).where(JOBS.c.state == JobState.QUEUED)
WAITING_OF = WAITING.where(JOBS.c.owner == bindparam("owner"))

# An SQLite of before 2020 takes 999 parameters.
VERSIONS_AT_ONCE = 900


class JobStore:
    """Jobs in the database and their images in the blob store.

    Here is what the app does with questions; `leases` is the workers' half (claim, renew, finish, …), `workers`
    their signs of life, `searches` what they ask of each other, `upkeep` what keeps it all going; `policies` and
    `decisions` are moderation's, `webhook_endpoints` and `webhook_deliveries` say who hears of all this, `sessions`
    are those of who is signed in on the page. A store belongs to one process; it may be shared by its threads. Jobs
    come back detached: reading their fields needs no session.

    Where a method takes an `owner`, the jobs of others aren't there for it; None sees them all.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        database: Database | None = None,
        blobs: BlobStore | None = None,
        notify: Notify | None = None,
    ) -> None:
        self.settings = settings
        self.database = database or Database(settings)
        self.blobs = blobs or BlobStore(settings)
        self.notify = notify or Notifier(settings).publish
        self.leases = Leases(settings, self.database, self.notify)
        self.workers = Workers(settings, self.database)
        self.idempotency = Idempotency(settings, self.database)
        self.pace = Pace(self.database)
        self.policies = Policies(self.database)
        self.decisions = Decisions(self.database)
        self.opt_outs = OptOuts(self.database)
        self.audit = Audit(self.database)
        self.keeping = Keeping(settings, self.database)
        self.sessions = SessionRows(self.database)
        self.shares = Shares(self.database, self.keeping)
        self.revealed = RevealedWorks(self.database)
        self.searches = Searches(settings, self.database)
        seal = Seal(settings)
        self.webhook_endpoints = Endpoints(self.database, seal)
        self.webhook_deliveries = Deliveries(self.database, seal)
        self.upkeep = Upkeep(
            settings, self.database, self.blobs, self.leases, self.workers, self.idempotency, self.searches
        )

    def create(
        self, new: NewJob, image_png: bytes, claim: Claim | None = None, item: ItemClaim | None = None
    ) -> Job:
        """Accept an upload: keep its normalised image and queue the job. Ring after this returned.

        Args:
            claim: of the request's Idempotency-Key, completed together with the job.
            item: of a batch, which this job is from then on.

        Raises:
            QueueFull: too many jobs wait already, of all or of this owner.
            RequestInFlight: the claim was lost meanwhile.
            ItemLost: so was the item.
            StorageError: the image or the row can't be written; neither is left behind then.
        """
        now = utc_now()
        job = Job(
            **{field.name: getattr(new, field.name) for field in fields(NewJob)},
            id=new_job_id(),
            created_at=now,
            stage=Stage.RECEIVED if new.lookalikes is None else Stage.SCREENED,
            rung_at=now,
        )
        # Before the transaction, which holds up every other writer while it is open.
        self.blobs.put(job.id, image_png)
        try:
            with self.database.write() as session:
                self._check_room(session, new.owner, bulk=item is not None)
                job.turn = next_turn(session, new.owner, new.priority)
                session.add(job)
                record_event(session, job.id, "created")
                if claim is not None:
                    complete(session, claim, job.id)
                if item is not None:
                    complete_item(session, item, job.id)
        except BaseException:
            self.blobs.delete(job.id)
            raise
        return job

    def get(self, job_id: str, owner: str | None = None) -> Job | None:
        """The job, or None if there never was one of this id. An erased job is there, as a tombstone."""
        with self.database.read() as session:
            return _own(session.get(Job, job_id), owner)

    def get_all(self, job_ids: Sequence[str]) -> Sequence[Job]:
        """Those of these jobs that there are, in any order: one query."""
        if not job_ids:
            return ()
        with self.database.read() as session:
            return session.scalars(select(Job).where(Job.id.in_(job_ids))).all()

    def standing(self, job_id: str, owner: str | None = None) -> Standing | None:
        """How the job stands; None if there never was one of this id. Costs a fraction of `get`."""
        with self.database.read() as session:
            return standing_of(session, job_id, owner)

    def versions(self, job_ids: Sequence[str]) -> dict[str, int]:
        """The versions of those of these jobs that there are."""
        with self.database.read() as session:
            found: dict[str, int] = {}
            for begin in range(0, len(job_ids), VERSIONS_AT_ONCE):
                some = job_ids[begin : begin + VERSIONS_AT_ONCE]
                found.update((row.id, row.version) for row in session.execute(VERSIONS, {"job_ids": some}))
        return found

    def list(self, filters: JobFilters | None = None, cursor: str | None = None, limit: int = 20) -> Page:
        """A page of jobs, newest first. `cursor` is the `next_cursor` of the page before.

        Raises:
            BadCursor: the cursor isn't one of ours.
        """
        filters = filters or JobFilters()
        statement = select(*SUMMARISED).order_by(Job.id.desc()).limit(limit + 1)
        if cursor is not None:
            if not JOB_ID.fullmatch(cursor):
                raise BadCursor(f"{cursor!r} isn't a cursor of this list; start again without one")
            statement = statement.where(Job.id < cursor)
        if filters.state is None:
            statement = statement.where(Job.state != JobState.ERASED)
        else:
            statement = statement.where(Job.state == filters.state)
        if filters.owner is not None:
            statement = statement.where(Job.owner == filters.owner)
        if filters.client_tag is not None:
            statement = statement.where(Job.client_tag == filters.client_tag)
        if filters.created_after is not None:
            statement = statement.where(Job.created_at > filters.created_after)
        with self.database.read() as session:
            rows = session.execute(statement).all()
        shown = [JobSummary(**row._mapping) for row in rows[:limit]]
        return Page(jobs=shown, next_cursor=shown[-1].id if len(rows) > limit else None)

    def events(self, job_id: str, after: int = 0) -> Sequence[Event]:
        """What happened to the job, in order, from the event after number `after`."""
        with self.database.read() as session:
            return events_of(session, job_id, after)

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
            # A worker that runs over all works doesn't wait for the screening and may be further by now. Nothing
            # happens after the end: who follows the events leaves with the one that says so.
            if job.stage == Stage.RECEIVED:
                job.stage = Stage.SCREENED
            if not job.finished:
                record_event(session, job_id, "screened")
        self.notify(job.id, job.version)
        return job

    def cancel(self, job_id: str, owner: str | None = None, by: Actor = SERVICE) -> Job:
        """Stop the job if it is still open; a finished one is returned as it is. The image stays.

        A worker in the middle of it notices at its next step; what it would still write is discarded.

        Raises:
            JobNotFound: there is none, or only its tombstone.
        """
        with self.database.write() as session:
            job = _own(session.get(Job, job_id, with_for_update=True), owner)
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
            record_ends(session, [job_id], "cancelled")
            record(session, by, "question.cancelled", job_id)
        self.notify(changed.id, changed.version)
        return changed

    def erase(self, job_id: str, owner: str | None = None, by: Actor = SERVICE) -> None:
        """Remove the image, the answer and all that is known of the job; a tombstone with its times stays.

        Erasing twice is fine, and completes an erasure whose image could not be removed the first time. The image
        goes first: on a full disk that may make room for the rest, and else there is the reserve. SQLite's log is
        emptied; while somebody reads from it the sweeper goes on trying.

        Raises:
            JobNotFound: there never was such a job.
            StorageError: the image can't be removed now; the sweeper goes on trying.
        """
        if self.get(job_id, owner) is None:
            raise JobNotFound(job_id)
        self.erase_all([job_id], by)

    def erase_all(self, job_ids: Sequence[str], by: Actor = SERVICE) -> None:
        """Erase these jobs, all of which there are, as `erase` does one; raises `StorageError`."""
        try:
            for job_id in job_ids:
                try:
                    self.blobs.delete(job_id)
                finally:
                    version = self.database.with_reserve(partial(self._erase_row, job_id, by))
                    self.notify(job_id, version)
        finally:
            self.database.forget()

    def _erase_row(self, job_id: str, by: Actor) -> int:
        now = utc_now()
        with self.database.write() as session:
            job = session.get_one(Job, job_id, with_for_update=True)
            if job.state != JobState.ERASED:
                batches = hold_batches_of(session, [job_id])
                was_open = not job.finished
                for column, value in EMPTIED.items():
                    setattr(job, column, value)
                job.state = JobState.ERASED
                job.finished_at = job.finished_at or now
                job.version += 1
                session.execute(delete(JobEvent).where(JobEvent.job_id == job_id))
                forget_request(session, job_id)
                erase_decisions(session, job_id)
                erase_shares(session, job_id)
                erase_deliveries(session, job_id)
                erase_items(session, job_id)
                record_event(session, job_id, "erased")
                if was_open:
                    announce_ended(session, batches)
                record(session, by, "question.erased", job_id)
        return job.version

    def queue_depth(self, owner: str | None = None) -> int:
        """How many jobs wait for a worker."""
        with self.database.read() as session:
            return _waiting(session, owner)

    def running(self) -> int:
        """How many jobs are being computed."""
        with self.database.read() as session:
            return session.scalar(RUNNING) or 0

    def check_room(self, owner: str, *, bulk: bool = False) -> None:
        """See that a job of this owner would be taken now; `bulk`: one of a batch.

        Raises:
            QueueFull: too many jobs wait already, of all or of this owner.
        """
        with self.database.read() as session:
            self._check_room(session, owner, bulk=bulk)

    def _check_room(self, session: Session, owner: str, *, bulk: bool) -> None:
        limit, own = self.settings.queue_limit, self.settings.owner_queue_limit
        if bulk:
            # Batches wait outside: half of the queue is left to who asks one question.
            limit, own = max(1, limit // 2), None if own is None else max(1, own // 2)
        if own is not None and (mine := _waiting(session, owner)) >= own:
            owners = session.scalar(OWNERS) or 1
            raise QueueFull(own, ahead=min(_waiting(session, None), mine * owners), of_owner=True)
        if (waiting := _waiting(session, None)) >= limit:
            raise QueueFull(limit, ahead=waiting)

    def oldest_queued_age(self) -> float | None:
        """For how many seconds the oldest waiting job has been waiting; None if none waits."""
        with self.database.read() as session:
            oldest = session.scalar(select(func.min(Job.created_at)).where(Job.state == JobState.QUEUED))
        return None if oldest is None else (utc_now() - oldest).total_seconds()

    def close(self) -> None:
        """Close the connections to the database."""
        self.database.close()


def _own(job: Job | None, owner: str | None) -> Job | None:
    """The job, if this owner may see it."""
    return None if job is None or owner not in (None, job.owner) else job


def _waiting(session: Session, owner: str | None) -> int:
    found = session.scalar(WAITING) if owner is None else session.scalar(WAITING_OF, {"owner": owner})
    return found or 0
