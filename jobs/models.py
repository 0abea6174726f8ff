"""The tables: jobs, what happened to them, and the workers' signs of life."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, ClassVar

from sqlalchemy import JSON, BigInteger, ColumnElement, DateTime, Index, String, Text, TypeDecorator
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, MappedAsDataclass, mapped_column

JsonObject = dict[str, Any]

# Whose the questions are until there are accounts: those of whoever can reach the service.
LOCAL_OWNER = "local"


class JobState(StrEnum):
    """The states of a job. It starts as queued; every state but queued and running is final."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    ERASED = "erased"


OPEN_STATES = (JobState.QUEUED, JobState.RUNNING)


class Stage(StrEnum):
    """How far a job's computation has come."""

    RECEIVED = "received"
    SCREENED = "screened"
    GRADIENTS = "gradients"
    SCORED = "scored"


class UtcDateTime(TypeDecorator[datetime]):
    """A moment, always in UTC. SQLite stores no time zone, so it is taken off on the way in and put back."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a moment needs a time zone")
        moment = value.astimezone(UTC)
        return moment.replace(tzinfo=None) if dialect.name == "sqlite" else moment

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


Json = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")


class Base(DeclarativeBase):
    type_annotation_map: ClassVar = {
        datetime: UtcDateTime(),
        JsonObject: Json,
        list[str]: Json,
        list[JsonObject]: Json,
    }


class Question(MappedAsDataclass, kw_only=True):
    """What is asked, and for whom.

    Each field is stated here and nowhere else: an upload (`NewJob`), a row (`Job`) and a worker's share
    (`ClaimedJob`) have them all. A new one takes a migration, and whoever asks it and whoever answers it.
    """

    owner: Mapped[str] = mapped_column(String(80), default=LOCAL_OWNER)
    priority: Mapped[int] = mapped_column(default=0)
    client_tag: Mapped[str | None] = mapped_column(String(200), default=None)
    index_id: Mapped[str] = mapped_column(String(200))
    method: Mapped[str] = mapped_column(String(40))
    candidates: Mapped[str] = mapped_column(String(16))
    candidate_works: Mapped[list[str] | None] = mapped_column(default=None)
    top_k: Mapped[int]
    prompt: Mapped[str | None] = mapped_column(Text, default=None)
    seed: Mapped[int | None] = mapped_column(BigInteger, default=None)
    input: Mapped[JsonObject]
    # W3C's, of the request that asked, where traces are kept.
    traceparent: Mapped[str | None] = mapped_column(String(55), default=None)


class NewJob(Question, kw_only=True):
    """What the app knows when it accepts an upload.

    Jobs of a lower `priority` go first. `input` is `{"sha256", "width", "height", "format", "normalisation": [...],
    "declared"}`, the last what the file says of itself with what was `taken` of that, or None. `candidate_works` are
    the ids of the works that screening chose to be scored, None for all works; `lookalikes` is what it found, None
    where it hasn't finished. `webhook_endpoint` is the id of the only endpoint that shall hear of it, None for all of
    its owner.
    """

    webhook_endpoint: Mapped[str | None] = mapped_column(String(40), default=None)
    lookalikes: Mapped[list[JsonObject] | None] = mapped_column(default=None)


class Job(NewJob, Base, kw_only=True, eq=False, repr=False):
    """One uploaded picture and the question which training works it owes most to.

    The image itself lies in the blob store under the job's id. `version` is raised by every change a person
    can see, so it serves as ETag and for long polling. `attempt` counts how often a worker has started on the
    job.
    """

    __tablename__ = "jobs"
    __table_args__ = (
        Index("ix_jobs_state_id", "state", "id"),
        Index("ix_jobs_turn", "state", "priority", "turn", "id"),
        Index("ix_jobs_owner_turn", "owner", "state", "priority", "turn"),
        Index("ix_jobs_owner_id", "owner", "id"),
        Index("ix_jobs_client_tag_id", "client_tag", "id"),
        Index("ix_jobs_state_finished", "state", "finished_at"),
        Index("ix_jobs_state_upload", "state", "upload_gone_at", "finished_at"),
        Index("ix_jobs_lease_token", "lease_token", unique=True),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    state: Mapped[str] = mapped_column(String(16), default=JobState.QUEUED)
    version: Mapped[int] = mapped_column(default=1)
    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None] = mapped_column(default=None)
    finished_at: Mapped[datetime | None] = mapped_column(default=None)

    # When its picture's time was over; see `jobs.retention`.
    upload_gone_at: Mapped[datetime | None] = mapped_column(default=None)

    # Its place among those that wait; see `jobs.turns`.
    turn: Mapped[int] = mapped_column(BigInteger, default=0)

    # How far it is.
    stage: Mapped[str] = mapped_column(String(16), default=Stage.RECEIVED)
    progress_done: Mapped[int] = mapped_column(default=0)
    progress_total: Mapped[int] = mapped_column(default=0)

    # The lease: who works on it, until when that is believed, and the token that a write must show.
    attempt: Mapped[int] = mapped_column(default=0)
    leased_by: Mapped[str | None] = mapped_column(String(120), default=None)
    lease_token: Mapped[str | None] = mapped_column(String(80), default=None)
    lease_expires_at: Mapped[datetime | None] = mapped_column(default=None)
    rung_at: Mapped[datetime | None] = mapped_column(default=None)

    # The answer.
    result: Mapped[JsonObject | None] = mapped_column(default=None)
    timings: Mapped[JsonObject | None] = mapped_column(default=None)
    error: Mapped[JsonObject | None] = mapped_column(default=None)

    # What release 0.1.0 wrote names works by their row; see `jobs.rows`.
    by_row: Mapped[bool] = mapped_column(default=False)

    @property
    def retrying(self) -> bool:
        """Whether an earlier attempt was lost (a killed worker, an expired lease) and it is tried again."""
        return (self.state == JobState.QUEUED and self.attempt > 0) or (
            self.state == JobState.RUNNING and self.attempt > 1
        )

    @property
    def finished(self) -> bool:
        """Whether nothing more will happen to this job, short of erasing it."""
        return self.state not in OPEN_STATES


class ClaimedJob(Question, kw_only=True):
    """A job that this worker holds the lease of; `token` guards each write about it."""

    id: str
    token: str
    attempt: int
    created_at: datetime
    queue_wait_ms: float


class JobEvent(Base):
    """A change of a job's state, kept in order; written in the same transaction as the change."""

    __tablename__ = "job_events"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    job_id: Mapped[str] = mapped_column(String(40), index=True)
    at: Mapped[datetime] = mapped_column(index=True)
    kind: Mapped[str] = mapped_column(String(24))
    data: Mapped[JsonObject]


