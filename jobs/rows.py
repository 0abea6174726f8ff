"""What release 0.1.0 stored names works by their row in the index; here rows become the works' ids.

An index whose id is the same has the same works in the same rows, so whoever opens it, the service or a worker,
can exchange them. What belongs to an index that nobody opens any more stays as it is, marked by `by_row`.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import select

from jobs.database import Database
from jobs.models import Job

log = logging.getLogger(__name__)

# Jobs that one transaction rewrites; other writers wait for it.
AT_ONCE = 200


def name_works(database: Database, index_id: str, ids: Callable[[], Sequence[str]]) -> int:
    """Exchange rows of this index for ids in all that is stored; returns in how many jobs. Costs a look if in none.

    Args:
        ids: gives the works' ids by row; called only where it is needed.
    """
    marked = select(Job).where(Job.by_row, Job.index_id == index_id).order_by(Job.id).limit(AT_ONCE)
    with database.read() as session:
        if session.scalar(marked.with_only_columns(Job.id)) is None:
            return 0
    work_ids = ids()
    named, last = 0, ""
    while True:
        with database.write() as session:
            jobs = session.scalars(marked.where(Job.id > last).with_for_update()).all()
            for job in jobs:
                try:
                    _name(job, work_ids)
                    named += 1
                except (IndexError, KeyError, TypeError):
                    log.exception("the works that %s names by row can't be named by id", job.id)
        if not jobs:
            return named
        last = jobs[-1].id


def _name(job: Job, ids: Sequence[str]) -> None:
    # All or nothing: what can't be named stays marked.
    candidates, lookalikes, result = job.candidate_works, job.lookalikes, job.result
    if candidates is not None:
        candidates = [ids[int(row)] for row in candidates]
    if lookalikes is not None:
        lookalikes = [_by_id(item, ids) for item in lookalikes]
    if result is not None:
        works = [{"rank": rank, **_by_id(item, ids)} for rank, item in enumerate(result["works"], 1)]
        result = {**result, "works": works}
    job.candidate_works, job.lookalikes, job.result = candidates, lookalikes, result
    job.by_row = False


def _by_id(item: dict[str, Any], ids: Sequence[str]) -> dict[str, Any]:
    return {"work_id": ids[item["row"]], **{name: value for name, value in item.items() if name != "row"}}
