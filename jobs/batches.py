"""`Batches`: all that is done to batches and to what waits in them. Its methods block for a few milliseconds."""

import logging
import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, case, func, select, update
from sqlalchemy.orm import Session
from uuid_utils import uuid7

from das.plurals import counted
from jobs.audit import SERVICE, Actor, record
from jobs.batch_ends import announce_ended, hold_batch
from jobs.batch_rows import (
    BATCH_ID,
    EMPTIED,
    ENDED,
    PREFIX,
    Batch,
    BatchItem,
    BatchNotFound,
    BatchState,
    BatchSummary,
    ItemClaim,
    ItemLost,
    ItemState,
    ItemSummary,
    NewItem,
    blob_of,
    end_item,
    first_turn,
    new_item,
)
from jobs.blobs import UPLOAD
from jobs.errors import BadCursor, JobNotFound, QueueFull, StorageError
from jobs.idempotency import Claim, complete, forget_request
from jobs.models import OPEN_STATES, Job, JobSummary, JsonObject, utc_now
from jobs.store import SUMMARISED, JobStore
from jobs.upkeep import ORPHAN_AFTER
from jobs.webhooks.outbox import erase_deliveries

log = logging.getLogger(__name__)

# How long an item is held without a sign of life of who took it.
HELD_FOR = timedelta(seconds=30)
# An item that waited for so long is given up: uploads aren't kept for longer.
MAX_AGE = timedelta(hours=24)

# What an item is called in: its own state, or that of the job which it is.
STATE = case((BatchItem.state == ItemState.ASKED, Job.state), else_=BatchItem.state)
OPEN = (ItemState.WAITING, *OPEN_STATES)


@dataclass(frozen=True)
class BatchFilters:
    """Which batches a listing shows; None doesn't filter. Erased ones never show."""

    owner: str
    client_tag: str | None = None
    created_after: datetime | None = None


@dataclass(frozen=True)
class BatchPage:
    """One page of batches, newest first."""

    batches: list[BatchSummary]
    next_cursor: str | None


