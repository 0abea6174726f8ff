"""Policies and their versions: what a version says never changes, only which of them decides.

What a document means is the app's business; here it is kept. One version is active, another may be tried beside it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ForeignKeyConstraint, String, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Mapped, defer, mapped_column

from jobs.audit import SERVICE, Actor, record
from jobs.database import Database
from jobs.errors import JobsError
from jobs.models import Base, JsonObject, utc_now

MOST_POLICIES = 50
MOST_VERSIONS = 500


class PolicyRow(Base):
    """A policy of an owner: `versions` counts them, `active` is the one that decides, `shadow` is tried beside it."""

    __tablename__ = "policies"

    owner: Mapped[str] = mapped_column(String(80), primary_key=True)
    id: Mapped[str] = mapped_column(String(60), primary_key=True)
    versions: Mapped[int]
    active: Mapped[int | None]
    shadow: Mapped[int | None]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class PolicyVersion(Base):
    """One version, as plain values; written once."""

    __tablename__ = "policy_versions"
    __table_args__ = (ForeignKeyConstraint(["owner", "policy_id"], ["policies.owner", "policies.id"]),)

    owner: Mapped[str] = mapped_column(String(80), primary_key=True)
    policy_id: Mapped[str] = mapped_column(String(60), primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    digest: Mapped[str] = mapped_column(String(64))
    document: Mapped[JsonObject]
    created_at: Mapped[datetime]


class PolicyNotFound(JobsError):
    """There is no such policy, or not this version of it."""


class TooManyPolicies(JobsError):
    """An owner keeps as many as one may."""


@dataclass(frozen=True)
class Stored:
    """A policy after something was stored: the version it is about, and whether that is a new one."""

    policy: PolicyRow
    version: PolicyVersion
    new: bool


class Policies:
    """The policies of all owners; each method sees those of one."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def put(
        self,
        owner: str,
        policy_id: str,
        document: JsonObject,
        digest: str,
        *,
        dry_run: bool,
        by: Actor = SERVICE,
    ) -> Stored:
        """Keep a document as the newest version of a policy, and have it decide, or try it beside the active one.

        What the newest version says already makes no new one.

        Raises:
            TooManyPolicies: there are `MOST_POLICIES`, or `MOST_VERSIONS` of this one.
        """
        try:
            return self._put(owner, policy_id, document, digest, dry_run, by)
        except IntegrityError:
            # Somebody else has begun the same policy at this moment; now it is there.
            return self._put(owner, policy_id, document, digest, dry_run, by)

    def _put(
        self, owner: str, policy_id: str, document: JsonObject, digest: str, dry_run: bool, by: Actor
    ) -> Stored:
        now = utc_now()
        with self._database.write() as session:
            policy = session.get(PolicyRow, (owner, policy_id), with_for_update=True)
            if policy is None:
                count = session.scalar(select(func.count()).where(PolicyRow.owner == owner)) or 0
                if count >= MOST_POLICIES:
                    raise TooManyPolicies(
                        f"there are {count} policies already, which is the most that are kept"
                    )
                policy = PolicyRow(
                    owner=owner,
                    id=policy_id,
                    versions=0,
                    active=None,
                    shadow=None,
                    created_at=now,
                    updated_at=now,
                )
                session.add(policy)
                session.flush()
            newest = session.get(PolicyVersion, (owner, policy_id, policy.versions))
            new = newest is None or newest.digest != digest
            if newest is None or new:
                if policy.versions >= MOST_VERSIONS:
                    raise TooManyPolicies(
                        f"{policy_id} has {policy.versions} versions, which is the most: begin another policy"
                    )
                newest = PolicyVersion(
                    owner=owner,
                    policy_id=policy_id,
                    version=policy.versions + 1,
                    digest=digest,
                    document=document,
                    created_at=now,
                )
                policy.versions += 1
                session.add(newest)
            _stand(policy, newest.version, dry_run)
            record(session, by, "policy.stored", policy_id, version=newest.version, dry_run=dry_run)
            return Stored(policy, newest, new)

    def activate(
        self,
        owner: str,
        policy_id: str,
        version: int | None,
        *,
        dry_run: bool = False,
        by: Actor = SERVICE,
    ) -> PolicyRow:
        """Have a version decide, or with `dry_run` try it beside the active one; None then ends the trial.

        Raises:
            PolicyNotFound: there is no such policy, or not this version.
        """
        with self._database.write() as session:
            policy = session.get(PolicyRow, (owner, policy_id), with_for_update=True)
            if policy is None:
                raise PolicyNotFound(f"there is no policy {policy_id}")
            if version is None:
                policy.shadow, policy.updated_at = None, utc_now()
                record(session, by, "policy.activated", policy_id, version=None, dry_run=True)
                return policy
            if not 1 <= version <= policy.versions:
                raise PolicyNotFound(f"{policy_id} has no version {version}, but 1 to {policy.versions}")
            _stand(policy, version, dry_run)
            record(session, by, "policy.activated", policy_id, version=version, dry_run=dry_run)
            return policy

    def get(self, owner: str, policy_id: str) -> PolicyRow | None:
        """The policy, or None."""
        with self._database.read() as session:
            return session.get(PolicyRow, (owner, policy_id))

    def list(self, owner: str) -> Sequence[PolicyRow]:
        """All of them, by id; there are `MOST_POLICIES` at most."""
        with self._database.read() as session:
            return session.scalars(
                select(PolicyRow).where(PolicyRow.owner == owner).order_by(PolicyRow.id)
            ).all()

    def version(self, owner: str, policy_id: str, version: int) -> PolicyVersion | None:
        """One version, or None."""
        with self._database.read() as session:
            return session.get(PolicyVersion, (owner, policy_id, version))

    def versions(self, owner: str, policy_id: str) -> Sequence[PolicyVersion]:
        """All versions, newest first; their documents aren't read."""
        with self._database.read() as session:
            return session.scalars(
                select(PolicyVersion)
                .where(PolicyVersion.owner == owner, PolicyVersion.policy_id == policy_id)
                .options(defer(PolicyVersion.document))
                .order_by(PolicyVersion.version.desc())
            ).all()


def _stand(policy: PolicyRow, version: int, dry_run: bool) -> None:
    """Let a version decide or be tried. What decides isn't tried as well."""
    if dry_run:
        policy.shadow = version if version != policy.active else None
    else:
        policy.active = version
        policy.shadow = policy.shadow if policy.shadow != version else None
    policy.updated_at = utc_now()
