"""Requests that are made once however often they are sent: what is kept of an `Idempotency-Key`.

Whoever makes something for a request claims its key first, and completes the claim in the transaction that makes it.
So a request that was sent twice, over a dropped connection or by many clients at once, makes one thing, also where
the process is killed in between: a claim that isn't completed may be taken over after `CLAIM_SECONDS`, and whoever
had it finds it lost.

Neither the key nor anything that was sent stands in the table. A row is found by a digest of owner and key, and holds
a digest of the request under the key: without the key nobody can try out which picture it was. When that which was
made is erased, or a part of it, this digest goes too, and what is left says no more than that this key was used.
"""

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Index, String, delete, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Mapped, Session, mapped_column

from jobs.database import Database
from jobs.errors import KeyReused, RequestForgotten, RequestInFlight
from jobs.models import Base, utc_now
from jobs.settings import Settings

# How long a request may take to make what it asks for, before another with its key may do it instead. Above what
# fetching, decoding and screening take when many wait.
CLAIM_SECONDS = 90.0
# When a request that met another one of its key in flight may be sent again.
IN_FLIGHT_RETRY_S = 1
# In place of the digest of a request of which a part was erased; an empty one is of what was erased whole.
PARTLY_ERASED = "partly erased"


class IdempotentRequest(Base):
    """A key that was used. `made` is the id of what its request made; None while that is in flight."""

    __tablename__ = "idempotent_requests"
    __table_args__ = (
        Index("ix_idempotent_requests_made", "made"),
        Index("ix_idempotent_requests_claimed_at", "claimed_at"),
    )

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    fingerprint: Mapped[str] = mapped_column(String(64))
    token: Mapped[str] = mapped_column(String(32))
    made: Mapped[str | None] = mapped_column(String(40), default=None)
    claimed_at: Mapped[datetime]


@dataclass(frozen=True)
class Claim:
    """The right to make what a request with a key asks for, until it is completed or released."""

    id: str
    token: str


def key_id(owner: str, key: str) -> str:
    """Under what an owner's key is kept."""
    return hashlib.sha256(f"das idempotency key\0{owner}\0{key}".encode()).hexdigest()


def fingerprint(key: str, parts: Sequence[bytes]) -> str:
    """What two requests of one key have in common only if they ask the same: a digest of all parts under the key."""
    digest = hmac.new(f"das idempotent request\0{key}".encode(), digestmod=hashlib.sha256)
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.hexdigest()


class Idempotency:
    """The keys that were used in the last `idempotency_seconds`."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._kept = timedelta(seconds=settings.idempotency_seconds)
        self._database = database

    def known(self, row_id: str) -> bool:
        """Whether a request with this key was accepted and is remembered."""
        since = utc_now() - self._kept
        with self._database.read() as session:
            found = session.scalar(
                select(IdempotentRequest.made).where(
                    IdempotentRequest.id == row_id, IdempotentRequest.claimed_at > since
                )
            )
        return found is not None

    def claim(self, row_id: str, request: str) -> Claim | str:
        """The right to make what the request asks for, or the id of what was made for it already.

        Args:
            row_id: from `key_id`.
            request: from `fingerprint`.

        Raises:
            KeyReused: the key was used for another request.
            RequestForgotten: a part of what was made is erased, so that nobody can say whether it was the same.
            RequestInFlight: the same request is being worked on at this moment.
        """
        claim = Claim(row_id, secrets.token_hex(16))
        now = utc_now()
        row = {"id": row_id, "fingerprint": request, "token": claim.token, "made": None, "claimed_at": now}
        with self._database.write() as session:
            dialect = postgresql if session.get_bind().dialect.name == "postgresql" else sqlite
            added = session.scalar(
                dialect.insert(IdempotentRequest)
                .values(row)
                .on_conflict_do_nothing()
                .returning(IdempotentRequest.id)
            )
            if added is not None:
                return claim
            found = session.get(IdempotentRequest, row_id, with_for_update=True)
            if found is None:
                # Released between the two statements; whoever asks again gets it.
                raise RequestInFlight(IN_FLIGHT_RETRY_S)
            age = now - found.claimed_at
            if age < self._kept:
                if found.made is not None and not found.fingerprint:
                    return found.made
                if found.fingerprint == PARTLY_ERASED:
                    raise RequestForgotten
                if not hmac.compare_digest(found.fingerprint, request):
                    raise KeyReused
                if found.made is not None:
                    return found.made
                if age < timedelta(seconds=CLAIM_SECONDS):
                    raise RequestInFlight(IN_FLIGHT_RETRY_S)
            for column, value in row.items():
                setattr(found, column, value)
        return claim

    def release(self, claim: Claim) -> None:
        """Give up a claim for which nothing was made, so that the request may be sent again."""
        with self._database.write() as session:
            session.execute(delete(IdempotentRequest).where(*_held(claim)))

    def forget_old(self, now: datetime | None = None) -> int:
        """Remove the keys whose time is over; returns how many."""
        before = (now or utc_now()) - self._kept
        old = IdempotentRequest.claimed_at < before
        with self._database.read() as session:
            if session.scalar(select(IdempotentRequest.id).where(old).limit(1)) is None:
                return 0
        with self._database.write() as session:
            return len(
                session.scalars(delete(IdempotentRequest).where(old).returning(IdempotentRequest.id)).all()
            )


def complete(session: Session, claim: Claim, made: str) -> None:
    """Say what was made for a claim, in the transaction that makes it.

    Raises:
        RequestInFlight: another request of the same key has taken the claim over; nothing may be made.
    """
    held = session.scalars(
        update(IdempotentRequest).where(*_held(claim)).values(made=made).returning(IdempotentRequest.id)
    ).one_or_none()
    if held is None:
        raise RequestInFlight(IN_FLIGHT_RETRY_S)


def forget_request(session: Session, made: str) -> None:
    """Forget what was sent for that which is being erased; its key stays used, for what it made is gone for good."""
    session.execute(update(IdempotentRequest).where(IdempotentRequest.made == made).values(fingerprint=""))


def forget_partly(session: Session, made: str) -> None:
    """Forget what was sent for that of which a part is being erased. The rest stays, and isn't told to whoever sends
    something else under the key."""
    of_it = (IdempotentRequest.made == made, IdempotentRequest.fingerprint != "")
    session.execute(update(IdempotentRequest).where(*of_it).values(fingerprint=PARTLY_ERASED))


def _held(claim: Claim) -> tuple[ColumnElement[bool], ...]:
    return (
        IdempotentRequest.id == claim.id,
        IdempotentRequest.token == claim.token,
        IdempotentRequest.made.is_(None),
    )