class WorkerBeat(Base):
    """A worker's last sign of life."""

    __tablename__ = "workers"

    id: Mapped[str] = mapped_column(String(120), primary_key=True)
    started_at: Mapped[datetime]
    seen_at: Mapped[datetime]
    info: Mapped[JsonObject]


@dataclass(frozen=True, kw_only=True)
class JobFilters:
    """Which jobs a listing shows; None doesn't filter. Erased jobs show only when asked for by state."""

    owner: str | None = None
    state: str | None = None
    client_tag: str | None = None
    created_after: datetime | None = None


@dataclass(frozen=True)
class Standing:
    """How a job stands and how far it is, without what is known of it: enough to see whether anything has changed."""

    id: str
    owner: str
    state: str
    version: int
    stage: str
    progress_done: int
    progress_total: int
    attempt: int
    started_at: datetime | None

    @property
    def finished(self) -> bool:
        """As of a `Job`."""
        return self.state not in OPEN_STATES


@dataclass(frozen=True)
class Event:
    """A `JobEvent` as it is read: what happened to a job."""

    id: int
    job_id: str
    at: datetime
    kind: str
    data: JsonObject


@dataclass(frozen=True)
class JobSummary:
    """What a list tells of a job. `summary` is its answer's sentence, `in_model` and `copied` its verdicts,
    `first_work` the id of whom the sentence may name; a tombstone has neither index nor method."""

    id: str
    state: str
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    client_tag: str | None
    index_id: str
    method: str
    summary: str | None
    in_model: str | None
    copied: str | None
    first_work: str | None = None


@dataclass(frozen=True)
class Page:
    """One page of jobs, newest first. `next_cursor` is None on the last one."""

    jobs: list[JobSummary]
    next_cursor: str | None


@dataclass(frozen=True)
class SweepReport:
    """What a sweep found: job ids by what was done with them. `to_ring` is whom to ring for, oldest first."""

    requeued: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    to_ring: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class WorkerInfo:
    """A worker as its last heartbeat showed it. `fresh`: that was recent enough to count on it."""

    id: str
    started_at: datetime
    seen_at: datetime
    fresh: bool
    info: JsonObject

    @property
    def ready(self) -> bool:
        """Whether it is alive and has its index and model loaded."""
        return self.fresh and self.info.get("engine") == "ready"

    @property
    def indexes(self) -> set[str]:
        """The indexes that it answers about, or will once it has loaded them."""
        return set() if self.info.get("engine") == "failed" else set(self.info.get("indexes", ()))


def about_index(wanted: str) -> ColumnElement[bool]:
    """Whether a question is about an index: of this name, whatever version, or of this id."""
    if "@" in wanted:
        return Job.index_id == wanted
    return Job.index_id.startswith(f"{wanted}@", autoescape=True)


def utc_now() -> datetime:
    """This moment, in UTC."""
    return datetime.now(UTC)
