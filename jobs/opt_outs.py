"""Requests to be left out: who asks for which works, how far that has come, and when each part of it was done.

A work that is *hidden* isn't shown any more; that it is *left out* of the next index and *removed* from the model are
other things, which somebody has to do, each with its own date. Works are named by id or by their creator within an
index, which is known here by its name: that stays when it is built again, as the works' ids do.

What was told of the person who asks (contact, statement) can be erased at any time; what is hidden stays hidden.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sqlalchemy import Index, String, Text, func, select
from sqlalchemy.orm import Mapped, Session, mapped_column
from uuid_utils import uuid7

from jobs.audit import Actor, record
from jobs.database import Database
from jobs.errors import BadCursor, JobsError
from jobs.models import Base, utc_now

PREFIX = "opt_"
OPT_OUT_ID = re.compile(PREFIX + "[0-9a-f]{32}")
TOKEN_PREFIX = "daso_"
# Whose requests are those that came without a key; nobody signs in as that.
WITHOUT_KEY = "without-key"

MOST_WORKS = 1000
# Of one owner, or of all who come without a key, that may wait to be looked at.
MOST_RECEIVED = 1000
MAX_CONTACT = 300
MAX_STATEMENT = 4000
MAX_REASON = 1000


class OptOutState(StrEnum):
    """A request is received, verified by the operator, and applied; or it is rejected, or withdrawn."""

    RECEIVED = "received"
    VERIFIED = "verified"
    APPLIED = "applied"
    REJECTED = "rejected"
    WITHDRAWN = "withdrawn"


# Those that may have works hidden.
IN_FORCE = (OptOutState.RECEIVED, OptOutState.VERIFIED, OptOutState.APPLIED)


class OptOut(Base):
    """One request. `revision` is raised by every change that could show or hide a work."""

    __tablename__ = "opt_outs"
    __table_args__ = (
        Index("ix_opt_outs_owner_id", "owner", "id"),
        Index("ix_opt_outs_state_id", "state", "id"),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    owner: Mapped[str] = mapped_column(String(80))
    token_digest: Mapped[str | None] = mapped_column(String(64))
    state: Mapped[str] = mapped_column(String(16))
    revision: Mapped[int]
    index_name: Mapped[str] = mapped_column(String(200))
    works: Mapped[list[str] | None]
    creator: Mapped[str | None] = mapped_column(Text)
    contact: Mapped[str | None] = mapped_column(Text)
    statement: Mapped[str | None] = mapped_column(Text)
    reason: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime]
    verified_at: Mapped[datetime | None]
    hidden_at: Mapped[datetime | None]
    shown_again_at: Mapped[datetime | None]
    left_out_at: Mapped[datetime | None]
    removed_at: Mapped[datetime | None]
    closed_at: Mapped[datetime | None]
    erased_at: Mapped[datetime | None]

    @property
    def hides(self) -> bool:
        """Whether its works are hidden now."""
        return self.hidden_at is not None and self.state in IN_FORCE


@dataclass(frozen=True, kw_only=True)
class NewOptOut:
    """What is asked for: the works of these ids, or all of a creator's."""

    owner: str
    index_name: str
    works: Sequence[str] | None = None
    creator: str | None = None
    contact: str
    statement: str | None = None
    with_token: bool = False


@dataclass(frozen=True)
class Received:
    """A request as it was received, with the secret that lets who sent it look at it; shown once."""

    opt_out: OptOut
    token: str | None

    def __repr__(self) -> str:
        return f"Received({self.opt_out.id})"


@dataclass(frozen=True)
class OptOutPage:
    """One page, newest first."""

    opt_outs: Sequence[OptOut]
    next_cursor: str | None


@dataclass(frozen=True)
class Hiding:
    """What one request hides."""

    index_name: str
    works: frozenset[str]
    creator: str | None


class OptOutNotFound(JobsError):
    """There is no request with this id."""

    def __init__(self, opt_out_id: str) -> None:
        super().__init__(f"there is no opt-out {opt_out_id[:40]!r}; `das opt-outs list` names them all")


class OptOutRefused(JobsError):
    """What is asked for can't be done in the state that the request is in."""


