"""Decisions about questions: by which version of a policy, what came of it, and what a person says of that.

A decision holds nothing that its job doesn't, and goes when the job does: erasing a job empties its decisions in the
same transaction, and whoever writes to one holds its row or its job's and sees that it is still there.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sqlalchemy import Index, String, func, select, update
from sqlalchemy.orm import Mapped, Session, mapped_column
from uuid_utils import uuid7

from jobs.audit import SERVICE, Actor, record
from jobs.database import Database
from jobs.errors import BadCursor, JobNotFound, JobsError
from jobs.idempotency import Claim, complete, forget_request
from jobs.ids import JOB_ID
from jobs.models import OPEN_STATES, Base, Job, JobState, JsonObject, about_index, utc_now
from jobs.webhooks.outbox import announce_decision

PREFIX = "dec_"
DECISION_ID = re.compile(PREFIX + "[0-9a-f]{32}")


class DecisionState(StrEnum):
    """A decision waits for its question's answer, is made, or was erased with it."""

    PENDING = "pending"
    DECIDED = "decided"
    ERASED = "erased"


class Decision(Base):
    """What a policy says of one question. `verdict`, `shadow` and `review` are None until they are there."""

    __tablename__ = "decisions"
    __table_args__ = (
        Index("ix_decisions_owner_id", "owner", "id"),
        Index("ix_decisions_job_id", "job_id"),
        Index("ix_decisions_state_id", "state", "id"),
        Index("ix_decisions_owner_policy_id", "owner", "policy_id", "id"),
        Index("ix_decisions_decided_at", "decided_at"),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    owner: Mapped[str] = mapped_column(String(80))
    job_id: Mapped[str] = mapped_column(String(40))
    policy_id: Mapped[str] = mapped_column(String(60))
    version: Mapped[int]
    shadow_version: Mapped[int | None]
    state: Mapped[str] = mapped_column(String(16))
    created_at: Mapped[datetime]
    decided_at: Mapped[datetime | None]
    outcome: Mapped[str | None] = mapped_column(String(16))
    verdict: Mapped[JsonObject | None]
    shadow: Mapped[JsonObject | None]
    review_outcome: Mapped[str | None] = mapped_column(String(16))
    review: Mapped[JsonObject | None]
    """The newest of `reviews`."""
    reviews: Mapped[list[JsonObject] | None]
    """All that people said, oldest first."""


# What erasing takes; the rest says that there was a decision, when, and by which version.
EMPTIED: dict[str, None] = dict.fromkeys(
    ("outcome", "verdict", "shadow", "review_outcome", "review", "reviews")
)
# Nobody changes their mind so often; a program that does shall not fill the disk.
MOST_REVIEWS = 100


class DecisionNotFound(JobsError):
    """There is no decision with this id."""


class NotDecided(JobsError):
    """It isn't decided yet, was erased, or was reviewed as often as can be kept."""


@dataclass(frozen=True, kw_only=True)
class DecisionFilters:
    """Which decisions a listing shows; None doesn't filter. Erased ones show only when asked for by state."""

    owner: str
    state: str | None = None
    policy_id: str | None = None
    outcome: str | None = None
    reviewed: bool | None = None
    job_id: str | None = None


@dataclass(frozen=True)
class DecisionPage:
    """One page, newest first."""

    decisions: Sequence[Decision]
    next_cursor: str | None


class Decisions:
    """The decisions of all owners."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(
        self,
        owner: str,
        job_id: str,
        policy_id: str,
        version: int,
        shadow_version: int | None,
        claim: Claim | None = None,
    ) -> Decision:
        """Begin a decision about a job.

        Args:
            claim: of the request's Idempotency-Key, completed together with the decision.

        Raises:
            JobNotFound: the job isn't there, or was erased.
            RequestInFlight: the claim was lost meanwhile.
        """
        with self._database.write() as session:
            _lock_job(session, job_id)
            decision = Decision(
                id=PREFIX + uuid7().hex,
                owner=owner,
                job_id=job_id,
                policy_id=policy_id,
                version=version,
                shadow_version=shadow_version,
                state=DecisionState.PENDING,
                created_at=utc_now(),
                decided_at=None,
                **EMPTIED,
            )
            session.add(decision)
            if claim is not None:
                complete(session, claim, decision.id)
        return decision

    def first_of(self, owner: str, job_id: str, policy_id: str) -> Decision | None:
        """The first decision about a job by any version of this policy; None if there is none."""
        with self._database.read() as session:
            return session.scalars(
                select(Decision)
                .where(Decision.owner == owner, Decision.job_id == job_id, Decision.policy_id == policy_id)
                .order_by(Decision.id)
                .limit(1)
            ).first()

    def get(self, decision_id: str, owner: str | None = None) -> Decision | None:
        """The decision, or None; one that was erased is there as a tombstone."""
        with self._database.read() as session:
            decision = session.get(Decision, decision_id)
        return None if decision is None or owner not in (None, decision.owner) else decision

    def settle(self, decision_id: str, verdict: JsonObject, shadow: JsonObject | None) -> Decision | None:
        """Write down what was decided, once: whoever comes later gets what stands. None if there is none."""
        with self._database.write() as session:
            job_id = session.scalar(select(Decision.job_id).where(Decision.id == decision_id))
            if job_id is None:
                return None
            try:
                _lock_job(session, job_id)
            except JobNotFound:
                return session.get(Decision, decision_id)
            decision = session.get_one(Decision, decision_id, with_for_update=True)
            if decision.state == DecisionState.PENDING:
                decision.state = DecisionState.DECIDED
                decision.decided_at = utc_now()
                decision.outcome = verdict["outcome"]
                decision.verdict = verdict
                decision.shadow = shadow
                announce_decision(session, decision.id, job_id)
        return decision

    def review(
        self, decision_id: str, owner: str, outcome: str, note: str | None, by: Actor = SERVICE
    ) -> Decision:
        """Keep what a person says of a decision, beside all that was said before; the newest counts. The same said
        again, as after a connection that broke, is one review.

        Raises:
            DecisionNotFound: there is none of this owner.
            NotDecided: nothing was decided yet, it was erased, or it has as many reviews as are kept.
        """
        with self._database.write() as session:
            decision = session.get(Decision, decision_id, with_for_update=True)
            if decision is None or decision.owner != owner:
                raise DecisionNotFound(f"there is no decision {decision_id!r}")
            if decision.state != DecisionState.DECIDED:
                raise NotDecided(f"the decision is {decision.state}")
            said = {"outcome": outcome, "note": note, "by": owner}
            if decision.review is not None and said.items() <= decision.review.items():
                return decision
            before = decision.reviews or []
            if len(before) >= MOST_REVIEWS:
                raise NotDecided(f"it was reviewed {MOST_REVIEWS} times, and no more are kept")
            decision.review_outcome = outcome
            decision.review = {**said, "at": utc_now().isoformat()}
            decision.reviews = [*before, decision.review]
            record(session, by, "decision.reviewed", decision_id, said=outcome)
        return decision

    def ripe(self, limit: int) -> Sequence[Decision]:
        """Decisions that wait though their questions have ended, oldest first."""
        with self._database.read() as session:
            return session.scalars(
                select(Decision)
                .join(Job, Job.id == Decision.job_id)
                .where(Decision.state == DecisionState.PENDING, Job.state.not_in(OPEN_STATES))
                .order_by(Decision.id)
                .limit(limit)
            ).all()

    def pending(self) -> int:
        """How many wait for an answer."""
        with self._database.read() as session:
            return session.scalar(select(func.count()).where(Decision.state == DecisionState.PENDING)) or 0

    def list(self, filters: DecisionFilters, cursor: str | None = None, limit: int = 20) -> DecisionPage:
        """A page of decisions, newest first.

        Raises:
            BadCursor: the cursor isn't one of ours.
        """
        statement = select(Decision).where(Decision.owner == filters.owner).order_by(Decision.id.desc())
        if cursor is not None:
            if not DECISION_ID.fullmatch(cursor):
                raise BadCursor(f"{cursor!r} isn't a cursor of this list; start again without one")
            statement = statement.where(Decision.id < cursor)
        statement = statement.where(
            Decision.state != DecisionState.ERASED
            if filters.state is None
            else Decision.state == filters.state
        )
        for column, wanted in (
            (Decision.policy_id, filters.policy_id),
            (Decision.outcome, filters.outcome),
            (Decision.job_id, filters.job_id),
        ):
            if wanted is not None:
                statement = statement.where(column == wanted)
        if filters.reviewed is not None:
            there = Decision.review_outcome.is_not(None)
            statement = statement.where(there if filters.reviewed else ~there)
        with self._database.read() as session:
            found = session.scalars(statement.limit(limit + 1)).all()
        return DecisionPage(found[:limit], found[limit - 1].id if len(found) > limit else None)

    def answered(
        self,
        owner: str,
        before: str | None,
        limit: int,
        index: str | None = None,
        since: datetime | None = None,
    ) -> Sequence[Job]:
        """The owner's answered questions, newest first, from the one before `before` on.

        Args:
            index: only of this one: a name, for all of its versions, or the id of one.
            since: only those asked after this.

        Raises:
            BadCursor: `before` isn't the id of a question.
        """
        statement = select(Job).where(Job.owner == owner, Job.state == JobState.SUCCEEDED)
        if before is not None:
            if not JOB_ID.fullmatch(before):
                raise BadCursor(f"{before!r} isn't a cursor of this list; start again without one")
            statement = statement.where(Job.id < before)
        if index is not None:
            statement = statement.where(about_index(index))
        if since is not None:
            statement = statement.where(Job.created_at > since)
        with self._database.read() as session:
            return session.scalars(statement.order_by(Job.id.desc()).limit(limit)).all()


def erase_decisions(session: Session, job_id: str) -> None:
    """Empty the decisions about a job that is being erased, whose row is locked by this transaction."""
    erased = session.scalars(
        update(Decision)
        .where(Decision.job_id == job_id, Decision.state != DecisionState.ERASED)
        .values(state=DecisionState.ERASED, **EMPTIED)
        .returning(Decision.id)
    ).all()
    for decision_id in erased:
        forget_request(session, decision_id)


def _lock_job(session: Session, job_id: str) -> None:
    """Hold the job's row, so that it isn't erased meanwhile; raises `JobNotFound` if it was."""
    state = session.scalar(select(Job.state).where(Job.id == job_id).with_for_update())
    if state is None or state == JobState.ERASED:
        raise JobNotFound(job_id)
