"""The tables of batches: many pictures that were sent at once, and what became of each.

A batch and its items are written together; nothing is lost of what was accepted. An item waits until an API process
takes it, reads its picture and makes a job of it, in the transaction that marks the item; what can't be a question
fails with a problem. Whoever took an item holds it under a token until `claimable_at`; then another may.

Erasing a job empties its item, in the same transaction.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import BigInteger, Index, String, Text, func, select, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from jobs.errors import JobsError
from jobs.idempotency import forget_partly
from jobs.models import Base, JobSummary, JsonObject, utc_now

PREFIX = "bat_"
BATCH_ID = re.compile(PREFIX + "[0-9a-f]{32}")
MAX_NAME = 200


class BatchState(StrEnum):
    """An open batch is worked on until each item has ended; the others are worked on no more."""

    OPEN = "open"
    CANCELLED = "cancelled"
    ERASED = "erased"


class ItemState(StrEnum):
    """What became of an item: it waits to be read, is a job, is none, or was given up or erased."""

    WAITING = "waiting"
    ASKED = "asked"
    FAILED = "failed"
    CANCELLED = "cancelled"
    ERASED = "erased"


class Batch(Base):
    """Many pictures of one owner that were sent at once. `webhook_endpoint` is the id of the only endpoint that shall
    hear of it and of its questions, None for all of its owner."""

    __tablename__ = "batches"
    __table_args__ = (
        Index("ix_batches_owner_id", "owner", "id"),
        Index("ix_batches_state_created", "state", "created_at"),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    owner: Mapped[str] = mapped_column(String(80))
    state: Mapped[str] = mapped_column(String(16))
    version: Mapped[int]
    created_at: Mapped[datetime]
    client_tag: Mapped[str | None] = mapped_column(String(200))
    size: Mapped[int]
    webhook_endpoint: Mapped[str | None] = mapped_column(String(40))


class BatchItem(Base):
    """One picture of a batch, counted from 1. `asked` are its options, with the index's id.

    `address` is where its picture is to be fetched; without one that lies in the blob store until the item ends.
    """

    __tablename__ = "batch_items"
    __table_args__ = (
        Index("ix_batch_items_state_turn", "state", "turn", "batch_id"),
        Index("ix_batch_items_owner_state_turn", "owner", "state", "turn"),
        Index("ix_batch_items_job_id", "job_id"),
    )

    batch_id: Mapped[str] = mapped_column(String(40), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    owner: Mapped[str] = mapped_column(String(80))
    state: Mapped[str] = mapped_column(String(16))
    version: Mapped[int]
    turn: Mapped[int] = mapped_column(BigInteger)
    name: Mapped[str | None] = mapped_column(String(MAX_NAME))
    asked: Mapped[JsonObject]
    address: Mapped[str | None] = mapped_column(Text)
    job_id: Mapped[str | None] = mapped_column(String(40))
    problem: Mapped[JsonObject | None]
    created_at: Mapped[datetime]
    attempt: Mapped[int]
    token: Mapped[str | None] = mapped_column(String(40))
    claimable_at: Mapped[datetime]


# What erasing takes of an item, and what ends one's waiting.
EMPTIED: dict[str, Any] = {"name": None, "asked": {}, "address": None, "problem": None}
ENDED: dict[str, Any] = {"address": None, "token": None}


class BatchNotFound(JobsError):
    """There is no batch with this id."""


class ItemLost(JobsError):
    """Somebody else holds the item by now, or it was cancelled or erased; nothing may be made of it."""


@dataclass(frozen=True)
class NewItem:
    """An item as it was sent: the bytes of its picture, its address, or why neither can be used."""

    asked: JsonObject
    name: str | None = None
    picture: bytes | None = field(default=None, repr=False)
    address: str | None = None
    problem: JsonObject | None = None


@dataclass(frozen=True)
class ItemClaim:
    """An item that is held, and by which token."""

    batch_id: str
    position: int
    owner: str
    token: str
    attempt: int
    asked: JsonObject
    address: str | None
    created_at: datetime
    webhook_endpoint: str | None

    @property
    def blob(self) -> str:
        """Where its picture lies, if it has no address."""
        return blob_of(self.batch_id, self.position)


@dataclass(frozen=True)
class ItemSummary:
    """What a list tells of an item; `job` is None until it is one."""

    position: int
    name: str | None
    state: str
    client_tag: str | None
    problem: JsonObject | None
    job: JobSummary | None


@dataclass(frozen=True)
class BatchSummary:
    """A batch with how many of its items are in which state, a job's state where it is one.

    `version` grows with every change of any of them.
    """

    id: str
    owner: str
    state: str
    version: int
    created_at: datetime
    client_tag: str | None
    size: int
    counts: dict[str, int]


def blob_of(batch_id: str, position: int) -> str:
    """The name of an item's picture in the blob store."""
    return f"{batch_id}-{position:04d}"


def first_turn(session: Session, owner: str) -> int:
    """The turn of a new batch's first item, in the transaction that adds it; the others follow it.

    Owners take turns at being read as they do at being computed: a new batch begins beside those that are being
    read, and after its owner's others.
    """

    def one(which: Any, *further: Any) -> int | None:
        return session.scalar(select(which).where(BatchItem.state == ItemState.WAITING, *further))

    first = one(func.min(BatchItem.turn))
    last = one(func.max(BatchItem.turn), BatchItem.owner == owner)
    return max(0 if first is None else first, 0 if last is None else last + 1)


def complete_item(session: Session, claim: ItemClaim, job_id: str) -> None:
    """Say which job an item is, in the transaction that makes it.

    Raises:
        ItemLost: nothing may be made of it.
    """
    end_item(session, claim, state=ItemState.ASKED, job_id=job_id)


def end_item(session: Session, claim: ItemClaim, **values: Any) -> None:
    """End the waiting of an item that is held; raises `ItemLost` if it isn't any more."""
    held = session.scalars(
        update(BatchItem)
        .where(
            BatchItem.batch_id == claim.batch_id,
            BatchItem.position == claim.position,
            BatchItem.state == ItemState.WAITING,
            BatchItem.token == claim.token,
        )
        .values(**{**ENDED, "version": BatchItem.version + 1, **values})
        .returning(BatchItem.position)
    ).one_or_none()
    if held is None:
        raise ItemLost(f"item {claim.position} of {claim.batch_id} isn't held any more")


def erase_items(session: Session, job_id: str) -> None:
    """Empty the item that is a job which is being erased, and what was kept to tell its request by."""
    batch_ids: Iterable[str] = session.scalars(
        update(BatchItem)
        .where(BatchItem.job_id == job_id, BatchItem.state != ItemState.ERASED)
        .values(state=ItemState.ERASED, version=BatchItem.version + 1, **EMPTIED)
        .returning(BatchItem.batch_id)
    ).all()
    for batch_id in batch_ids:
        forget_partly(session, batch_id)


def new_item(batch: Batch, position: int, turn: int, sent: NewItem) -> BatchItem:
    """The row of an item of a new batch."""
    failed = sent.problem is not None
    return BatchItem(
        batch_id=batch.id,
        position=position,
        owner=batch.owner,
        state=ItemState.FAILED if failed else ItemState.WAITING,
        version=1,
        turn=turn,
        name=sent.name,
        asked=sent.asked,
        address=None if failed else sent.address,
        job_id=None,
        problem=sent.problem,
        created_at=batch.created_at,
        attempt=0,
        token=None,
        claimable_at=utc_now(),
    )
