"""`Deliveries`: what is to be sent, claimed by lease like jobs, and what became of it.

Any number of processes may deliver at once. A claim's token guards what is written about it: who was thought dead and
comes back changes nothing, and at most sends what another sends too, under the same `webhook-id`.
"""

import random
import re
import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, cast

from sqlalchemy import Table, and_, case, delete, exists, func, not_, or_, select, update
from sqlalchemy.orm import Session

from jobs.audit import SERVICE, Actor, record
from jobs.database import Database
from jobs.errors import BadCursor, JobsError
from jobs.keys import ApiKey
from jobs.models import utc_now
from jobs.webhooks.endpoints import refuse_disabled
from jobs.webhooks.models import DELIVERY_PREFIX, DeliveryState, WebhookDelivery, WebhookEndpoint
from jobs.webhooks.pacing import ENDPOINT_PATIENCE, TRIED_FOR, next_attempt
from jobs.webhooks.sealing import Seal

DELIVERY_ID = re.compile(DELIVERY_PREFIX + "[0-9a-f]{32}")
# Above the time that one attempt may take.
LEASE = timedelta(seconds=60)
# Of one endpoint's at once, over all processes: a slow one keeps nobody else waiting.
OF_ONE_ENDPOINT = 4
# Attempts that are told of a delivery.
TRIED_KEPT = 20
KEPT = timedelta(days=30)
GONE = 410
# Owners who came with a key are called so; nobody else's deliveries depend on one.
KEYED = "key_%"

DELIVERY = cast(Table, WebhookDelivery.__table__)
ENDPOINT = cast(Table, WebhookEndpoint.__table__)


class DeliveryNotFound(JobsError):
    """The endpoint has no delivery with this id."""

    def __init__(self, delivery_id: str) -> None:
        super().__init__(f"there is no delivery {delivery_id[:40]!r} of this endpoint")


@dataclass(frozen=True)
class Attempt:
    """What became of one attempt. `error` is a sentence, None where it was taken; `response` the beginning of what
    was answered."""

    at: str
    seconds: float
    status_code: int | None
    error: str | None
    response: str | None


@dataclass(frozen=True)
class ClaimedDelivery:
    """A delivery that this process may attempt now. Its secrets are in clear: the endpoint's, then the one before."""

    id: str
    token: str
    endpoint_id: str
    url: str
    body: str
    sealed: tuple[str, ...]

    def __repr__(self) -> str:
        return f"ClaimedDelivery({self.id})"


@dataclass(frozen=True)
class DeliveryPage:
    """One page, newest first."""

    deliveries: Sequence[WebhookDelivery]
    next_cursor: str | None


@dataclass(frozen=True)
class Outstanding:
    """How many deliveries are pending, for how many seconds the oldest of them has been, and for how many the one
    that was due first could have been attempted and wasn't."""

    pending: int
    oldest_s: float
    overdue_s: float


