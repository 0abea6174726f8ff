"""Answers of a period, for statements: what little of each they are made of, page by page."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select

from jobs.database import Database
from jobs.models import Job, JobState, JsonObject, about_index

_PAGE = 200


@dataclass(frozen=True)
class Answered:
    """An answer in short. `holders` are its groups by rights holder; None where it was given without them."""

    id: str
    index_id: str
    method: str
    in_model: str | None
    mode: str | None
    holders: list[JsonObject] | None


def answered(
    database: Database, index: str, since: datetime, until: datetime, owner: str | None = None
) -> Iterator[Answered]:
    """The questions about an index that were answered from `since` on and before `until`, in their order.

    Args:
        index: a name, for all of its versions, or the id of one.
        owner: whose; None for everybody's.
    """
    columns = (
        Job.id,
        Job.index_id,
        Job.method,
        Job.result[("in_model", "verdict")].as_string().label("in_model"),
        Job.result[("candidates", "mode")].as_string().label("mode"),
        Job.result[("groups", "rights_holder")].label("holders"),
    )
    wanted = [
        Job.state == JobState.SUCCEEDED,
        about_index(index),
        Job.finished_at >= since,
        Job.finished_at < until,
    ]
    if owner is not None:
        wanted.append(Job.owner == owner)
    last = ""
    while True:
        statement = select(*columns).where(*wanted, Job.id > last).order_by(Job.id).limit(_PAGE)
        with database.read() as session:
            rows: list[Any] = list(session.execute(statement).all())
        for row in rows:
            yield Answered(row.id, row.index_id, row.method, row.in_model, row.mode, row.holders)
        if len(rows) < _PAGE:
            return
        last = rows[-1].id