class OptOuts:
    """All that is done to requests. Its methods block for a few milliseconds."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self, wanted: NewOptOut, by: Actor, *, hide: bool) -> Received:
        """Keep a request.

        Args:
            hide: hide its works from now on, before anybody has looked at it.

        Raises:
            OptOutRefused: too many of this owner wait to be looked at.
        """
        now = utc_now()
        token = TOKEN_PREFIX + secrets.token_urlsafe(32) if wanted.with_token else None
        row = OptOut(
            id=PREFIX + uuid7().hex,
            owner=wanted.owner,
            token_digest=None if token is None else _digest(token),
            state=OptOutState.RECEIVED,
            revision=1,
            index_name=wanted.index_name,
            works=None if wanted.works is None else list(wanted.works),
            creator=wanted.creator,
            contact=wanted.contact,
            statement=wanted.statement,
            reason=None,
            created_at=now,
            verified_at=None,
            hidden_at=now if hide else None,
            shown_again_at=None,
            left_out_at=None,
            removed_at=None,
            closed_at=None,
            erased_at=None,
        )
        with self._database.write() as session:
            waiting = session.scalar(
                select(func.count())
                .select_from(OptOut)
                .where(OptOut.owner == wanted.owner, OptOut.state == OptOutState.RECEIVED)
            )
            if (waiting or 0) >= MOST_RECEIVED:
                raise OptOutRefused(f"{waiting} opt-outs wait to be looked at; ask again when they have been")
            session.add(row)
            record(session, by, "opt-out.received", row.id, hidden=hide)
        return Received(row, token)

    def get(self, opt_out_id: str) -> OptOut | None:
        """The request of this id, or None."""
        if not OPT_OUT_ID.fullmatch(opt_out_id):
            return None
        with self._database.read() as session:
            return session.get(OptOut, opt_out_id)

    def list(
        self,
        owner: str | None = None,
        state: str | None = None,
        cursor: str | None = None,
        limit: int = 20,
    ) -> OptOutPage:
        """A page of requests, newest first; those of one owner, or of all.

        Raises:
            BadCursor: the cursor isn't one of ours.
        """
        statement = select(OptOut).order_by(OptOut.id.desc()).limit(limit + 1)
        if cursor is not None:
            if not OPT_OUT_ID.fullmatch(cursor):
                raise BadCursor(f"{cursor!r} isn't a cursor of this list; start again without one")
            statement = statement.where(OptOut.id < cursor)
        if owner is not None:
            statement = statement.where(OptOut.owner == owner)
        if state is not None:
            statement = statement.where(OptOut.state == state)
        with self._database.read() as session:
            found = session.scalars(statement).all()
        return OptOutPage(found[:limit], found[limit - 1].id if len(found) > limit else None)

    def waiting(self) -> int:
        """How many requests nobody has looked at yet."""
        with self._database.read() as session:
            received = select(func.count()).select_from(OptOut).where(OptOut.state == OptOutState.RECEIVED)
            return session.scalar(received) or 0

    def verify(self, opt_out_id: str, by: Actor) -> OptOut:
        """Say that the request is right: its works are hidden from now on. Said again, nothing changes.

        Raises:
            OptOutNotFound: there is none of this id.
            OptOutRefused: it was rejected, withdrawn or applied.
        """
        with self._database.write() as session:
            row = _one(session, opt_out_id)
            if row.state != OptOutState.VERIFIED:
                _only(row, "verified", OptOutState.RECEIVED)
                row.state, row.verified_at = OptOutState.VERIFIED, utc_now()
                row.hidden_at = row.hidden_at or row.verified_at
                row.revision += 1
                record(session, by, "opt-out.verified", row.id)
            return row

    def apply(
        self, opt_out_id: str, by: Actor, left_out_at: datetime | None, removed_at: datetime | None
    ) -> OptOut:
        """Say when its works were left out of an index that was built anew, or removed from the model, or both.

        Raises:
            OptOutNotFound: there is none of this id.
            OptOutRefused: it isn't verified, or neither date is given.
        """
        with self._database.write() as session:
            row = _one(session, opt_out_id)
            _only(row, "applied", OptOutState.VERIFIED, OptOutState.APPLIED)
            if left_out_at is None and removed_at is None:
                raise OptOutRefused(
                    "an opt-out is applied by leaving its works out of a build or by removing them from the model:"
                    " say when which of these was done"
                )
            row.state = OptOutState.APPLIED
            row.left_out_at = left_out_at or row.left_out_at
            row.removed_at = removed_at or row.removed_at
            row.revision += 1
            record(
                session,
                by,
                "opt-out.applied",
                row.id,
                left_out=left_out_at is not None,
                removed=removed_at is not None,
            )
            return row

    def reject(self, opt_out_id: str, by: Actor, reason: str) -> OptOut:
        """Refuse the request; what it hid is shown again.

        Raises:
            OptOutNotFound: there is none of this id.
            OptOutRefused: it was withdrawn, rejected or applied.
        """
        with self._database.write() as session:
            row = _one(session, opt_out_id)
            _only(row, "rejected", OptOutState.RECEIVED, OptOutState.VERIFIED)
            row.reason = reason
            _close(row, OptOutState.REJECTED)
            record(session, by, "opt-out.rejected", row.id)
            return row

    def withdraw(self, opt_out_id: str, by: Actor) -> OptOut:
        """Take the request back; what it hid is shown again. Said again, nothing changes.

        Raises:
            OptOutNotFound: there is none of this id.
            OptOutRefused: it was rejected.
        """
        with self._database.write() as session:
            row = _one(session, opt_out_id)
            if row.state != OptOutState.WITHDRAWN:
                _only(row, "withdrawn", *IN_FORCE)
                _close(row, OptOutState.WITHDRAWN)
                record(session, by, "opt-out.withdrawn", row.id)
            return row

    def erase(self, opt_out_id: str, by: Actor) -> OptOut:
        """Erase contact and statement, and the way to look at it without a key. What it hides stays hidden.

        Raises:
            OptOutNotFound: there is none of this id.
        """
        with self._database.write() as session:
            row = _one(session, opt_out_id)
            if row.erased_at is None:
                erase_person(row)
                record(session, by, "opt-out.erased", row.id)
        self._database.forget()
        return row

    def revision(self) -> int:
        """A number that is another after every change that could show or hide a work."""
        with self._database.read() as session:
            return int(session.scalar(select(func.coalesce(func.sum(OptOut.revision), 0))) or 0)

    def hiding(self) -> tuple[int, Sequence[Hiding]]:
        """What is hidden now, and the `revision` of that."""
        with self._database.read() as session:
            # First: on PostgreSQL each statement sees what was committed before it. Rows that are newer than their
            # revision are read once more; older ones would be believed for good.
            revision = int(session.scalar(select(func.coalesce(func.sum(OptOut.revision), 0))) or 0)
            rows = session.scalars(
                select(OptOut).where(OptOut.hidden_at.is_not(None), OptOut.state.in_(IN_FORCE))
            ).all()
        return revision, [Hiding(row.index_name, frozenset(row.works or ()), row.creator) for row in rows]


def holds_token(opt_out: OptOut, token: str) -> bool:
    """Whether this is the secret that its sender was shown."""
    return opt_out.token_digest is not None and hmac.compare_digest(opt_out.token_digest, _digest(token))


def erase_person(row: OptOut) -> None:
    """Empty what is known of who asked, within a transaction."""
    row.contact = row.statement = row.token_digest = None
    row.erased_at = row.erased_at or utc_now()


def _digest(token: str) -> str:
    # 256 random bits, as a key's: see jobs.credentials.
    return hashlib.sha256(token.encode()).hexdigest()


def _one(session: Session, opt_out_id: str) -> OptOut:
    # What isn't an id was never given, and a database may choke on it.
    found = OPT_OUT_ID.fullmatch(opt_out_id)
    row = session.get(OptOut, opt_out_id, with_for_update=True) if found else None
    if row is None:
        raise OptOutNotFound(opt_out_id)
    return row


def _only(row: OptOut, done: str, *states: OptOutState) -> None:
    if row.state not in states:
        raise OptOutRefused(f"it can't be {done}: it is {row.state}")


def _close(row: OptOut, state: OptOutState) -> None:
    now = utc_now()
    row.state, row.closed_at = state, now
    row.shown_again_at = now if row.hidden_at is not None else None
    row.revision += 1