class Deliveries:
    """The deliveries of all owners."""

    def __init__(self, database: Database, seal: Seal) -> None:
        self._database = database
        self._seal = seal
        self._chance = random.Random()

    def claim(self, most: int) -> list[ClaimedDelivery]:
        """Take up to `most` deliveries that are due; no endpoint has more than `OF_ONE_ENDPOINT` on the way."""
        now = utc_now()
        with self._database.read() as session:
            # Almost always there is nothing to do, and a reader holds nobody up.
            if session.scalar(select(WebhookDelivery.id).where(*_due(now)).limit(1)) is None:
                return []
        token = secrets.token_hex(16)
        with self._database.write() as session:
            ids = session.scalars(
                update(DELIVERY)
                .where(DELIVERY.c.id.in_(select(_claimable(now, most).c.id)))
                .values(lease_token=token, lease_expires_at=now + LEASE)
                .returning(DELIVERY.c.id)
            ).all()
            rows = session.execute(
                select(WebhookDelivery, WebhookEndpoint)
                .join(WebhookEndpoint, WebhookEndpoint.id == WebhookDelivery.endpoint_id)
                .where(WebhookDelivery.id.in_(ids))
                .order_by(WebhookDelivery.id)
            ).all()
        return [
            ClaimedDelivery(
                delivery.id, token, endpoint.id, endpoint.url, delivery.body, _secrets(endpoint, now)
            )
            for delivery, endpoint in rows
        ]

    def opened(self, claimed: ClaimedDelivery) -> list[str]:
        """The secrets that a delivery is signed with, in clear.

        Raises:
            SecretUnreadable: they were sealed under another key.
        """
        return [self._seal.open(sealed) for sealed in claimed.sealed]

    def taken(self, claimed: ClaimedDelivery, attempt: Attempt) -> bool:
        """Note that the receiver took it. False, and nothing is noted, if the claim was lost."""
        now = utc_now()
        with self._database.write() as session:
            delivery = _held(session, claimed)
            if delivery is None:
                return False
            _note(delivery, attempt, now)
            delivery.state = DeliveryState.DELIVERED
            delivery.delivered_at = delivery.settled_at = now
            delivery.next_attempt_at = None
            session.execute(
                update(WebhookEndpoint)
                .where(WebhookEndpoint.id == claimed.endpoint_id, WebhookEndpoint.failing_since.is_not(None))
                .values(failing_since=None)
            )
        return True

    def missed(
        self, claimed: ClaimedDelivery, attempt: Attempt, retry_after: float | None = None
    ) -> str | None:
        """Note that the receiver didn't take it, and when to try again. The claim may be lost, as in `taken`.

        Returns why the endpoint was disabled by this; None if it wasn't.
        """
        now = utc_now()
        gone = attempt.status_code == GONE
        with self._database.write() as session:
            delivery = _held(session, claimed)
            if delivery is None:
                return None
            paused = not _tried_lately(session, claimed.endpoint_id, now)
            _note(delivery, attempt, now)
            delivery.next_attempt_at = (
                None
                if gone or delivery.give_up_at is None
                else next_attempt(now, delivery.give_up_at, delivery.attempt, retry_after, self._chance)
            )
            if delivery.next_attempt_at is None:
                delivery.state, delivery.settled_at = DeliveryState.FAILED, now
            endpoint = session.get(WebhookEndpoint, claimed.endpoint_id, with_for_update=True)
            if endpoint is None or not endpoint.enabled:
                return None
            # What failed before a pause says nothing of how it is now: one miss more may be all that it misses.
            endpoint.failing_since = (
                now if paused or endpoint.failing_since is None else endpoint.failing_since
            )
            because = None
            if gone:
                because = "It answered 410: there shall be nothing delivered to it any more."
            elif now - endpoint.failing_since >= ENDPOINT_PATIENCE:
                because = f"It has taken no delivery for {ENDPOINT_PATIENCE.days} days. {attempt.error}"
            if because is not None:
                endpoint.enabled, endpoint.disabled_at, endpoint.disabled_because = False, now, because
        return because

    def give_back(self, claimed: ClaimedDelivery, wait: timedelta = timedelta()) -> None:
        """Give up a claim without an attempt that counts; somebody may take it after `wait`."""
        with self._database.write() as session:
            delivery = _held(session, claimed)
            if delivery is not None:
                delivery.lease_token = delivery.lease_expires_at = None
                delivery.next_attempt_at = utc_now() + wait

    def list(
        self, endpoint_id: str | None, state: str | None = None, cursor: str | None = None, limit: int = 20
    ) -> DeliveryPage:
        """A page of an endpoint's deliveries, newest first; None: of everybody's, for who runs the service.

        Raises:
            BadCursor: the cursor isn't one of ours.
        """
        statement = select(WebhookDelivery)
        if endpoint_id is not None:
            statement = statement.where(WebhookDelivery.endpoint_id == endpoint_id)
        if cursor is not None:
            if not DELIVERY_ID.fullmatch(cursor):
                raise BadCursor(f"{cursor!r} isn't a cursor of this list; start again without one")
            statement = statement.where(WebhookDelivery.id < cursor)
        if state is not None:
            statement = statement.where(WebhookDelivery.state == state)
        with self._database.read() as session:
            found = session.scalars(statement.order_by(WebhookDelivery.id.desc()).limit(limit + 1)).all()
        return DeliveryPage(found[:limit], found[limit - 1].id if len(found) > limit else None)

    def again(self, endpoint: WebhookEndpoint, delivery_id: str, by: Actor = SERVICE) -> WebhookDelivery:
        """Deliver something once more, now, under the id that it has, and for a day again if need be.

        Raises:
            DeliveryNotFound: the endpoint has none of this id.
            EndpointRefused: the endpoint is disabled.
        """
        refuse_disabled(endpoint)
        with self._database.write() as session:
            delivery = (
                session.get(WebhookDelivery, delivery_id, with_for_update=True)
                if DELIVERY_ID.fullmatch(delivery_id)
                else None
            )
            if delivery is None or delivery.endpoint_id != endpoint.id:
                raise DeliveryNotFound(delivery_id)
            delivery.state = DeliveryState.PENDING
            delivery.next_attempt_at = utc_now()
            delivery.attempt = 0
            delivery.give_up_at = delivery.settled_at = None
            record(session, by, "webhook.redelivered", delivery_id)
            return delivery

    def failed_since(self, moment: datetime) -> int:
        """How many deliveries were given up since then."""
        failed = (WebhookDelivery.state == DeliveryState.FAILED, WebhookDelivery.settled_at > moment)
        with self._database.read() as session:
            return session.scalar(select(func.count()).select_from(WebhookDelivery).where(*failed)) or 0

    def outstanding(self) -> Outstanding:
        """What waits to be delivered to endpoints that anything is sent to."""
        now = utc_now()
        free = or_(DELIVERY.c.lease_expires_at.is_(None), DELIVERY.c.lease_expires_at < now)
        statement = (
            select(
                func.count(),
                func.min(DELIVERY.c.created_at),
                func.min(case((free, DELIVERY.c.next_attempt_at))),
            )
            .select_from(DELIVERY.join(ENDPOINT, ENDPOINT.c.id == DELIVERY.c.endpoint_id))
            .where(DELIVERY.c.state == DeliveryState.PENDING, *_heard(now))
        )
        with self._database.read() as session:
            pending, oldest, due = session.execute(statement).one()
        return Outstanding(
            pending=pending,
            oldest_s=0.0 if oldest is None else (now - oldest).total_seconds(),
            overdue_s=0.0 if due is None else max(0.0, (now - due).total_seconds()),
        )

    def forget_old(self) -> int:
        """Remove deliveries that are older than `KEPT`, but for those that are still attempted; returns how many."""
        heard = select(WebhookEndpoint.id).where(WebhookEndpoint.enabled)
        old = and_(
            WebhookDelivery.id < _id_at(utc_now() - KEPT),
            or_(WebhookDelivery.state != DeliveryState.PENDING, WebhookDelivery.endpoint_id.not_in(heard)),
        )
        with self._database.read() as session:
            if session.scalar(select(WebhookDelivery.id).where(old).limit(1)) is None:
                return 0
        with self._database.write() as session:
            return len(
                session.scalars(delete(WebhookDelivery).where(old).returning(WebhookDelivery.id)).all()
            )


