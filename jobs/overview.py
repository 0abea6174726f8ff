"""How the service stands, for who runs it: questions by state and owner, and what workers are at.

Nothing here reads what was asked (pictures, prompts, tags) or what was answered. Each look is bounded: by the queue's
limit, by a page, or by what ended lately, each along an index.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, func, literal_column, select
from sqlalchemy.orm import Session

from jobs.database import Database
from jobs.errors import BadCursor
from jobs.ids import JOB_ID
from jobs.models import OPEN_STATES, Job, JobState, JsonObject, utc_now

# Owners and indexes that are told of, those with most questions first.
TOLD = 20
# Jobs that are told of as being computed.
RUNNING_TOLD = 200

COLUMNS = (
    Job.id,
    Job.owner,
    Job.state,
    Job.index_id,
    Job.method,
    Job.created_at,
    Job.started_at,
    Job.finished_at,
    Job.attempt,
    Job.leased_by,
    Job.stage,
    Job.progress_done,
    Job.progress_total,
    Job.error,
)


@dataclass(frozen=True)
class JobLine:
    """A question as its operator may know it."""

    id: str
    owner: str
    state: str
    index_id: str
    method: str
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    attempt: int
    leased_by: str | None
    stage: str
    progress_done: int
    progress_total: int
    error: JsonObject | None


@dataclass(frozen=True)
class JobLines:
    """One page, the newest first."""

    jobs: Sequence[JobLine]
    next_cursor: str | None


@dataclass(frozen=True)
class OpenOf:
    """How many questions of an owner aren't answered yet."""

    owner: str
    waiting: int
    running: int


@dataclass(frozen=True)
class Queue:
    """What isn't answered yet. `oldest` is the one that waits longest, `oldest_s` for how long."""

    waiting: int = 0
    running: int = 0
    oldest: str | None = None
    oldest_s: float = 0.0
    owners: Sequence[OpenOf] = ()
    indexes: Sequence[tuple[str, int]] = ()


@dataclass(frozen=True)
class Ended:
    """How many questions ended since a moment."""

    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    reasons: Sequence[tuple[str, int]] = field(default_factory=list)
    """Codes of failures and how many there were of each."""


class Overview:
    """Looks. Its methods block for a few milliseconds."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def queue(self) -> Queue:
        """What waits and what is being computed."""
        with self._database.read() as session:
            counted = session.execute(
                select(Job.owner, Job.state, func.count())
                .where(Job.state.in_(OPEN_STATES))
                .group_by(Job.owner, Job.state)
            ).all()
            oldest = session.execute(
                select(Job.id, Job.created_at).where(Job.state == JobState.QUEUED).order_by(Job.id).limit(1)
            ).one_or_none()
            indexes = session.execute(
                select(Job.index_id, func.count().label("waiting"))
                .where(Job.state == JobState.QUEUED)
                .group_by(Job.index_id)
                .order_by(func.count().desc(), Job.index_id)
                .limit(TOLD)
            ).all()
        by_owner: dict[str, dict[str, int]] = {}
        for owner, state, number in counted:
            by_owner.setdefault(owner, {})[state] = number
        owners = [
            OpenOf(owner, states.get(JobState.QUEUED, 0), states.get(JobState.RUNNING, 0))
            for owner, states in by_owner.items()
        ]
        return Queue(
            waiting=sum(one.waiting for one in owners),
            running=sum(one.running for one in owners),
            oldest=None if oldest is None else oldest.id,
            oldest_s=0.0 if oldest is None else (utc_now() - oldest.created_at).total_seconds(),
            owners=sorted(owners, key=lambda one: (-one.waiting - one.running, one.owner))[:TOLD],
            indexes=[(index_id, waiting) for index_id, waiting in indexes],
        )

    def open_of(self, owner: str) -> OpenOf:
        """What isn't answered yet of one owner's."""
        with self._database.read() as session:
            waiting, running = (
                _count(session, Job.owner == owner, Job.state == state) for state in OPEN_STATES
            )
        return OpenOf(owner, waiting, running)

    def ended_since(self, moment: datetime) -> Ended:
        """What ended since then, and why what failed did."""
        with self._database.read() as session:
            counts = {
                state: _count(session, Job.state == state, Job.finished_at > moment)
                for state in (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)
            }
            # Grouped by its name: PostgreSQL takes the expression for another each time it has a parameter.
            code: ColumnElement[str] = literal_column("reason")
            reasons = session.execute(
                select(Job.error["code"].as_string().label("reason"), func.count())
                .where(Job.state == JobState.FAILED, Job.finished_at > moment)
                .group_by(code)
                .order_by(func.count().desc(), code)
                .limit(TOLD)
            ).all()
        return Ended(
            succeeded=counts[JobState.SUCCEEDED],
            failed=counts[JobState.FAILED],
            cancelled=counts[JobState.CANCELLED],
            reasons=[(str(name), number) for name, number in reasons],
        )

    def jobs(
        self,
        states: Sequence[str] | None = None,
        owner: str | None = None,
        cursor: str | None = None,
        limit: int = 20,
    ) -> JobLines:
        """A page of questions, the newest first; all but those that were erased unless states are given.

        Raises:
            BadCursor: the cursor isn't one of ours.
        """
        statement = select(*COLUMNS).order_by(Job.id.desc()).limit(limit + 1)
        if cursor is not None:
            if not JOB_ID.fullmatch(cursor):
                raise BadCursor(f"{cursor!r} isn't a cursor of this list; start again without one")
            statement = statement.where(Job.id < cursor)
        wanted = Job.state != JobState.ERASED if states is None else Job.state.in_(states)
        statement = statement.where(wanted)
        if owner is not None:
            statement = statement.where(Job.owner == owner)
        found = self._lines(statement)
        return JobLines(found[:limit], found[limit - 1].id if len(found) > limit else None)

    def running(self) -> Sequence[JobLine]:
        """What is being computed, the oldest first."""
        running = select(*COLUMNS).where(Job.state == JobState.RUNNING)
        return self._lines(running.order_by(Job.id).limit(RUNNING_TOLD))

    def _lines(self, statement: Any) -> list[JobLine]:
        with self._database.read() as session:
            return [JobLine(**row._mapping) for row in session.execute(statement)]


def _count(session: Session, *which: ColumnElement[bool]) -> int:
    return session.scalar(select(func.count()).select_from(Job).where(*which)) or 0
