"""Who is signed in on the page: a row for each browser, so that signing out ends every copy of its cookie.

Of a session's id only the digest is kept; the id itself stands in that browser's cookie alone. A key has so many
sessions at once and no more, and what has ended is dropped after a while.
"""

import hashlib
from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Index, String, delete, func, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from jobs.audit import Actor, record
from jobs.credentials import ID_LENGTH
from jobs.database import Database
from jobs.models import Base, utc_now

# Who signs in once more than that ends the oldest: a browser that forgets its cookies leaves one behind every time.
MOST_OF_A_KEY = 50
DROPPED_AT_ONCE = 1000


class SignedIn(Base):
    """One browser that is signed in with a key."""

    __tablename__ = "sessions"
    __table_args__ = (
        Index("ix_sessions_key_id_created_at", "key_id", "created_at"),
        Index("ix_sessions_ends_at", "ends_at"),
    )

    digest: Mapped[str] = mapped_column(String(64), primary_key=True)
    key_id: Mapped[str] = mapped_column(String(ID_LENGTH))
    created_at: Mapped[datetime]
    ends_at: Mapped[datetime]


class SessionRows:
    """All that is done to sessions. Its methods block for a few milliseconds."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def begin(
        self, session_id: str, key_id: str, ends_at: datetime, by: Actor, instead_of: str | None = None
    ) -> None:
        """Keep a session, and record that somebody signed in.

        Args:
            by: the key, as the audit log has it.
            instead_of: the digest of the same browser's session before, which ends.
        """
        row = SignedIn(digest=digest_of(session_id), key_id=key_id, created_at=utc_now(), ends_at=ends_at)
        newest = select(SignedIn.digest).where(SignedIn.key_id == key_id)
        surplus = newest.order_by(SignedIn.created_at.desc(), SignedIn.digest).offset(MOST_OF_A_KEY - 1)
        with self._database.write() as session:
            if instead_of is not None:
                session.execute(delete(SignedIn).where(SignedIn.digest == instead_of))
            session.execute(delete(SignedIn).where(SignedIn.digest.in_(surplus)))
            session.add(row)
            record(session, by, "sign-in", by.name)

    def there(self, digest: str) -> bool:
        """Whether this session hasn't ended: one look by the primary key."""
        with self._database.read() as session:
            ends_at = session.scalar(select(SignedIn.ends_at).where(SignedIn.digest == digest))
        return ends_at is not None and ends_at > utc_now()

    def of(self, key_id: str) -> Sequence[SignedIn]:
        """The sessions of a key, the newest first; there are `MOST_OF_A_KEY` at most."""
        with self._database.read() as session:
            return session.scalars(
                select(SignedIn)
                .where(SignedIn.key_id == key_id, SignedIn.ends_at > utc_now())
                .order_by(SignedIn.created_at.desc(), SignedIn.digest)
            ).all()

    def count(self) -> int:
        """How many browsers are signed in."""
        with self._database.read() as session:
            return (
                session.scalar(select(func.count()).select_from(SignedIn).where(SignedIn.ends_at > utc_now()))
                or 0
            )

    def end(self, digest: str, key: str, by: Actor) -> None:
        """End one session of the key with this prefix. Ending it again changes nothing."""
        with self._database.write() as session:
            ended = session.scalars(
                delete(SignedIn).where(SignedIn.digest == digest).returning(SignedIn.digest)
            ).all()
            if ended:
                record(session, by, "sign-out", key, sessions=1)

    def end_all(self, key_id: str, key: str, by: Actor) -> int:
        """End every session of a key; returns how many there were."""
        with self._database.write() as session:
            ended = end_sessions(session, key_id)
            if ended:
                record(session, by, "sign-out", key, sessions=ended)
        return ended

    def drop_ended(self) -> int:
        """Drop what has ended by itself, `DROPPED_AT_ONCE` at most; returns how many."""
        ended = select(SignedIn.digest).where(SignedIn.ends_at <= utc_now()).limit(DROPPED_AT_ONCE)
        with self._database.read() as session:
            if session.scalar(ended.limit(1)) is None:
                return 0
        with self._database.write() as session:
            dropped = delete(SignedIn).where(SignedIn.digest.in_(ended)).returning(SignedIn.digest)
            return len(session.scalars(dropped).all())


def end_sessions(session: Session, key_id: str) -> int:
    """End every session of a key within a transaction; returns how many there were."""
    ended = delete(SignedIn).where(SignedIn.key_id == key_id).returning(SignedIn.digest)
    return len(session.scalars(ended).all())


def digest_of(session_id: str) -> str:
    """What is kept of a session's id."""
    # 128 random bits: a slow hash would add nothing, see jobs.credentials.
    return hashlib.sha256(f"session {session_id}".encode()).hexdigest()