def _due(now: datetime) -> tuple[Any, ...]:
    return (
        WebhookDelivery.state == DeliveryState.PENDING,
        WebhookDelivery.next_attempt_at <= now,
        or_(WebhookDelivery.lease_expires_at.is_(None), WebhookDelivery.lease_expires_at < now),
    )


def _heard(now: datetime) -> tuple[Any, ...]:
    """Which endpoints anything is sent to."""
    works = exists().where(
        ApiKey.owner == ENDPOINT.c.owner,
        ApiKey.revoked_at.is_(None),
        or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > now),
    )
    # Once no key of an owner's works nothing of theirs goes out.
    return (ENDPOINT.c.enabled, or_(ENDPOINT.c.owner.not_like(KEYED), works))


def _claimable(now: datetime, most: int) -> Any:
    """The rows that a claim takes, locked where the database has locks of rows."""
    waiting = DELIVERY.alias("waiting")
    leased = func.coalesce(waiting.c.lease_expires_at >= now, False)
    # Of each endpoint, those on the way come first; so what is taken is what these leave of its places.
    place = func.row_number().over(
        partition_by=waiting.c.endpoint_id,
        order_by=(case((leased, 0), else_=1), waiting.c.next_attempt_at, waiting.c.id),
    )
    ranked = (
        select(waiting.c.id, leased.label("leased"), place.label("place"))
        .join(ENDPOINT, ENDPOINT.c.id == waiting.c.endpoint_id)
        .where(
            waiting.c.state == DeliveryState.PENDING,
            waiting.c.next_attempt_at <= now,
            *_heard(now),
        )
        .subquery("ranked")
    )
    free = select(ranked.c.id).where(not_(ranked.c.leased), ranked.c.place <= OF_ONE_ENDPOINT)
    return (
        select(DELIVERY.c.id)
        .where(
            DELIVERY.c.id.in_(free),
            # Again, of the row as it is once it is locked.
            and_(
                DELIVERY.c.state == DeliveryState.PENDING,
                or_(DELIVERY.c.lease_expires_at.is_(None), DELIVERY.c.lease_expires_at < now),
            ),
        )
        .order_by(DELIVERY.c.next_attempt_at, DELIVERY.c.id)
        .limit(most)
        .with_for_update(skip_locked=True)
        .cte("claimable")
    )


