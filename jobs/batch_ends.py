"""The end of a batch: told in the transaction that ends the last of its items, once.

Two transactions that each end one of the last two items would each see the other's still open. So whoever ends an
item holds its batch's row, several always in the order of their ids, and looks only then; of an item and its batch
the batch is held first.
"""

from collections.abc import Sequence
from typing import cast

from sqlalchemy import Table, bindparam, exists, or_, select
from sqlalchemy.orm import Session

from jobs.batch_rows import Batch, BatchItem, BatchState, ItemState
from jobs.models import OPEN_STATES, Job
from jobs.webhooks.outbox import announce_batch

BATCH = cast(Table, Batch.__table__).c
ITEM = cast(Table, BatchItem.__table__).c
JOB = cast(Table, Job.__table__).c

# Built once; they run in every transaction that ends a job.
OF_JOBS = (
    select(BATCH.id)
    .where(BATCH.id.in_(select(ITEM.batch_id).where(ITEM.job_id.in_(bindparam("job_ids", expanding=True)))))
    .order_by(BATCH.id)
    .with_for_update()
)
ONE = select(BATCH.id).where(BATCH.id == bindparam("batch_id")).with_for_update()
ENDED = select(BATCH.id, BATCH.state).where(
    BATCH.id.in_(bindparam("batch_ids", expanding=True)),
    BATCH.state != BatchState.ERASED,
    ~exists().where(
        ITEM.batch_id == BATCH.id,
        or_(
            ITEM.state == ItemState.WAITING, exists().where(JOB.id == ITEM.job_id, JOB.state.in_(OPEN_STATES))
        ),
    ),
)


def hold_batch(session: Session, batch_id: str) -> None:
    """Hold a batch's row until the transaction is over."""
    session.execute(ONE, {"batch_id": batch_id})


def hold_batches_of(session: Session, job_ids: Sequence[str]) -> Sequence[str]:
    """Hold the batches that these jobs are of, as `hold_batch` does one; their ids."""
    return session.scalars(OF_JOBS, {"job_ids": [*job_ids]}).all()


def announce_ended(session: Session, batch_ids: Sequence[str]) -> None:
    """Tell of those of these batches that have ended. They are held, and an item of each was ended just now."""
    if not batch_ids:
        return
    session.flush()
    for batch in session.execute(ENDED, {"batch_ids": [*batch_ids]}).all():
        announce_batch(session, batch.id, "cancelled" if batch.state == BatchState.CANCELLED else "finished")
