"""Which works an owner was shown in the last day: what a budget of distinct works a day is counted by.

A work that was shown is free for a day; showing others takes from the budget. An answer is one look at the database,
and one transaction where it shows something new.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import ColumnElement, Index, String, delete, func, select, text, tuple_
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Mapped, Session, mapped_column

from jobs.database import Database
from jobs.models import Base, utc_now

FREE_FOR = timedelta(days=1)
DROPPED_AT_ONCE = 5000
# An SQLite of before 2020 takes 999 parameters.
ASKED_AT_ONCE = 900
# Any constant: names the locks that have an owner's budget spent by one transaction at a time on PostgreSQL.
BUDGET_LOCK = 0xDA5_B0D


class RevealedWork(Base):
    """A work that was shown to somebody for the first time of a day at `shown_at`, of whichever index: its id is made
    of its file's digest."""

    __tablename__ = "revealed_works"
    __table_args__ = (Index("ix_revealed_works_shown_at", "shown_at"),)

    owner: Mapped[str] = mapped_column(String(80), primary_key=True)
    work_id: Mapped[str] = mapped_column(String(200), primary_key=True)
    shown_at: Mapped[datetime]


class Spent(NamedTuple):
    """How many works count now, and when none of them does any more if no other is shown."""

    works: int
    until: datetime | None


class RevealedWorks:
    """All that is done to them. Its methods block for a few milliseconds."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def reveal(self, owner: str, work_ids: Sequence[str], most: int) -> frozenset[str]:
        """Which of these works may be shown to an owner: those that were in the last day, and the first of the others
        until it is `most` in all. What may be shown is recorded as shown.

        However many ask at once, no more than `most` are.

        Raises:
            StorageError: it can't be read or recorded, so none may be shown.
        """
        wanted = [*dict.fromkeys(work_ids)]
        if not wanted:
            return frozenset()
        since = utc_now() - FREE_FOR
        with self._database.read() as session:
            known = _known(session, owner, wanted, since)
            # Almost always there is nothing new, or nothing left, and a reader holds nobody up.
            if len(known) == len(wanted) or _used(session, owner, since) >= most:
                return frozenset(known)
        with self._database.write() as session:
            if session.get_bind().dialect.name == "postgresql":
                # SQLite has one writer at a time by itself.
                lock = text("SELECT pg_advisory_xact_lock(:key, hashtext(:owner))")
                session.execute(lock, {"key": BUDGET_LOCK, "owner": owner})
            known = _known(session, owner, wanted, since)
            left = max(0, most - _used(session, owner, since))
            new = [work_id for work_id in wanted if work_id not in known][:left]
            if new:
                _record(session, owner, new)
        return frozenset((*known, *new))

    def spent(self, owner: str) -> Spent:
        """How much of an owner's budget is used up."""
        since = utc_now() - FREE_FOR
        with self._database.read() as session:
            newest = select(func.max(RevealedWork.shown_at)).where(*_of(owner, since))
            shown_at = session.scalar(newest)
            return Spent(_used(session, owner, since), None if shown_at is None else shown_at + FREE_FOR)

    def drop_old(self) -> int:
        """Drop what doesn't count any more, `DROPPED_AT_ONCE` at most; returns how many."""
        old = RevealedWork.shown_at <= utc_now() - FREE_FOR
        with self._database.read() as session:
            if session.scalar(select(RevealedWork.work_id).where(old).limit(1)) is None:
                return 0
        key = (RevealedWork.owner, RevealedWork.work_id)
        oldest = select(*key).where(old).order_by(RevealedWork.shown_at).limit(DROPPED_AT_ONCE)
        # Whoever shows such a work again holds its row on PostgreSQL, and isn't waited for.
        over = oldest.with_for_update(skip_locked=True).cte("over")
        with self._database.write() as session:
            dropped = delete(RevealedWork).where(tuple_(*key).in_(select(over)))
            return len(session.scalars(dropped.returning(RevealedWork.work_id)).all())


def _of(owner: str, since: datetime) -> tuple[ColumnElement[bool], ...]:
    return (RevealedWork.owner == owner, RevealedWork.shown_at > since)


def _used(session: Session, owner: str, since: datetime) -> int:
    counted = select(func.count()).select_from(RevealedWork).where(*_of(owner, since))
    return session.scalar(counted) or 0


def _record(session: Session, owner: str, work_ids: Sequence[str]) -> None:
    """Have these works be shown now; a row may be there that is over."""
    dialect = postgresql if session.get_bind().dialect.name == "postgresql" else sqlite
    row = dialect.insert(RevealedWork)
    shown = row.on_conflict_do_update(
        index_elements=[RevealedWork.owner, RevealedWork.work_id], set_={"shown_at": row.excluded.shown_at}
    )
    now = utc_now()
    session.execute(shown, [{"owner": owner, "work_id": one, "shown_at": now} for one in work_ids])


def _known(session: Session, owner: str, work_ids: Sequence[str], since: datetime) -> set[str]:
    """Which of these works are free."""
    found: set[str] = set()
    own = select(RevealedWork.work_id).where(*_of(owner, since))
    for begin in range(0, len(work_ids), ASKED_AT_ONCE):
        found |= {
            *session.scalars(own.where(RevealedWork.work_id.in_(work_ids[begin : begin + ASKED_AT_ONCE])))
        }
    return found
