"""Looks at a database that is a file, for an event loop: each takes a fraction of a millisecond.

Handing such a look to a thread costs several times that under load, since the thread and the loop take turns with the
interpreter. Nobody who writes holds up who reads a file with a write-ahead log; where somebody is in the way all the
same, the look is given up and belongs into a thread.
"""

from collections.abc import Sequence
from dataclasses import fields
from typing import Protocol, Self, cast

from sqlalchemy import Connection, Engine, Table, bindparam, select
from sqlalchemy.orm import Session

from jobs.database import WITHOUT_TRANSACTION, explained, open_engine
from jobs.models import Event, Job, JobEvent, Standing
from jobs.settings import Settings

PATIENCE_S = 0.05

# Built once: putting one of these together takes longer than running it, and everybody who polls runs them. Of tables
# and not of classes: those take twice as long.
_JOB, _EVENT = cast(Table, Job.__table__).c, cast(Table, JobEvent.__table__).c
STANDING = select(*(_JOB[part.name] for part in fields(Standing))).where(_JOB.id == bindparam("job_id"))
EVENTS = (
    select(*(_EVENT[part.name] for part in fields(Event)))
    .where(_EVENT.job_id == bindparam("job_id"), _EVENT.id > bindparam("after"))
    .order_by(_EVENT.id)
)


class Looks(Protocol):
    """What can be looked at near and in a thread alike."""

    def standing(self, job_id: str, owner: str | None = None) -> Standing | None:
        """How the job stands; None if there never was one of this id, or it is another's."""

    def events(self, job_id: str, after: int = 0) -> Sequence[Event]:
        """What happened to the job, in order, from the event after number `after`."""


class Near:
    """The looks; raises `StorageError` where one can't be had at once."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @classmethod
    def to(cls, settings: Settings) -> Self | None:
        """The looks at this database; None where it is no file."""
        engine = open_engine(settings, patience_s=PATIENCE_S)
        return (
            cls(engine.execution_options(**WITHOUT_TRANSACTION)) if engine.dialect.name == "sqlite" else None
        )

    def standing(self, job_id: str, owner: str | None = None) -> Standing | None:
        with explained(self._engine), self._engine.connect() as connection:
            return standing_of(connection, job_id, owner)

    def events(self, job_id: str, after: int = 0) -> Sequence[Event]:
        with explained(self._engine), self._engine.connect() as connection:
            return events_of(connection, job_id, after)

    def close(self) -> None:
        self._engine.dispose()


def standing_of(database: Session | Connection, job_id: str, owner: str | None) -> Standing | None:
    row = database.execute(STANDING, {"job_id": job_id}).one_or_none()
    return None if row is None or owner not in (None, row.owner) else Standing(*row)


def events_of(database: Session | Connection, job_id: str, after: int) -> Sequence[Event]:
    rows = database.execute(EVENTS, {"job_id": job_id, "after": after})
    return [Event(*row) for row in rows]
