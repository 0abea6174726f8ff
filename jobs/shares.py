"""Shares: links by which somebody without a key reads one answer, without what its owner has left out.

The token is in the link and nowhere else: kept is its SHA-256, by which it is found. A link that was withdrawn, whose
time is over, or that never was, are one case, found by one statement: there is no such row. Erasing a question erases
its shares in the same transaction.
"""

import hashlib
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Index, String, and_, delete, exists, or_, select, update
from sqlalchemy.orm import Mapped, Session, mapped_column
from uuid_utils import uuid7

from jobs.audit import Actor, record
from jobs.credentials import SECRET_BYTES
from jobs.database import Database
from jobs.errors import JobNotFound, JobsError
from jobs.keeping import Keeping
from jobs.keys import ApiKey
from jobs.models import LOCAL_OWNER, Base, Job, JobState, utc_now

PREFIX = "shr_"
SHARE_ID = re.compile(PREFIX + "[0-9a-f]{32}")
TOKEN_PREFIX = "dass_"
USUAL = timedelta(days=30)
LONGEST = timedelta(days=365)
# Of one question: who makes more has a program that goes round in circles.
MOST_OPEN = 50
MOST_KEPT = 100
MAX_LABEL = 200


class Share(Base):
    """One link. `left_out` are the parts that aren't told (`app.left_out` says which), `works` how many of the first
    works are, None for all; `label` is its owner's own word for it."""

    __tablename__ = "shares"
    __table_args__ = (
        Index("ix_shares_digest", "digest", unique=True),
        Index("ix_shares_job_id_id", "job_id", "id"),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    job_id: Mapped[str] = mapped_column(String(40))
    owner: Mapped[str] = mapped_column(String(80))
    digest: Mapped[str] = mapped_column(String(64))
    label: Mapped[str | None] = mapped_column(String(MAX_LABEL))
    left_out: Mapped[list[str]]
    works: Mapped[int | None]
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]
    views: Mapped[int]
    viewed_at: Mapped[datetime | None]

    def state(self, now: datetime) -> str:
        """`open`, `expired` or `revoked`."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at <= now else "open"


@dataclass(frozen=True, kw_only=True)
class NewShare:
    """What is asked for. `expires_at` None: after the usual time; it is never later than the question's own end."""

    job_id: str
    owner: str
    left_out: tuple[str, ...] = ()
    works: int | None = None
    label: str | None = None
    expires_at: datetime | None = None


@dataclass(frozen=True)
class Issued:
    """A share with its token, which is known nowhere else and never again."""

    share: Share
    token: str

    def __repr__(self) -> str:
        return f"Issued({self.share.id})"


class ShareNotFound(JobsError):
    """There is no such share of this question."""


class ShareRefused(JobsError):
    """It can't be made; the message says why."""