class Batches:
    """The batches of all owners. Where a method takes an `owner`, those of others aren't there for it."""

    def __init__(self, store: JobStore) -> None:
        self._store = store
        self._database = store.database
        self._settings = store.settings

    def create(
        self,
        owner: str,
        items: Sequence[NewItem],
        client_tag: str | None = None,
        claim: Claim | None = None,
        webhook_endpoint: str | None = None,
    ) -> BatchSummary:
        """Accept a batch: keep its pictures, then the batch with all of its items at once.

        Args:
            claim: of the request's Idempotency-Key, completed together with the batch.

        Raises:
            QueueFull: too many pictures of batches wait already.
            RequestInFlight: the claim was lost meanwhile.
            StorageError: a picture or a row can't be written; nothing is left behind then.
        """
        now = utc_now()
        batch = Batch(
            id=PREFIX + uuid7().hex,
            owner=owner,
            state=BatchState.OPEN,
            version=1,
            created_at=now,
            client_tag=client_tag,
            size=len(items),
            webhook_endpoint=webhook_endpoint,
        )
        numbered = list(enumerate(items, 1))
        kept = [position for position, item in numbered if item.picture is not None and item.problem is None]
        try:
            for position in kept:
                self._store.blobs.put(blob_of(batch.id, position), items[position - 1].picture or b"", UPLOAD)
            with self._database.write() as session:
                self._check_room(session, owner, len(items))
                turn = first_turn(session, owner)
                session.add(batch)
                session.add_all(
                    new_item(batch, position, turn + position, item) for position, item in numbered
                )
                if claim is not None:
                    complete(session, claim, batch.id)
                # Where none of its pictures can be used, it has.
                announce_ended(session, [batch.id])
        except BaseException:
            self._drop(batch.id, kept)
            raise
        with self._database.read() as session:
            return _summaries(session, [batch])[0]

    def check_room(self, owner: str, items: int) -> None:
        """See that a batch of so many would be taken now; raises `QueueFull`."""
        with self._database.read() as session:
            self._check_room(session, owner, items)

    def get(self, batch_id: str, owner: str | None = None) -> BatchSummary | None:
        """The batch, or None if there never was one of this id. An erased one is there, as a tombstone."""
        with self._database.read() as session:
            return _batch(session, batch_id, owner)

    def get_with_items(
        self, batch_id: str, owner: str, after: int, limit: int
    ) -> tuple[BatchSummary, list[ItemSummary]] | None:
        """The batch as `get` and its items as `items` have them, of one moment where the database is a file."""
        with self._database.read() as session:
            batch = _batch(session, batch_id, owner)
            return None if batch is None else (batch, _items(session, batch_id, after, limit))

    def page(self, filters: BatchFilters, cursor: str | None = None, limit: int = 20) -> BatchPage:
        """A page of batches, newest first; raises `BadCursor`."""
        statement = (
            select(Batch)
            .where(Batch.owner == filters.owner, Batch.state != BatchState.ERASED)
            .order_by(Batch.id.desc())
            .limit(limit + 1)
        )
        if cursor is not None:
            if not BATCH_ID.fullmatch(cursor):
                raise BadCursor(f"{cursor!r} isn't a cursor of this list; start again without one")
            statement = statement.where(Batch.id < cursor)
        if filters.client_tag is not None:
            statement = statement.where(Batch.client_tag == filters.client_tag)
        if filters.created_after is not None:
            statement = statement.where(Batch.created_at > filters.created_after)
        with self._database.read() as session:
            found = session.scalars(statement).all()
            shown = _summaries(session, found[:limit])
        return BatchPage(shown, shown[-1].id if len(found) > limit else None)

    def items(self, batch_id: str, after: int, limit: int) -> list[ItemSummary]:
        """Items in their order, from the one after number `after` on, each in short."""
        with self._database.read() as session:
            return _items(session, batch_id, after, limit)

    def take(self, now: datetime | None = None) -> ItemClaim | None:
        """The item whose turn it is, held for `HELD_FOR`; None if none waits. Owners take turns.

        An item that was taken `max_attempts` times and never came to its end, or is a day old, fails instead.
        """
        now = now or utc_now()
        waiting = (BatchItem.state == ItemState.WAITING, BatchItem.claimable_at <= now)
        with self._database.read() as session:
            # Almost always there is nothing to do, and a reader holds nobody up.
            if session.scalar(select(BatchItem.position).where(*waiting).limit(1)) is None:
                return None
        with self._database.write() as session:
            item = session.scalars(
                select(BatchItem)
                .where(*waiting)
                .order_by(BatchItem.turn, BatchItem.batch_id)
                .limit(1)
                .with_for_update(skip_locked=True)
            ).first()
            if item is None:
                return None
            item.attempt += 1
            item.token = secrets.token_hex(16)
            item.claimable_at = now + HELD_FOR
            claim = _claim(item, session.get_one(Batch, item.batch_id))
        why = self._why_given_up(claim, now)
        if why is None:
            return claim
        self.fail(claim, why)
        return self.take(now)

    def renew(self, tokens: Collection[str]) -> None:
        """Hold these items for longer."""
        with self._database.write() as session:
            session.execute(
                update(BatchItem)
                .where(BatchItem.token.in_(tokens), BatchItem.state == ItemState.WAITING)
                .values(claimable_at=utc_now() + HELD_FOR)
            )

    def put_back(self, claim: ItemClaim, seconds: float, *, counts: bool = False) -> None:
        """Let an item that is held wait on, for so long at least; `counts`: this attempt does."""
        with self._database.write() as session:
            session.execute(
                update(BatchItem)
                .where(BatchItem.token == claim.token, BatchItem.state == ItemState.WAITING)
                .values(
                    token=None,
                    attempt=claim.attempt - (not counts),
                    claimable_at=utc_now() + timedelta(seconds=seconds),
                )
            )

    def defer(self, owner: str, seconds: float) -> None:
        """Let all items of an owner that nobody holds wait for so long."""
        with self._database.write() as session:
            session.execute(
                update(BatchItem)
                .where(
                    BatchItem.owner == owner,
                    BatchItem.state == ItemState.WAITING,
                    BatchItem.token.is_(None),
                )
                .values(claimable_at=utc_now() + timedelta(seconds=seconds))
            )

    def picture(self, claim: ItemClaim) -> bytes:
        """The bytes of an item's picture as they were sent; raises `StorageError`."""
        return self._store.blobs.get(claim.blob, UPLOAD)

    def fail(self, claim: ItemClaim, problem: JsonObject) -> bool:
        """End an item without a question; `problem` says why. False if it isn't held any more."""
        try:
            with self._database.write() as session:
                hold_batch(session, claim.batch_id)
                end_item(session, claim, state=ItemState.FAILED, problem=problem)
                announce_ended(session, [claim.batch_id])
        except ItemLost:
            return False
        self.ended(claim)
        return True

    def ended(self, claim: ItemClaim) -> None:
        """Remove the picture of an item that doesn't wait any more, and wake who waits for its batch."""
        if claim.address is None:
            self._drop(claim.batch_id, [claim.position])
        self._store.notify(claim.batch_id, 0)

    def cancel(self, batch_id: str, owner: str, by: Actor = SERVICE) -> BatchSummary:
        """Stop what is still open of a batch; what has ended stays as it is. Raises `BatchNotFound`."""
        positions, jobs = self._end(batch_id, owner, BatchState.CANCELLED, by)
        self._drop(batch_id, positions)
        for job_id in jobs:
            try:
                self._store.cancel(job_id, owner, by)
            except JobNotFound:
                # Erased meanwhile.
                continue
        self._store.notify(batch_id, 0)
        found = self.get(batch_id, owner)
        if found is None:
            raise BatchNotFound(batch_id)
        return found

    def erase(self, batch_id: str, owner: str | None = None, by: Actor = SERVICE) -> None:
        """Remove all pictures and answers of a batch and all that is known of it; a tombstone stays.

        Erasing twice is fine, and completes an erasure that couldn't be completed the first time; so does `mend`.

        Raises:
            BatchNotFound: there never was such a batch.
            StorageError: something can't be removed now.
        """
        if self.get(batch_id, owner) is None:
            raise BatchNotFound(batch_id)
        self._database.with_reserve(lambda: self._end(batch_id, owner, BatchState.ERASED, by))
        with self._database.read() as session:
            items = session.execute(
                select(BatchItem.position, BatchItem.job_id).where(BatchItem.batch_id == batch_id)
            ).all()
        self._drop(batch_id, [position for position, _ in items])
        self._store.erase_all([job_id for _, job_id in items if job_id is not None], by)
        self._store.notify(batch_id, 0)

    def mend(self) -> None:
        """Now and then: complete erasures that were broken off, and remove pictures that no item waits for."""
        unfinished = (
            select(Batch.id)
            .join(BatchItem, BatchItem.batch_id == Batch.id)
            .where(Batch.state == BatchState.ERASED, BatchItem.state != ItemState.ERASED)
        )
        with self._database.read() as session:
            batch_ids = session.scalars(unfinished.distinct()).all()
        for batch_id in batch_ids:
            self.erase(batch_id)
        kept = self._store.blobs.settled_ids(ORPHAN_AFTER, UPLOAD)
        if not kept:
            return
        waiting = select(BatchItem.batch_id, BatchItem.position).where(BatchItem.state == ItemState.WAITING)
        with self._database.read() as session:
            wanted = {blob_of(batch_id, position) for batch_id, position in session.execute(waiting)}
        for name in kept:
            if name not in wanted:
                self._store.blobs.delete(name, UPLOAD)

    def jobs_of(self, batch_id: str, positions: Collection[int]) -> dict[int, Job]:
        """The whole jobs of these items."""
        statement = (
            select(BatchItem.position, Job)
            .join(Job, Job.id == BatchItem.job_id)
            .where(BatchItem.batch_id == batch_id, BatchItem.position.in_(positions))
        )
        with self._database.read() as session:
            return {row[0]: row[1] for row in session.execute(statement)}

    def _end(
        self, batch_id: str, owner: str | None, state: BatchState, by: Actor = SERVICE
    ) -> tuple[Sequence[int], Sequence[str]]:
        """Mark a batch, and its items that wait; their numbers, and the batch's jobs that are open."""
        erased = state == BatchState.ERASED
        mine = BatchItem.batch_id == batch_id
        with self._database.write() as session:
            batch = session.get(Batch, batch_id, with_for_update=True)
            if batch is None or owner not in (None, batch.owner):
                raise BatchNotFound(batch_id)
            if batch.state == BatchState.ERASED:
                return [], []
            batch.version += 1
            if erased:
                batch.client_tag = batch.webhook_endpoint = None
                forget_request(session, batch_id)
                erase_deliveries(session, batch_id)
                record(session, by, "batch.erased", batch_id)
                # Those that are jobs are emptied with these.
                ending: ColumnElement[bool] = BatchItem.job_id.is_(None)
            else:
                if batch.state != BatchState.CANCELLED:
                    record(session, by, "batch.cancelled", batch_id)
                ending = BatchItem.state == ItemState.WAITING
            own = ItemState.ERASED if erased else ItemState.CANCELLED
            ended = session.scalars(
                update(BatchItem)
                .where(mine, ending)
                .values(
                    **{**ENDED, **(EMPTIED if erased else {}), "state": own, "version": BatchItem.version + 1}
                )
                .returning(BatchItem.position)
            ).all()
            jobs = session.scalars(
                select(Job.id)
                .join(BatchItem, BatchItem.job_id == Job.id)
                .where(mine, Job.state.in_(OPEN_STATES))
            ).all()
            if erased or ended or jobs:
                batch.state = state
            if ended:
                announce_ended(session, [batch_id])
        return ended, jobs

    def _check_room(self, session: Session, owner: str, items: int) -> None:
        limit = self._settings.batch_items_limit
        waiting = select(func.count()).select_from(BatchItem).where(BatchItem.state == ItemState.WAITING)
        before = session.scalar(waiting) or 0
        if before + items > limit:
            raise QueueFull(limit, ahead=before)
        # Half of the room is left to others.
        mine = session.scalar(waiting.where(BatchItem.owner == owner)) or 0
        if mine + items > max(items, limit // 2):
            raise QueueFull(limit // 2, ahead=before, of_owner=True)

    def _why_given_up(self, claim: ItemClaim, now: datetime) -> JsonObject | None:
        if claim.attempt > self._settings.max_attempts:
            return {
                "code": "attempts-exhausted",
                "detail": f"Reading this picture was begun {counted(claim.attempt - 1, 'time')} and never"
                " came to its end.",
            }
        if now - claim.created_at > MAX_AGE:
            return {"code": "waited-too-long", "detail": "There was no room for this picture for a day."}
        return None

    def _drop(self, batch_id: str, positions: Collection[int]) -> None:
        """Remove pictures; what can't be removed now is by `mend`."""
        for position in positions:
            try:
                self._store.blobs.delete(blob_of(batch_id, position), UPLOAD)
            except StorageError as error:
                log.warning("a picture of %s isn't removed yet: %s", batch_id, error)


def _batch(session: Session, batch_id: str, owner: str | None) -> BatchSummary | None:
    batch = session.get(Batch, batch_id)
    if batch is None or owner not in (None, batch.owner):
        return None
    return _summaries(session, [batch])[0]


def _summaries(session: Session, batches: Sequence[Batch]) -> list[BatchSummary]:
    statement = (
        select(
            BatchItem.batch_id,
            STATE.label("shown"),
            func.count(),
            func.sum(BatchItem.version + func.coalesce(Job.version, 0)),
        )
        .outerjoin(Job, Job.id == BatchItem.job_id)
        .where(BatchItem.batch_id.in_([batch.id for batch in batches]))
        .group_by(BatchItem.batch_id, "shown")
    )
    counts: dict[str, dict[str, int]] = {batch.id: {} for batch in batches}
    versions = {batch.id: batch.version for batch in batches}
    for batch_id, state, count, version in session.execute(statement):
        counts[batch_id][str(state)] = count
        versions[batch_id] += int(version)
    return [
        BatchSummary(
            id=batch.id,
            owner=batch.owner,
            state=batch.state,
            version=versions[batch.id],
            created_at=batch.created_at,
            client_tag=batch.client_tag,
            size=batch.size,
            counts=counts[batch.id],
        )
        for batch in batches
    ]


def _items(session: Session, batch_id: str, after: int, limit: int) -> list[ItemSummary]:
    statement = (
        select(BatchItem, STATE.label("shown"), *SUMMARISED)
        .outerjoin(Job, Job.id == BatchItem.job_id)
        .where(BatchItem.batch_id == batch_id, BatchItem.position > after)
        .order_by(BatchItem.position)
        .limit(limit)
    )
    names = JobSummary.__dataclass_fields__
    return [
        ItemSummary(
            position=item.position,
            name=item.name,
            state=str(shown),
            client_tag=item.asked.get("client_tag"),
            problem=item.problem,
            job=None if job[0] is None else JobSummary(**dict(zip(names, job, strict=True))),
        )
        for item, shown, *job in session.execute(statement)
    ]


def _claim(item: BatchItem, batch: Batch) -> ItemClaim:
    return ItemClaim(
        batch_id=item.batch_id,
        position=item.position,
        owner=item.owner,
        token=item.token or "",
        attempt=item.attempt,
        asked=item.asked,
        address=item.address,
        created_at=item.created_at,
        webhook_endpoint=batch.webhook_endpoint,
    )


def is_open(batch: BatchSummary) -> bool:
    """Whether anything may still happen to one of its items by itself."""
    return any(batch.counts.get(state) for state in OPEN)


def unfinished(item: ItemSummary) -> bool:
    """Whether anything may still happen to this item by itself."""
    return item.state in OPEN