def _secrets(endpoint: WebhookEndpoint, now: datetime) -> tuple[str, ...]:
    both = endpoint.previous_until is not None and endpoint.previous_until > now
    return (
        (endpoint.secret, endpoint.previous_secret)
        if both and endpoint.previous_secret
        else (endpoint.secret,)
    )


def _held(session: Session, claimed: ClaimedDelivery) -> WebhookDelivery | None:
    delivery = session.get(WebhookDelivery, claimed.id, with_for_update=True)
    return None if delivery is None or delivery.lease_token != claimed.token else delivery


def _note(delivery: WebhookDelivery, attempt: Attempt, now: datetime) -> None:
    """What every attempt leaves behind, and the end of its claim."""
    delivery.attempt += 1
    delivery.tried = [*delivery.tried, asdict(attempt)][-TRIED_KEPT:]
    delivery.give_up_at = delivery.give_up_at or now + TRIED_FOR
    delivery.lease_token = delivery.lease_expires_at = None


def _tried_lately(session: Session, endpoint_id: str, now: datetime) -> bool:
    """Whether something was attempted in the last `TRIED_FOR`, before what is about to be noted."""
    since = now - TRIED_FOR
    # What is still to be attempted was attempted at most `LONGEST_DELAY_S` before it was due.
    tried = and_(
        WebhookDelivery.attempt > 0,
        or_(WebhookDelivery.settled_at > since, WebhookDelivery.next_attempt_at > since),
    )
    one = select(WebhookDelivery.id).where(WebhookDelivery.endpoint_id == endpoint_id, tried).limit(1)
    return session.scalar(one) is not None


def _id_at(moment: datetime) -> str:
    """What the ids of deliveries from this moment on come after: a UUID of version 7 begins with its milliseconds."""
    return f"{DELIVERY_PREFIX}{int(moment.timestamp() * 1000):012x}"
