"""Searches that several workers share: what each is asked about its section of an index, and what it found there.

The worker that answers a question leads its search: it writes a row for each section, names the worker that shall
compute it, and rings. Whoever leads needs nobody: what no one has begun, or doesn't finish, it computes itself. So a
section has no lease, and a result that comes too late changes nothing.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Index, LargeBinary, String, delete, select, update
from sqlalchemy.orm import Mapped, mapped_column

from jobs.database import Database
from jobs.ids import new_search_id
from jobs.models import Base, utc_now
from jobs.settings import Settings


class Search(Base):
    """What a leading worker asks of others. `question` is the engine's: features of the pictures, no pixels."""

    __tablename__ = "searches"
    __table_args__ = (Index("ix_searches_created_at", "created_at"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    index_id: Mapped[str] = mapped_column(String(200))
    method: Mapped[str] = mapped_column(String(40))
    question: Mapped[bytes] = mapped_column(LargeBinary)
    created_at: Mapped[datetime]


class SearchSection(Base):
    """A section of the index, the worker that it is meant for, and what that found; an empty result: it couldn't."""

    __tablename__ = "search_sections"
    __table_args__ = (Index("ix_search_sections_worker_taken_at", "worker", "taken_at"),)

    search_id: Mapped[str] = mapped_column(String(40), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    first_row: Mapped[int]
    end_row: Mapped[int]
    worker: Mapped[str] = mapped_column(String(120))
    taken_at: Mapped[datetime | None] = mapped_column(default=None)
    result: Mapped[bytes | None] = mapped_column(LargeBinary, default=None)


@dataclass(frozen=True)
class SectionTask:
    """A section that a worker has taken: rows `begin` to `end` of the index, that one not included."""

    search_id: str
    number: int
    worker: str
    index_id: str
    method: str
    question: bytes
    begin: int
    end: int


@dataclass(frozen=True)
class SectionState:
    """How far a section is."""

    taken: bool
    result: bytes | None


class Searches:
    """All that is done to them. Its methods block for a few milliseconds."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._settings = settings
        self._database = database

    def begin(
        self, index_id: str, method: str, question: bytes, sections: Sequence[tuple[int, int, str]]
    ) -> str:
        """Ask for sections, each with its rows `begin` to `end` and the worker meant; they are numbered as given.

        Returns:
            The search's id, which is rung for.

        Raises:
            StorageError: it can't be written.
        """
        search_id, now = new_search_id(), utc_now()
        with self._database.write() as session:
            session.add(
                Search(id=search_id, index_id=index_id, method=method, question=question, created_at=now)
            )
            for number, (begin, end, worker) in enumerate(sections):
                session.add(
                    SearchSection(
                        search_id=search_id, number=number, first_row=begin, end_row=end, worker=worker
                    )
                )
        return search_id

    def take(self, worker_id: str, indexes: Collection[str]) -> SectionTask | None:
        """The oldest section that waits for this worker and is of one of these indexes, which nobody else takes then.

        Raises:
            StorageError: it can't be read or written.
        """
        waiting = (
            select(SearchSection.search_id, SearchSection.number)
            .join(Search, Search.id == SearchSection.search_id)
            .where(
                SearchSection.worker == worker_id,
                SearchSection.taken_at.is_(None),
                Search.index_id.in_(indexes),
                # A worker that led and died ends no search.
                Search.created_at > self._oldest(),
            )
            .order_by(Search.created_at, SearchSection.number)
            .limit(1)
        )
        with self._database.read() as session:
            found = session.execute(waiting).one_or_none()
        if found is None or not self._begin(*found, worker_id):
            return None
        task = (
            select(SearchSection, Search)
            .join(Search, Search.id == SearchSection.search_id)
            .where(SearchSection.search_id == found.search_id, SearchSection.number == found.number)
        )
        with self._database.read() as session:
            rows = session.execute(task).one_or_none()
        if rows is None:
            return None
        section, search = rows
        return SectionTask(
            search.id,
            section.number,
            worker_id,
            search.index_id,
            search.method,
            search.question,
            section.first_row,
            section.end_row,
        )

    def take_over(self, search_id: str, number: int, worker_id: str) -> None:
        """Have a section be this worker's from now on, whoever was to compute it or has begun to."""
        with self._database.write() as session:
            session.execute(
                update(SearchSection)
                .where(SearchSection.search_id == search_id, SearchSection.number == number)
                .values(worker=worker_id, taken_at=utc_now())
            )

    def is_wanted(self, task: SectionTask) -> bool:
        """Whether who took a section is still to compute it: not where it was taken over or its search is over."""
        with self._database.read() as session:
            return session.execute(select(SearchSection.number).where(*_own(task))).one_or_none() is not None

    def hand_in(self, task: SectionTask, result: bytes) -> bool:
        """Write what was found in a section, nothing where it couldn't be computed; False where it comes too late."""
        handing = update(SearchSection).where(*_own(task)).values(result=result)
        with self._database.write() as session:
            return session.execute(handing.returning(SearchSection.number)).one_or_none() is not None

    def states(self, search_id: str, numbers: Collection[int]) -> dict[int, SectionState]:
        """How far these sections are."""
        asked = select(SearchSection.number, SearchSection.taken_at, SearchSection.result).where(
            SearchSection.search_id == search_id, SearchSection.number.in_(numbers)
        )
        with self._database.read() as session:
            return {
                row.number: SectionState(row.taken_at is not None, row.result)
                for row in session.execute(asked)
            }

    def waits(self, search_id: str) -> bool:
        """Whether a section of this search has been begun by nobody."""
        with self._database.read() as session:
            waiting = select(SearchSection.number).where(
                SearchSection.search_id == search_id, SearchSection.taken_at.is_(None)
            )
            return session.execute(waiting.limit(1)).one_or_none() is not None

    def end(self, search_id: str, *, given_up: bool = False) -> None:
        """Forget a search that is over; `given_up`, as where its question was erased, in the database's log too."""
        self._forget([search_id])
        if given_up:
            self._database.forget()

    def forget_old(self) -> None:
        """Forget searches whose leading worker must be dead."""
        with self._database.read() as session:
            old = session.scalars(select(Search.id).where(Search.created_at <= self._oldest())).all()
        if old:
            self._forget(old)
            self._database.forget()

    def _begin(self, search_id: str, number: int, worker_id: str) -> bool:
        """Take a section that waits for this worker; False if it doesn't any more, or its search is over."""
        taking = (
            update(SearchSection)
            .where(
                SearchSection.search_id == search_id,
                SearchSection.number == number,
                SearchSection.worker == worker_id,
                SearchSection.taken_at.is_(None),
            )
            .values(taken_at=utc_now())
            .returning(SearchSection.number)
        )
        with self._database.write() as session:
            return session.execute(taking).one_or_none() is not None

    def _forget(self, search_ids: Sequence[str]) -> None:
        with self._database.write() as session:
            session.execute(delete(SearchSection).where(SearchSection.search_id.in_(search_ids)))
            session.execute(delete(Search).where(Search.id.in_(search_ids)))

    def _oldest(self) -> datetime:
        return utc_now() - timedelta(seconds=self._settings.hard_time_limit_seconds)


def _own(task: SectionTask) -> tuple[ColumnElement[bool], ...]:
    """The row of a section, as long as it is that worker's."""
    return (
        SearchSection.search_id == task.search_id,
        SearchSection.number == task.number,
        SearchSection.worker == task.worker,
    )
