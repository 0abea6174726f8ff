"""Looks at a database that is a file, for an event loop: each takes a fraction of a millisecond.

Handing such a look to a thread costs several times that under load, since the thread and the loop take turns with the
interpreter. Nobody who writes holds up who reads a file with a write-ahead log; where somebody is in the way all the
same, the look is given up and belongs into a thread.
"""

from collections.abc import Sequence
from dataclasses import fields
from typing import Protocol, Self

from sqlalchemy import Engine, bindparam, select
from sqlalchemy.orm import Session

from jobs.database import explained, open_engine
from jobs.models import Job, JobEvent, Standing
from jobs.settings import Settings

PATIENCE_S = 0.05

# Built once: putting one of these together takes longer than running it, and everybody who polls runs them.
STANDING = select(*(getattr(Job, part.name) for part in fields(Standing))).where(
    Job.id == bindparam("job_id")
)
EVENTS = (
    select(JobEvent)
    .where(JobEvent.job_id == bindparam("job_id"), JobEvent.id > bindparam("after"))
    .order_by(JobEvent.id)
)


class Looks(Protocol):
    """What can be looked at near and in a thread alike."""

    def standing(self, job_id: str, owner: str | None = None) -> Standing | None:
        """How the job stands; None if there never was one of this id, or it is another's."""

    def events(self, job_id: str, after: int = 0) -> Sequence[JobEvent]:
        """What happened to the job, in order, from the event after number `after`."""


class Near:
    """The looks; raises `StorageError` where one can't be had at once."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @classmethod
    def to(cls, settings: Settings) -> Self | None:
        """The looks at this database; None where it is no file."""
        engine = open_engine(settings, patience_s=PATIENCE_S)
        return cls(engine) if engine.dialect.name == "sqlite" else None

    def standing(self, job_id: str, owner: str | None = None) -> Standing | None:
        with explained(self._engine), Session(self._engine) as session:
            return standing_of(session, job_id, owner)

    def events(self, job_id: str, after: int = 0) -> Sequence[JobEvent]:
        with explained(self._engine), Session(self._engine, expire_on_commit=False) as session:
            return events_of(session, job_id, after)

    def close(self) -> None:
        self._engine.dispose()


def standing_of(session: Session, job_id: str, owner: str | None) -> Standing | None:
    row = session.execute(STANDING, {"job_id": job_id}).one_or_none()
    return None if row is None or owner not in (None, row.owner) else Standing(*row)


def events_of(session: Session, job_id: str, after: int) -> Sequence[JobEvent]:
    return session.scalars(EVENTS, {"job_id": job_id, "after": after}).all()
