"""`Keys`: the API keys and links that were handed out, in the database."""

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Index, String, and_, func, or_, select, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from jobs.audit import SHELL, Actor, record
from jobs.credentials import ID, ID_LENGTH, Kind, Scope, digest_of, new_id, new_token, prefix_of
from jobs.database import Database
from jobs.errors import BadCursor, KeyNotFound, KeyRefused
from jobs.models import Base, utc_now
from jobs.sessions import end_sessions

MAX_NAME = 200
MAX_INDEXES = 100
MAX_INDEX_NAME = 200
MAX_QUOTA = 10**9
MAX_RIGHTS_HOLDERS = 20
CONTROL_CHARACTERS = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
# How exactly it is told when a key was last used: a write in every request would be dear.
LAST_USED_EVERY = timedelta(hours=1)
# How long a key that was exchanged goes on working unless something else is asked for.
OVERLAP = timedelta(days=7)
LONGEST = timedelta(days=3660)
# How many are read at once where all are.
EACH_PAGE = 200
# An answer that is erased at once could be read by nobody.
SHORTEST_RESULTS = timedelta(minutes=1)


class ApiKey(Base):
    """A key or link. Its secret isn't here, only the digest of that.

    Questions belong to `owner`. A key that replaces another has the same one, so it sees the same questions,
    and keeps them as long: `keep_uploads` and `keep_results`, in seconds after their end, None as the settings say.
    """

    __tablename__ = "api_keys"
    __table_args__ = (Index("ix_api_keys_created_at_id", "created_at", "id"),)

    id: Mapped[str] = mapped_column(String(ID_LENGTH), primary_key=True)
    kind: Mapped[str] = mapped_column(String(8))
    name: Mapped[str] = mapped_column(String(MAX_NAME))
    owner: Mapped[str] = mapped_column(String(80), index=True)
    digest: Mapped[str] = mapped_column(String(64))
    scopes: Mapped[list[str]]
    indexes: Mapped[list[str] | None]
    daily_quota: Mapped[int | None]
    daily_works: Mapped[int | None]
    rights_holders: Mapped[list[str] | None]
    keep_uploads: Mapped[int | None]
    keep_results: Mapped[int | None]
    replaces: Mapped[str | None] = mapped_column(String(ID_LENGTH))
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]

    @property
    def prefix(self) -> str:
        """How it begins, as lists show it."""
        return prefix_of(self.kind, self.id)

    def state(self, now: datetime) -> str:
        """`active`, `expired` or `revoked`."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and self.expires_at <= now else "active"


@dataclass(frozen=True, kw_only=True)
class NewKey:
    """What is asked for. `indexes` are ids or names, None for all; `daily_quota` and
    `daily_works` None for the settings'.

    `rights_holders` are those whose works it may see although only they may. `keep_uploads` and `keep_results` are
    how long pictures and whole questions are kept after their end, None as the settings say.

    Raises:
        KeyRefused: it can't be given out like this.
    """

    name: str
    scopes: frozenset[Scope]
    kind: Kind = Kind.KEY
    indexes: tuple[str, ...] | None = None
    daily_quota: int | None = None
    daily_works: int | None = None
    expires_in: timedelta | None = None
    rights_holders: tuple[str, ...] = ()
    keep_uploads: timedelta | None = None
    keep_results: timedelta | None = None

    def __post_init__(self) -> None:
        if not self.name.strip() or len(self.name) > MAX_NAME or CONTROL_CHARACTERS.search(self.name):
            raise KeyRefused(
                f"a key's name has 1 to {MAX_NAME} characters, none of them a control character",
                "name",
                "unprintable",
            )
        if not self.scopes:
            raise KeyRefused(f"a key needs a scope at least: {', '.join(Scope)}")
        if Scope.ADMIN in self.scopes and self.indexes is not None:
            raise KeyRefused(
                "a key that makes keys can't be kept to some indexes: it could make one for all",
                "indexes",
                "admin_limited",
            )
        if Scope.ADMIN in self.scopes and self.kind is Kind.LINK:
            raise KeyRefused("a link can't have the scope admin: hand out a key", "scopes", "admin_link")
        for index in self.indexes or ():
            if not 0 < len(index) <= MAX_INDEX_NAME or CONTROL_CHARACTERS.search(index):
                raise KeyRefused(f"{index[:40]!r} can't be the id or name of an index")
        if self.indexes is not None and not 0 < len(self.indexes) <= MAX_INDEXES:
            raise KeyRefused(f"a key is kept to 1 to {MAX_INDEXES} indexes, or to none of them")
        if self.daily_quota is not None and not 1 <= self.daily_quota <= MAX_QUOTA:
            raise KeyRefused(f"a quota is 1 to {MAX_QUOTA} questions a day")
        if self.daily_works is not None and not 1 <= self.daily_works <= MAX_QUOTA:
            raise KeyRefused(f"a budget is 1 to {MAX_QUOTA} different works a day")
        if self.daily_works is not None and Scope.ADMIN in self.scopes:
            raise KeyRefused(
                "a key that runs the service may be shown every work: it has no budget of them",
                "daily_works",
                "admin_works",
            )
        if self.expires_in is not None and not timedelta() < self.expires_in <= LONGEST:
            raise KeyRefused(f"a key expires after a moment at least and {LONGEST.days} days at most")
        self._check_records()

    def _check_records(self) -> None:
        if len(self.rights_holders) > MAX_RIGHTS_HOLDERS:
            raise KeyRefused(f"a key speaks for {MAX_RIGHTS_HOLDERS} rights holders at most")
        for name in self.rights_holders:
            if not 0 < len(name.strip()) <= MAX_NAME or CONTROL_CHARACTERS.search(name):
                raise KeyRefused(
                    f"a rights holder's name has 1 to {MAX_NAME} characters, none of them a control one",
                    "rights_holders",
                    "unprintable",
                )
        if self.keep_uploads is not None and not timedelta() <= self.keep_uploads <= LONGEST:
            raise KeyRefused(f"pictures are kept for 0 to {LONGEST.days} days after their question's end")
        if self.keep_results is not None and not SHORTEST_RESULTS <= self.keep_results <= LONGEST:
            raise KeyRefused(f"questions are kept for a minute to {LONGEST.days} days after their end")


@dataclass(frozen=True)
class IssuedKey:
    """A key with its secret, which is known nowhere else and never again."""

    key: ApiKey
    secret: str

    def __repr__(self) -> str:
        return f"IssuedKey({self.key.prefix})"


NEWEST = (ApiKey.created_at.desc(), ApiKey.id.desc())


@dataclass(frozen=True)
class KeyPage:
    """One page, the newest first."""

    keys: Sequence[ApiKey]
    next_cursor: str | None


class Keys:
    """All that is done to keys. Its methods block for a few milliseconds."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self, wanted: NewKey, by: Actor = SHELL) -> IssuedKey:
        """Make a key; its questions are its own."""
        key_id = new_id()
        expires_at = None if wanted.expires_in is None else utc_now() + wanted.expires_in
        with self._database.write() as session:
            issued = _issue(session, wanted, key_id, f"key_{key_id}", expires_at)
            record(session, by, "key.created", issued.key.prefix, scopes=list(issued.key.scopes))
            return issued

    def find(self, key_id: str) -> ApiKey | None:
        """The key of this id, whatever its state: one look by the primary key."""
        with self._database.read() as session:
            return session.get(ApiKey, key_id)

    def each(self, state: str | None = None) -> Iterator[ApiKey]:
        """Every key and link, or those in a state, the newest first; read a page at a time."""
        cursor: str | None = ""
        while cursor is not None:
            page = self.list(None, state, cursor or None, EACH_PAGE)
            yield from page.keys
            cursor = page.next_cursor

    def list(
        self, named: str | None = None, state: str | None = None, cursor: str | None = None, limit: int = 20
    ) -> KeyPage:
        """A page of keys and links, the newest first.

        Args:
            named: a part of the name, in any case; or the key's id or how it begins.
            state: `active`, `expired` or `revoked`.

        Raises:
            BadCursor: the cursor isn't one of ours.
        """
        now = utc_now()
        statement = select(ApiKey).order_by(*NEWEST).limit(limit + 1)
        if named:
            own_id = ApiKey.id == re.sub("^dasl?_", "", named.strip())
            statement = statement.where(or_(own_id, ApiKey.name.icontains(named.strip(), autoescape=True)))
        if state is not None:
            statement = statement.where(*_in_state(state, now))
        with self._database.read() as session:
            if cursor is not None:
                last = session.get(ApiKey, cursor) if re.fullmatch(ID, cursor) else None
                if last is None:
                    raise BadCursor(f"{cursor[:40]!r} isn't a cursor of this list; start again without one")
                older = ApiKey.created_at < last.created_at
                same = and_(ApiKey.created_at == last.created_at, ApiKey.id < last.id)
                statement = statement.where(or_(older, same))
            found = session.scalars(statement).all()
        return KeyPage(found[:limit], found[limit - 1].id if len(found) > limit else None)

    def of_owners(self, owners: Collection[str]) -> dict[str, ApiKey]:
        """The newest key of each of these owners who has one."""
        with self._database.read() as session:
            found = session.scalars(
                select(ApiKey).where(ApiKey.owner.in_(owners)).order_by(ApiKey.created_at, ApiKey.id)
            ).all()
        return {key.owner: key for key in found}

    def count(self, state: str) -> int:
        """How many keys and links are in a state."""
        with self._database.read() as session:
            counted = select(func.count()).select_from(ApiKey).where(*_in_state(state, utc_now()))
            return session.scalar(counted) or 0

    def any_active(self) -> bool:
        """Whether somebody could come in."""
        with self._database.read() as session:
            return session.scalar(select(ApiKey.id).where(*_active(utc_now())).limit(1)) is not None

    def revoke(self, key_id: str, by: Actor = SHELL) -> ApiKey:
        """End a key for good, with all that is signed in with it. Revoking it again changes nothing.

        Raises:
            KeyNotFound: there is none of this id.
        """
        with self._database.write() as session:
            key = _one(session, key_id)
            if key.revoked_at is None:
                key.revoked_at = utc_now()
                record(session, by, "key.revoked", key.prefix)
            end_sessions(session, key.id)
            return key

    def rotate(self, key_id: str, overlap: timedelta = OVERLAP, by: Actor = SHELL) -> IssuedKey:
        """Make a key that replaces an active one: same owner, scopes, indexes, quota, times and length of life.

        Both work for as long as `overlap`, or until the old one's own end.

        Raises:
            KeyNotFound: there is none of this id.
            KeyRefused: it doesn't work any more, was replaced already, or the overlap can't be used.
        """
        now = utc_now()
        if not timedelta() <= overlap <= LONGEST:
            raise KeyRefused(f"the overlap is 0 to {LONGEST.days} days")
        with self._database.write() as session:
            old = _one(session, key_id)
            if old.state(now) != "active":
                raise KeyRefused(f"{old.prefix} is {old.state(now)}: make a new key instead")
            replaced = session.scalar(select(ApiKey.id).where(ApiKey.replaces == old.id))
            if replaced is not None:
                raise KeyRefused(f"{old.prefix} was replaced by {prefix_of(old.kind, replaced)} already")
            wanted = NewKey(
                name=old.name,
                kind=Kind(old.kind),
                scopes=frozenset(map(Scope, old.scopes)),
                indexes=None if old.indexes is None else tuple(old.indexes),
                daily_quota=old.daily_quota,
                daily_works=old.daily_works,
                rights_holders=tuple(old.rights_holders or ()),
                keep_uploads=_span(old.keep_uploads),
                keep_results=_span(old.keep_results),
            )
            expires_at = None if old.expires_at is None else now + (old.expires_at - old.created_at)
            old.expires_at = min(now + overlap, old.expires_at or now + overlap)
            issued = _issue(session, wanted, new_id(), old.owner, expires_at, replaces=old.id)
            record(session, by, "key.rotated", old.prefix, to=issued.key.prefix)
            return issued

    def used(self, key_id: str) -> None:
        """Note that a key was used in this hour."""
        now = utc_now()
        hour = now.replace(minute=0, second=0, microsecond=0)
        with self._database.write() as session:
            session.execute(
                update(ApiKey)
                .where(ApiKey.id == key_id, or_(ApiKey.last_used_at.is_(None), ApiKey.last_used_at < hour))
                .values(last_used_at=hour)
            )