class Shares:
    """All that is done to shares. Its methods block for a few milliseconds."""

    def __init__(self, database: Database, keeping: Keeping) -> None:
        self._database = database
        self._keeping = keeping

    def create(self, wanted: NewShare, by: Actor) -> Issued:
        """Make a link to an answer of this owner.

        Raises:
            JobNotFound: there is no such question, or only its tombstone.
            ShareRefused: it has no answer, too many links already, or the time can't be used.
        """
        now = utc_now()
        expires_at = wanted.expires_at or now + USUAL
        if not now < expires_at <= now + LONGEST:
            raise ShareRefused(f"a link is open for a moment at least and {LONGEST.days} days at most")
        token = TOKEN_PREFIX + secrets.token_urlsafe(SECRET_BYTES)
        # Looked up before the transaction, which holds up every other writer while it is open.
        self._keeping.of(wanted.owner)
        with self._database.write() as session:
            job = session.get(Job, wanted.job_id, with_for_update=True)
            if job is None or job.owner != wanted.owner or job.state == JobState.ERASED:
                raise JobNotFound(wanted.job_id)
            if job.state != JobState.SUCCEEDED:
                raise ShareRefused(f"there is no answer to share: the question is {job.state}")
            self._make_room(session, job.id, now)
            ends = self._keeping.expires_at(job)
            share = Share(
                id=PREFIX + uuid7().hex,
                job_id=job.id,
                owner=job.owner,
                digest=digest_of(token),
                label=wanted.label,
                left_out=list(wanted.left_out),
                works=wanted.works,
                created_at=now,
                expires_at=expires_at if ends is None else min(expires_at, ends),
                revoked_at=None,
                views=0,
                viewed_at=None,
            )
            session.add(share)
            record(
                session,
                by,
                "share.created",
                share.id,
                question=job.id,
                left_out=share.left_out,
                works=share.works,
                expires_at=share.expires_at.isoformat(timespec="seconds"),
            )
            return Issued(share, token)

    def of(self, job_id: str, owner: str) -> Sequence[Share]:
        """Every share of a question of this owner, the newest first."""
        newest_first = select(Share).where(Share.job_id == job_id, Share.owner == owner)
        with self._database.read() as session:
            return session.scalars(newest_first.order_by(Share.id.desc())).all()

    def revoke(self, job_id: str, share_id: str, owner: str, by: Actor) -> Share:
        """End a link at once. Revoking it again changes nothing.

        Raises:
            ShareNotFound: this owner's question has none of this id.
        """
        if not SHARE_ID.fullmatch(share_id):
            raise ShareNotFound(share_id)
        with self._database.write() as session:
            share = session.get(Share, share_id, with_for_update=True)
            if share is None or (share.job_id, share.owner) != (job_id, owner):
                raise ShareNotFound(share_id)
            if share.revoked_at is None:
                share.revoked_at = utc_now()
                record(session, by, "share.revoked", share.id, question=job_id)
            return share

    def opened(self, token: str, *, local: bool) -> tuple[Share, Job] | None:
        """The share that a token opens, with its question; None for whatever opens nothing, for whichever reason.

        Args:
            local: whether what was asked without a key is still somebody's. Where keys are needed since, nobody could
                withdraw a link of it.
        """
        statement = select(Share, Job).join(Job, Job.id == Share.job_id).where(*_open(token, local))
        with self._database.read() as session:
            found = session.execute(statement).one_or_none()
        return None if found is None else (found[0], found[1])

    def count_view(self, share_id: str) -> None:
        """Note that somebody has looked."""
        with self._database.write() as session:
            seen = update(Share).where(Share.id == share_id)
            session.execute(seen.values(views=Share.views + 1, viewed_at=utc_now()))

    def _make_room(self, session: Session, job_id: str, now: datetime) -> None:
        """See that a question has room for another share: the oldest of those that are over make it."""
        shares = session.scalars(select(Share).where(Share.job_id == job_id).order_by(Share.id)).all()
        over = [share for share in shares if share.state(now) != "open"]
        if len(shares) - len(over) >= MOST_OPEN:
            raise ShareRefused(f"{MOST_OPEN} links to this answer are open: withdraw one first")
        for share in over[: max(0, len(shares) + 1 - MOST_KEPT)]:
            session.delete(share)


def digest_of(token: str) -> str:
    """SHA-256 of a token in hex: what is kept of it. Any text has one."""
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()


def erase_shares(session: Session, job_id: str) -> None:
    """Remove every share of a question, in the transaction that erases it."""
    session.execute(delete(Share).where(Share.job_id == job_id))


def _open(token: str, local: bool) -> tuple[ColumnElement[bool], ...]:
    """When a token opens a share: also its owner has to be somebody still, a key at least that wasn't revoked."""
    somebodys: ColumnElement[bool] = exists().where(
        and_(ApiKey.owner == Share.owner, ApiKey.revoked_at.is_(None))
    )
    if local:
        somebodys = or_(somebodys, Share.owner == LOCAL_OWNER)
    return (
        Share.digest == digest_of(token),
        Share.revoked_at.is_(None),
        Share.expires_at > utc_now(),
        Job.state == JobState.SUCCEEDED,
        somebodys,
    )
