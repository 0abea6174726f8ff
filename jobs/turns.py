"""Whose turn it is: many jobs of one owner don't hold up the one of another.

Jobs of a lower priority number go first. Among equals the queue is served in turns: in each, every owner has one
job. A new job is given the turn after the one that is being served, or after its owner's last that waits. So
whoever comes while a thousand of somebody else wait is held up by two of those at most, and since every turn is
finite (who comes later joins a later one) nobody waits for ever, unless for those of a lower number.

A pass rides along in the turn of its first job, and a job that is given back keeps that turn. Pictures that were
sent as a batch have a higher number than questions: they don't share a pass with one, and few share one with each
other, so that a question waits for one short pass of them at most.
"""

from typing import Any

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from jobs.models import Job, JobState

# The order in which jobs are taken.
ORDER = ("priority", "turn", "id")
# Of the pictures of batches; whoever asks one question goes before all of them.
BULK_PRIORITY = 10


def next_turn(session: Session, owner: str, priority: int) -> int:
    """The turn of a new job, in the transaction that adds it."""

    def one(which: Any, state: JobState, *further: ColumnElement[bool]) -> int | None:
        return session.scalar(select(which).where(Job.state == state, Job.priority == priority, *further))

    served = one(func.max(Job.turn), JobState.RUNNING)
    if served is None:
        # Nothing is being computed: the turn that is served is the one before those that wait.
        first = one(func.min(Job.turn), JobState.QUEUED)
        served = 0 if first is None else first - 1
    last = one(func.max(Job.turn), JobState.QUEUED, Job.owner == owner)
    return 1 + max(served, served if last is None else last)