def _issue(
    session: Session,
    wanted: NewKey,
    key_id: str,
    owner: str,
    expires_at: datetime | None,
    replaces: str | None = None,
) -> IssuedKey:
    secret = new_token(wanted.kind, key_id)
    key = ApiKey(
        id=key_id,
        kind=wanted.kind,
        name=wanted.name,
        owner=owner,
        digest=digest_of(secret),
        scopes=[scope for scope in Scope if scope in wanted.scopes],
        indexes=None if wanted.indexes is None else list(wanted.indexes),
        daily_quota=wanted.daily_quota,
        daily_works=wanted.daily_works,
        rights_holders=list(wanted.rights_holders) or None,
        keep_uploads=_seconds(wanted.keep_uploads),
        keep_results=_seconds(wanted.keep_results),
        replaces=replaces,
        created_at=utc_now(),
        expires_at=expires_at,
        revoked_at=None,
        last_used_at=None,
    )
    session.add(key)
    return IssuedKey(key, secret)


def _seconds(span: timedelta | None) -> int | None:
    return None if span is None else int(span.total_seconds())


def _span(seconds: int | None) -> timedelta | None:
    return None if seconds is None else timedelta(seconds=seconds)


def _one(session: Session, key_id: str) -> ApiKey:
    # What isn't an id was never given, and a database may choke on it.
    key = session.get(ApiKey, key_id, with_for_update=True) if re.fullmatch(ID, key_id) else None
    if key is None:
        raise KeyNotFound(key_id)
    return key


def _active(now: datetime) -> tuple[ColumnElement[bool], ...]:
    return (ApiKey.revoked_at.is_(None), or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > now))


def _in_state(state: str, now: datetime) -> tuple[ColumnElement[bool], ...]:
    if state == "active":
        return _active(now)
    if state == "expired":
        return (ApiKey.revoked_at.is_(None), ApiKey.expires_at <= now)
    return (ApiKey.revoked_at.is_not(None),)
