"""What happened lately to all jobs, decisions and webhooks, in order, for whoever counts it.

Followed by moments and not by the events' numbers: SQLite may give a number again whose event was erased, and on
PostgreSQL a lower number may be committed after a higher one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Executable, select

from jobs.claims import GIVEN_UP, SILENT
from jobs.database import Database
from jobs.decisions import Decision
from jobs.models import Job, JobEvent, JsonObject, utc_now
from jobs.webhooks.models import WebhookDelivery

# A row is written a moment after the moment that it bears, by machines whose clocks differ a little. What is younger
# is left for the next look.
SETTLED = timedelta(seconds=3)
# Rows that one look reads; the others are read by the next.
AT_ONCE = 2000


@dataclass(frozen=True)
class Happening:
    """A change of a job. `timings` and `whole_s` (from its creation to its end) are there where it succeeded."""

    at: datetime
    kind: str
    data: JsonObject
    timings: JsonObject | None
    whole_s: float | None

    @property
    def lost_lease(self) -> str | None:
        """How an attempt was lost that ends here: `silent`, its worker gave no sign of life, or `given-back`."""
        if self.kind == "retrying":
            said = str(self.data.get("reason", ""))
        elif self.kind == "failed" and self.data.get("code") == GIVEN_UP:
            said = str(self.data.get("message", ""))
        else:
            return None
        return "silent" if SILENT in said else "given-back"


class Happenings:
    """Follows them from the moment it is made. To be used by one thread at a time."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._events_until = self._decisions_until = self._deliveries_until = utc_now()

    @property
    def known_until(self) -> datetime:
        """The moment up to which everything has been handed out."""
        return min(self._events_until, self._decisions_until, self._deliveries_until)

    def jobs(self, now: datetime | None = None) -> list[Happening]:
        """What happened to jobs since the last call, `AT_ONCE` at most.

        Raises:
            StorageError: the database can't be read; nothing is lost by that.
        """
        until = (now or utc_now()) - SETTLED
        statement = (
            select(JobEvent.at, JobEvent.kind, JobEvent.data, Job.timings, Job.created_at, Job.finished_at)
            .outerjoin(Job, Job.id == JobEvent.job_id)
            .where(JobEvent.at > self._events_until, JobEvent.at <= until)
            .order_by(JobEvent.at)
            .limit(AT_ONCE)
        )
        rows = self._read(statement)
        self._events_until = _read_until([row[0] for row in rows], until, self._events_until)
        return [
            Happening(
                at=at,
                kind=kind,
                data=data,
                timings=timings if kind == "succeeded" else None,
                whole_s=(ended - created).total_seconds() if kind == "succeeded" and ended else None,
            )
            for at, kind, data, timings, created, ended in rows
            if at <= self._events_until
        ]

    def decisions(self, now: datetime | None = None) -> list[str]:
        """The outcomes that were decided since the last call, `AT_ONCE` at most; raises as `jobs` does."""
        outcomes, self._decisions_until = self._came(
            Decision.decided_at, Decision.outcome, self._decisions_until, now
        )
        return outcomes

    def deliveries(self, now: datetime | None = None) -> list[str]:
        """How deliveries of webhooks ended since the last call, `AT_ONCE` at most; raises as `jobs` does."""
        ends, self._deliveries_until = self._came(
            WebhookDelivery.settled_at, WebhookDelivery.state, self._deliveries_until, now
        )
        return ends

    def _came(self, at: Any, what: Any, since: datetime, now: datetime | None) -> tuple[list[str], datetime]:
        """What rows say that bear a moment after `since`, and up to which moment they were read."""
        until = (now or utc_now()) - SETTLED
        rows = self._read(select(at, what).where(at > since, at <= until).order_by(at).limit(AT_ONCE))
        read = _read_until([row[0] for row in rows], until, since)
        return [said for moment, said in rows if moment <= read and said is not None], read

    def _read(self, statement: Executable) -> Sequence[Any]:
        with self._database.read() as session:
            return session.execute(statement).all()


def _read_until(moments: list[datetime], until: datetime, before: datetime) -> datetime:
    """Up to which moment rows were read for certain: others of the last one's moment may have been cut off."""
    if len(moments) < AT_ONCE:
        return max(until, before)
    earlier = [moment for moment in moments if moment < moments[-1]]
    return earlier[-1] if earlier else moments[-1]
