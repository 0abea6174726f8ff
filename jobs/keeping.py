"""For how long questions are kept: by the settings, or by the key that asked.

What was asked without a key is the asker's own, on their own machine: it is kept until they delete it, unless the
settings say otherwise. Whether that is so is told by the question's owner and not by how this process was started, so
that every process of a service comes to the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from jobs.database import Database
from jobs.keys import ApiKey
from jobs.models import LOCAL_OWNER, Job, JobState
from jobs.record_settings import DAY_S
from jobs.settings import Settings

ENDED = (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)
# Unless a setting or a key says otherwise; counted from the question's end.
UPLOADS = timedelta(seconds=DAY_S)
RESULTS = timedelta(days=90)
OWNERS_KNOWN = 10_000


@dataclass(frozen=True)
class Times:
    """How long an owner's pictures and questions are kept after their end; None: until they are deleted."""

    uploads: timedelta | None
    results: timedelta | None


class Keeping:
    """Says for how long. Its methods block for a moment."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._database = database
        self._set = Times(_span(settings.keep_uploads_seconds), _span(settings.keep_results_seconds))
        # A key's times never change, and the one that replaces it has the same.
        self.of = lru_cache(OWNERS_KNOWN)(self._of)

    @property
    def of_keys(self) -> Times:
        """The times of a key that has none of its own."""
        return Times(_first(self._set.uploads, UPLOADS), _first(self._set.results, RESULTS))

    def _of(self, owner: str) -> Times:
        """The times of an owner."""
        with self._database.read() as session:
            own = session.execute(
                select(ApiKey.keep_uploads, ApiKey.keep_results).where(ApiKey.owner == owner).limit(1)
            ).one_or_none()
        if own is None:
            return self.without_key(local=owner == LOCAL_OWNER)
        return self.of_key(own.keep_uploads, own.keep_results)

    def of_key(self, uploads: int | None, results: int | None) -> Times:
        """The times of who asks with a key that has these, in seconds; None: as the service does."""
        return Times(
            _first(_span(uploads), self._set.uploads, UPLOADS),
            _first(_span(results), self._set.results, RESULTS),
        )

    def without_key(self, *, local: bool) -> Times:
        """The service's times; `local`: those of who asks where no key is needed."""
        return self._set if local else self.of_key(None, None)

    def expires_at(self, job: Job) -> datetime | None:
        """When a question is erased by itself; None before its end, and where it is kept until it is deleted."""
        if job.finished_at is None or job.state not in ENDED:
            return None
        kept = self.of(job.owner).results
        return None if kept is None else job.finished_at + kept

    def uploads_over(self, session: Session, now: datetime) -> Sequence[tuple[ColumnElement[bool], datetime]]:
        """Whose pictures are kept for how long: conditions, each with the moment by which what is due ended."""
        return self._over(session, now, ApiKey.keep_uploads, self._set.uploads, UPLOADS, Job.owner)

    def results_over(
        self, session: Session, now: datetime, owner: InstrumentedAttribute[str] = Job.owner
    ) -> Sequence[tuple[ColumnElement[bool], datetime]]:
        """The same of whole questions, or of what else has an `owner`."""
        return self._over(session, now, ApiKey.keep_results, self._set.results, RESULTS, owner)

    def _over(
        self,
        session: Session,
        now: datetime,
        own: InstrumentedAttribute[int | None],
        set_: timedelta | None,
        usual: timedelta,
        owner: InstrumentedAttribute[str],
    ) -> list[tuple[ColumnElement[bool], datetime]]:
        without: ColumnElement[bool] = owner.not_in(select(ApiKey.owner).where(own.is_not(None)))
        if set_ is None:
            without &= owner != LOCAL_OWNER
        over = [(without, now - (usual if set_ is None else set_))]
        for seconds in session.scalars(select(own).where(own.is_not(None)).distinct()):
            if seconds is not None:
                owners = select(ApiKey.owner).where(own == seconds)
                over.append((owner.in_(owners), now - timedelta(seconds=seconds)))
        return over


def _span(seconds: int | None) -> timedelta | None:
    return None if seconds is None else timedelta(seconds=seconds)


def _first(*spans: timedelta | None) -> timedelta | None:
    return next((span for span in spans if span is not None), None)
