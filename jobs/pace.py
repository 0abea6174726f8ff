"""How fast the queue is being worked off, measured by what was answered last."""

import math
import time
from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import select

from jobs.database import Database
from jobs.models import Job, JobState

# The answers that are looked at: a few batches, so that one slow picture counts for little.
MEASURED = 32
# How long a measurement is used: under load everybody asks for it.
FRESH_S = 1.0
# A computation that took no time that the clock can tell.
SHORTEST_S = 0.001


def busy_seconds(spans: Iterable[tuple[datetime, datetime]]) -> float:
    """The time that is covered by these spans, which may overlap: workers side by side, batches."""
    total, end = 0.0, None
    for began, ended in sorted(spans):
        begin = began if end is None else max(began, end)
        if ended > begin:
            total += (ended - begin).total_seconds()
            end = ended
    return total


class Pace:
    """The pace of one database's workers. May be shared by threads."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._seconds: float | None = None
        self._measured_at = -math.inf

    def seconds_for(self, jobs: int) -> float | None:
        """How long the workers take for so many jobs; None where they have answered none yet."""
        if time.monotonic() - self._measured_at > FRESH_S:
            self._seconds = self._seconds_for_one()
            self._measured_at = time.monotonic()
        return None if self._seconds is None else jobs * self._seconds

    def _seconds_for_one(self) -> float | None:
        # The time in which nobody asked isn't the workers': only when something was being computed counts.
        statement = (
            select(Job.started_at, Job.finished_at)
            .where(Job.state == JobState.SUCCEEDED, Job.started_at.is_not(None), Job.finished_at.is_not(None))
            .order_by(Job.id.desc())
            .limit(MEASURED)
        )
        with self._database.read() as session:
            spans = [(began, ended) for began, ended in session.execute(statement) if began and ended]
        return max(busy_seconds(spans), SHORTEST_S) / len(spans) if spans else None
