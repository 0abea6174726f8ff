"""The audit log: who did what to which object, when, and what came of it. It grows until what is old is dropped.

What is recorded is written in the transaction of the thing itself where there is one, so that neither is there
without the other. An entry names a key by its public part and an object by its id; pictures, prompts, contacts and
secrets have no place in it.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Index, String, delete, select
from sqlalchemy.orm import Mapped, Session, mapped_column
from uuid_utils import uuid7

from jobs.database import Database
from jobs.errors import BadCursor
from jobs.models import Base, JsonObject, utc_now

PREFIX = "aud_"
AUDIT_ID = re.compile(PREFIX + "[0-9a-f]{32}")
DONE, REFUSED = "done", "refused"
# What one round of dropping old entries takes, so that nobody waits for it.
DROPPED_AT_ONCE = 1000
READ_AT_ONCE = 500


class AuditEvent(Base):
    """One entry."""

    __tablename__ = "audit_events"
    __table_args__ = (
        Index("ix_audit_events_at", "at"),
        Index("ix_audit_events_actor_id", "actor", "id"),
        Index("ix_audit_events_action_id", "action", "id"),
        Index("ix_audit_events_object_id", "object", "id"),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    at: Mapped[datetime]
    actor: Mapped[str] = mapped_column(String(80))
    action: Mapped[str] = mapped_column(String(40))
    object: Mapped[str | None] = mapped_column(String(200))
    outcome: Mapped[str] = mapped_column(String(40))
    request_id: Mapped[str | None] = mapped_column(String(128))
    details: Mapped[JsonObject]


@dataclass(frozen=True)
class Actor:
    """Who does something: the public part of a key or link, or one of those below; and in which request."""

    name: str
    request_id: str | None = None


SHELL = Actor("operator's shell")
"""Whoever runs `das` on the service's machine."""
SERVICE = Actor("service")
"""The service by itself, when something's time is over."""


@dataclass(frozen=True, kw_only=True)
class AuditFilters:
    """Which entries are listed; None doesn't filter. `action` may be the part before the dot."""

    actor: str | None = None
    action: str | None = None
    object: str | None = None
    after: datetime | None = None
    before: datetime | None = None


@dataclass(frozen=True)
class AuditPage:
    """One page, newest first."""

    events: Sequence[AuditEvent]
    next_cursor: str | None


def record(
    session: Session, by: Actor, action: str, object_id: str | None, outcome: str = DONE, **details: Any
) -> None:
    """Write an entry in the transaction of that which it is about.

    Args:
        action: what was done, such as `key.revoked`.
        object_id: to what.
        details: plain values of a few words, none of them a secret or somebody's own text.
    """
    session.add(
        AuditEvent(
            id=PREFIX + uuid7().hex,
            at=utc_now(),
            actor=by.name[:80],
            action=action,
            object=None if object_id is None else object_id[:200],
            outcome=outcome,
            request_id=by.request_id,
            details=details,
        )
    )


class Audit:
    """Reading the log, and writing of what has no transaction of its own."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def write(
        self, by: Actor, action: str, object_id: str | None, outcome: str = DONE, **details: Any
    ) -> None:
        """Write one entry by itself; `record` says what the arguments are."""
        with self._database.write() as session:
            record(session, by, action, object_id, outcome, **details)

    def list(
        self, filters: AuditFilters | None = None, cursor: str | None = None, limit: int = 20
    ) -> AuditPage:
        """A page of entries, newest first.

        Raises:
            BadCursor: the cursor isn't one of ours.
        """
        filters = filters or AuditFilters()
        statement = select(AuditEvent).order_by(AuditEvent.id.desc()).limit(limit + 1)
        if cursor is not None:
            if not AUDIT_ID.fullmatch(cursor):
                raise BadCursor(f"{cursor!r} isn't a cursor of this list; start again without one")
            statement = statement.where(AuditEvent.id < cursor)
        if filters.actor is not None:
            statement = statement.where(AuditEvent.actor == filters.actor)
        if filters.action is not None:
            exactly = AuditEvent.action == filters.action
            group = AuditEvent.action.startswith(f"{filters.action}.", autoescape=True)
            statement = statement.where(exactly | group)
        if filters.object is not None:
            statement = statement.where(AuditEvent.object == filters.object)
        if filters.after is not None:
            statement = statement.where(AuditEvent.at > filters.after)
        if filters.before is not None:
            statement = statement.where(AuditEvent.at < filters.before)
        with self._database.read() as session:
            found = session.scalars(statement).all()
        return AuditPage(found[:limit], found[limit - 1].id if len(found) > limit else None)

    def each(self, filters: AuditFilters | None = None) -> Iterator[AuditEvent]:
        """Every entry, newest first, read a few hundred at a time."""
        cursor: str | None = None
        while True:
            page = self.list(filters, cursor, READ_AT_ONCE)
            yield from page.events
            if page.next_cursor is None:
                return
            cursor = page.next_cursor

    def drop_old(self, kept: timedelta, now: datetime | None = None) -> int:
        """Drop entries that are older, `DROPPED_AT_ONCE` at most; returns how many. Any number may do it at once."""
        before = (now or utc_now()) - kept
        old = select(AuditEvent.id).where(AuditEvent.at < before).limit(DROPPED_AT_ONCE)
        with self._database.read() as session:
            if session.scalar(old.limit(1)) is None:
                return 0
        with self._database.write() as session:
            dropped = delete(AuditEvent).where(AuditEvent.id.in_(old)).returning(AuditEvent.id)
            return len(session.scalars(dropped).all())
