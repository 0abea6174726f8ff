"""The lease protocol: how a worker gets jobs, keeps them, and hands them back or in.

A claim gives each job a lease: who, until when, and a token. Every later write about the job must show the
token and finds the job only while that lease stands, so a worker that was thought dead and wakes up changes
nothing. Moments come from the clocks of the machines that take part; they have to agree within a fraction of
the lease.
"""

import secrets
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from operator import attrgetter
from typing import Any, cast

from sqlalchemy import (
    BindParameter,
    Integer,
    String,
    Table,
    Update,
    and_,
    bindparam,
    case,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.orm import Session
from sqlalchemy.sql.dml import ReturningUpdate

from das.plurals import counted
from jobs.batch_ends import announce_ended, hold_batches_of
from jobs.database import Database
from jobs.models import (
    ClaimedJob,
    Job,
    JobEvent,
    JobState,
    JsonObject,
    Question,
    Stage,
    UtcDateTime,
    utc_now,
)
from jobs.settings import Settings
from jobs.turns import BULK_PRIORITY, ORDER
from jobs.webhooks.outbox import announce_end

Notify = Callable[[str, int], None]

GIVEN_UP = "attempts-exhausted"
# Between two looks at what waits and is being written: such a write takes milliseconds, and 1.5 s on a slow disk.
_PAUSES_S = (0.02, 0.04, 0.08, 0.16, 0.32, 0.64)
# What is said of an attempt whose lease ran out.
SILENT = "its worker stopped giving signs of life"

JOBS = cast(Table, Job.__table__)
# What a worker is told of a job: the whole question, and the lease.
QUESTION = tuple(field.name for field in fields(Question))

# What is looked at of the job whose turn it is.
HEAD = ("id", "index_id", "method", "candidates", "attempt", "priority", "turn")

# What ends a lease, whichever way the job goes on.
NO_LEASE: dict[str, Any] = {"lease_token": None, "lease_expires_at": None, "leased_by": None}


@dataclass(frozen=True, order=True)
class Waiting:
    """What waits for one index in one priority. Sorts as claims are taken.

    Attributes:
        turn, first: the earliest turn, and the id of the oldest question.
        since: when that one was asked.
    """

    priority: int
    turn: int
    first: str
    index_id: str
    since: datetime


class Leases:
    """The workers' half of the store."""

    def __init__(self, settings: Settings, database: Database, notify: Notify) -> None:
        self._settings = settings
        self._database = database
        self._notify = notify

    def claim(self, worker_id: str, limit: int, indexes: Collection[str]) -> list[ClaimedJob]:
        """Take up to `limit` queued jobs about these indexes that one backward pass can answer; none is fine.

        The first is whose turn it is; the others share its index, method and candidates. A job that was tried
        before comes alone, so that whatever killed its last attempt can't take others along again. Jobs of batches
        come by `bulk_size`, and never with another's question, so that it needn't wait long for them.

        On PostgreSQL a claim passes over rows that somebody else is writing, as the API does that adds look-alikes to
        a question it has just rung for. Nobody would ring again soon, so what waits and can't be had is tried again.
        """
        for pause in _PAUSES_S:
            if claimed := self._claim(worker_id, limit, indexes):
                return claimed
            if self.next_queued(indexes) is None:
                return []
            time.sleep(pause)
        return self._claim(worker_id, limit, indexes)

    def _claim(self, worker_id: str, limit: int, indexes: Collection[str]) -> list[ClaimedJob]:
        now = utc_now()
        with self._database.write() as session:
            rows = session.execute(
                CLAIM,
                {
                    "worker": worker_id,
                    "indexes": list(indexes),
                    "most": limit,
                    "bulk": min(limit, self._settings.bulk_size),
                    "secret": secrets.token_hex(16) + ":",
                    "lease_end": self._lease_end(now),
                    "now": now,
                },
            ).all()
            for number, row in enumerate(rows):
                # How many were claimed together stands with one of them, so that claims can be counted.
                batch = {} if number else {"batch": len(rows)}
                record_event(session, row.id, "started", attempt=row.attempt, **batch)
        for row in rows:
            self._notify(row.id, row.version)
        return [
            ClaimedJob(
                id=row.id,
                token=row.lease_token,
                attempt=row.attempt,
                created_at=row.created_at,
                queue_wait_ms=(now - row.created_at).total_seconds() * 1000,
                **{name: getattr(row, name) for name in QUESTION},
            )
            for row in sorted(rows, key=attrgetter(*ORDER))
        ]

    def next_queued(self, indexes: Collection[str]) -> str | None:
        """The id of the job that a claim would take first; None if none waits."""
        with self._database.read() as session:
            return session.scalar(
                select(Job.id)
                .where(Job.state == JobState.QUEUED, ~Job.by_row, Job.index_id.in_(indexes))
                .order_by(*(JOBS.c[name] for name in ORDER))
                .limit(1)
            )

    def questions_waiting(self, indexes: Collection[str], most: int) -> int:
        """How many questions about these indexes wait, pictures of batches aside; counted up to `most`."""
        waiting = (
            select(Job.id)
            .where(
                Job.state == JobState.QUEUED,
                ~Job.by_row,
                Job.priority < BULK_PRIORITY,
                Job.index_id.in_(indexes),
            )
            .limit(most)
        )
        with self._database.read() as session:
            return session.scalar(select(func.count()).select_from(waiting.subquery())) or 0

    def waiting_by_index(self, indexes: Collection[str]) -> list[Waiting]:
        """What waits for these indexes, in the order in which it would be claimed. Reads the whole queue."""
        with self._database.read() as session:
            rows = session.execute(
                select(
                    Job.priority,
                    func.min(Job.turn),
                    func.min(Job.id),
                    Job.index_id,
                    func.min(Job.created_at),
                )
                .where(Job.state == JobState.QUEUED, ~Job.by_row, Job.index_id.in_(indexes))
                .group_by(Job.priority, Job.index_id)
            ).all()
        return sorted(Waiting(*row) for row in rows)

    def renew(self, tokens: Sequence[str]) -> set[str]:
        """Extend these leases. Returns the tokens that still hold; the other jobs are no longer ours."""
        with self._database.write() as session:
            held = session.scalars(
                _holding(tokens)
                .values(lease_expires_at=self._lease_end(utc_now()))
                .returning(Job.lease_token)
            ).all()
        return {token for token in held if token}

    def progress(self, tokens: Sequence[str], stage: str, done: int, total: int) -> set[str]:
        """Say how far the jobs of these leases are, and extend them. Returns the tokens that still hold."""
        with self._database.write() as session:
            rows = session.execute(
                _holding(tokens)
                .values(
                    stage=stage,
                    progress_done=done,
                    progress_total=total,
                    lease_expires_at=self._lease_end(utc_now()),
                    version=Job.version + 1,
                )
                .returning(Job.lease_token, Job.id, Job.version)
            ).all()
        for _token, job_id, version in rows:
            self._notify(job_id, version)
        return {token for token, _id, _version in rows if token}

    def finish(self, token: str, result: JsonObject, timings: JsonObject) -> bool:
        """Hand in the answer. False, and discarded, if the lease is lost (cancelled, erased, expired).

        `timings` are milliseconds by name; `write_ms` is added, up to the moment before the commit.
        """
        began = time.perf_counter()
        with self._database.write() as session:
            found = session.execute(
                _holding([token])
                .values(
                    state=JobState.SUCCEEDED,
                    stage=Stage.SCORED,
                    progress_done=Job.progress_total,
                    result=result,
                    error=None,
                    finished_at=utc_now(),
                    version=Job.version + 1,
                    **NO_LEASE,
                )
                .returning(Job.id, Job.version)
            ).one_or_none()
            if found is None:
                return False
            job_id, version = found
            record_ends(session, [job_id], "succeeded")
            session.flush()
            write_ms = (time.perf_counter() - began) * 1000
            session.execute(
                update(Job)
                .where(Job.id == job_id)
                .values(timings={**timings, "write_ms": round(write_ms, 3)})
            )
        self._notify(job_id, version)
        return True

    def fail(self, token: str, reason: str, code: str) -> bool:
        """End the job without an answer; `reason` is a sentence for its owner. False if the lease is lost."""
        error = {"code": code, "message": reason}
        with self._database.write() as session:
            found = session.execute(
                _holding([token]).values(**failed_values(error, utc_now())).returning(Job.id, Job.version)
            ).one_or_none()
            if found is None:
                return False
            job_id, version = found
            record_ends(session, [job_id], "failed", **error)
        self._notify(job_id, version)
        return True

    def release(self, tokens: Sequence[str], reason: str) -> list[str]:
        """Give jobs back to be tried again; those out of attempts fail. Returns the ids queued again.

        `reason` says what became of this attempt, as half a sentence: "its process was killed".
        """
        return self._give_back(Job.lease_token.in_(tokens), reason)[0]

    def fail_waiting(self, index_id: str, reason: str, code: str) -> list[str]:
        """End all jobs that wait for this index without an answer; returns their ids."""
        error = {"code": code, "message": reason}
        with self._database.write() as session:
            failed = session.execute(
                update(Job)
                .where(Job.state == JobState.QUEUED, Job.index_id == index_id)
                .values(**failed_values(error, utc_now()))
                .returning(Job.id, Job.version)
            ).all()
            record_ends(session, [job_id for job_id, _version in failed], "failed", **error)
        for job_id, version in failed:
            self._notify(job_id, version)
        return [job_id for job_id, _version in failed]

    def release_worker(self, worker_id: str, reason: str) -> list[str]:
        """Give back every job of `worker_id`, which is known to be dead. Returns as `release` does."""
        return self._give_back(Job.leased_by == worker_id, reason)[0]

    def release_expired(self, now: datetime) -> tuple[list[str], list[str]]:
        """Give back jobs whose lease ran out before `now`. Returns the ids queued again, then the failed."""
        return self._give_back(Job.lease_expires_at < now, SILENT)

    def _give_back(self, which: Any, reason: str) -> tuple[list[str], list[str]]:
        limit = self._settings.max_attempts
        given_up = {
            "code": GIVEN_UP,
            "message": f"The computation was started {counted(limit, 'time')} and never came to its end"
            f" (the last time, {reason}), so it was given up. Sending the picture again is fine;"
            " if that ends the same way, the worker's log says why.",
        }
        running = (which, Job.state == JobState.RUNNING)
        with self._database.write() as session:
            failed = session.execute(
                update(Job)
                .where(*running, Job.attempt >= limit)
                .values(**failed_values(given_up, utc_now()))
                .returning(Job.id, Job.version)
            ).all()
            requeued = session.execute(
                update(Job)
                .where(*running)
                .values(
                    state=JobState.QUEUED,
                    stage=_stage_when_waiting(),
                    progress_done=0,
                    progress_total=0,
                    rung_at=None,
                    version=Job.version + 1,
                    **NO_LEASE,
                )
                .returning(Job.id, Job.version, Job.attempt)
            ).all()
            for job_id, _version, attempt in requeued:
                record_event(session, job_id, "retrying", attempt=attempt, reason=reason)
            # After every row that is written is held: batches are held last.
            record_ends(session, [job_id for job_id, _version in failed], "failed", **given_up)
        for job_id, version in [*failed, *((job_id, version) for job_id, version, _ in requeued)]:
            self._notify(job_id, version)
        return sorted(job_id for job_id, _, _ in requeued), sorted(job_id for job_id, _ in failed)

    def _lease_end(self, now: datetime) -> datetime:
        return now + timedelta(seconds=self._settings.lease_seconds)


def _claim_statement() -> ReturningUpdate[Any]:
    waiting = JOBS.alias("waiting")
    order = [waiting.c[name] for name in ORDER]
    held: BindParameter[Any] = bindparam("indexes", expanding=True)
    head = (
        select(*(waiting.c[name] for name in HEAD))
        .where(waiting.c.state == JobState.QUEUED, waiting.c.by_row.is_(False), waiting.c.index_id.in_(held))
        .order_by(*order)
        .limit(1)
        .with_for_update(skip_locked=True)
        .cte("head")
    )
    batch = (
        select(waiting.c.id)
        .join(
            head,
            and_(
                waiting.c.index_id == head.c.index_id,
                waiting.c.method == head.c.method,
                waiting.c.candidates == head.c.candidates,
                waiting.c.priority == head.c.priority,
                or_(waiting.c.id == head.c.id, and_(head.c.attempt == 0, waiting.c.attempt == 0)),
            ),
        )
        .where(waiting.c.state == JobState.QUEUED, waiting.c.by_row.is_(False))
        .order_by(*order)
        .limit(
            case(
                (
                    select(head.c.priority).scalar_subquery() < BULK_PRIORITY,
                    bindparam("most", type_=Integer),
                ),
                else_=bindparam("bulk", type_=Integer),
            )
        )
        .with_for_update(of=waiting, skip_locked=True)
        .cte("batch")
    )
    return (
        update(JOBS)
        .where(JOBS.c.id.in_(select(batch.c.id)))
        .values(
            state=JobState.RUNNING,
            attempt=JOBS.c.attempt + 1,
            turn=select(head.c.turn).scalar_subquery(),
            leased_by=bindparam("worker"),
            # One token a job, made in the statement: the random part is the batch's, the id tells them apart.
            lease_token=bindparam("secret", type_=String).concat(JOBS.c.id),
            lease_expires_at=bindparam("lease_end"),
            started_at=func.coalesce(JOBS.c.started_at, bindparam("now", type_=UtcDateTime())),
            version=JOBS.c.version + 1,
        )
        .returning(
            *(
                JOBS.c[name]
                for name in ("id", "lease_token", "attempt", "created_at", "version", "turn", *QUESTION)
            )
        )
    )


def _holding(tokens: Iterable[str]) -> Update:
    return update(Job).where(Job.lease_token.in_(list(tokens)), Job.state == JobState.RUNNING)


def failed_values(error: JsonObject, now: datetime) -> dict[str, Any]:
    return {
        "state": JobState.FAILED,
        "error": error,
        "finished_at": now,
        "version": Job.version + 1,
        **NO_LEASE,
    }


def _stage_when_waiting() -> Any:
    # A job that waits again has its screening behind it if it ever had one.
    return case((Job.lookalikes.is_not(None), Stage.SCREENED.value), else_=Stage.RECEIVED.value)


def record_event(session: Session, job_id: str, kind: str, **data: Any) -> None:
    """Keep what happened to a job, in the transaction in which it happens; its end is for `record_ends`."""
    session.execute(ADD_EVENT, {"job_id": job_id, "at": utc_now(), "kind": kind, "data": data})


def record_ends(session: Session, job_ids: Sequence[str], kind: str, **data: Any) -> None:
    """Keep that jobs have ended, in the transaction in which they do, and announce it by webhook, with the batches
    that have ended by this."""
    if not job_ids:
        return
    for job_id in job_ids:
        record_event(session, job_id, kind, **data)
        announce_end(session, job_id, kind)
    announce_ended(session, hold_batches_of(session, job_ids))


# Built once: putting the claim together takes five times as long as running it.
# On PostgreSQL two workers that claim at once pass over each other's rows (FOR UPDATE SKIP LOCKED). SQLite has no
# such clause and needs none: its writers come one after the other.
CLAIM = _claim_statement()
ADD_EVENT = insert(cast(Table, JobEvent.__table__))
