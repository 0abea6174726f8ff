"""`Endpoints`: the addresses that hear of what happens, each its owner's."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from jobs.audit import SERVICE, Actor, record
from jobs.database import Database
from jobs.errors import BadCursor, JobsError
from jobs.models import utc_now
from jobs.webhooks.models import (
    ENDPOINT_PREFIX,
    WebhookDelivery,
    WebhookEndpoint,
    WebhookEvent,
    new_endpoint_id,
)
from jobs.webhooks.outbox import announce_test
from jobs.webhooks.sealing import Seal, new_secret

MOST_ENDPOINTS = 20
ENDPOINT_ID = re.compile(ENDPOINT_PREFIX + "[0-9a-f]{32}")
# For how long both secrets sign unless something else is asked for.
OVERLAP = timedelta(days=1)
LONGEST_OVERLAP = timedelta(days=7)
BY_REQUEST = "It was disabled by request."


class EndpointNotFound(JobsError):
    """There is no endpoint with this id."""

    def __init__(self, endpoint_id: str) -> None:
        super().__init__(f"there is no webhook endpoint {endpoint_id[:40]!r}")


class EndpointRefused(JobsError):
    """An endpoint can't be made, or not used in this way, as it stands."""


@dataclass(frozen=True)
class IssuedSecret:
    """An endpoint with its secret in clear, which nobody is shown again."""

    endpoint: WebhookEndpoint
    secret: str

    def __repr__(self) -> str:
        return f"IssuedSecret({self.endpoint.id})"


@dataclass(frozen=True)
class EndpointPage:
    """One page of everybody's endpoints, the newest first."""

    endpoints: Sequence[WebhookEndpoint]
    next_cursor: str | None


@dataclass(frozen=True)
class Change:
    """What shall become of an endpoint; None leaves it. `events` is a pair's second where the first is true."""

    enabled: bool | None = None
    events: tuple[bool, list[WebhookEvent] | None] = (False, None)
    description: tuple[bool, str | None] = (False, None)


class Endpoints:
    """The endpoints of all owners; a method that takes one sees only theirs. They block for a few milliseconds."""

    def __init__(self, database: Database, seal: Seal) -> None:
        self._database = database
        self._seal = seal

    def create(
        self,
        owner: str,
        url: str,
        events: list[WebhookEvent] | None,
        description: str | None,
        by: Actor = SERVICE,
    ) -> IssuedSecret:
        """Make an endpoint. `url` has been looked at; `events` None is all, also those of later versions.

        Raises:
            EndpointRefused: the owner has one of this address, or as many as are kept.
        """
        secret = new_secret()
        endpoint = WebhookEndpoint(
            id=new_endpoint_id(),
            owner=owner,
            url=url,
            description=description,
            events=None if events is None else [*events],
            secret=self._seal.close(secret),
            previous_secret=None,
            previous_until=None,
            created_at=utc_now(),
            enabled=True,
            disabled_at=None,
            disabled_because=None,
            failing_since=None,
        )
        with self._database.write() as session:
            mine = WebhookEndpoint.owner == owner
            if session.scalar(select(WebhookEndpoint.id).where(mine, WebhookEndpoint.url == url)):
                raise EndpointRefused("there is an endpoint of yours with this address already")
            count = session.scalar(select(func.count()).select_from(WebhookEndpoint).where(mine)) or 0
            if count >= MOST_ENDPOINTS:
                raise EndpointRefused(f"you have {count} endpoints, which is the most: delete one first")
            session.add(endpoint)
            record(session, by, "webhook.created", endpoint.id)
        return IssuedSecret(endpoint, secret)

    def get(self, owner: str, endpoint_id: str) -> WebhookEndpoint | None:
        """The owner's endpoint of this id."""
        with self._database.read() as session:
            return _found(session, owner, endpoint_id)

    def at(self, owner: str, url: str) -> WebhookEndpoint | None:
        """The owner's endpoint of this address."""
        with self._database.read() as session:
            return session.scalars(
                select(WebhookEndpoint)
                .where(WebhookEndpoint.owner == owner, WebhookEndpoint.url == url)
                .order_by(WebhookEndpoint.id)
                .limit(1)
            ).one_or_none()

    def list(self, owner: str) -> Sequence[WebhookEndpoint]:
        """All of them, oldest first; there are `MOST_ENDPOINTS` at most."""
        with self._database.read() as session:
            return session.scalars(
                select(WebhookEndpoint).where(WebhookEndpoint.owner == owner).order_by(WebhookEndpoint.id)
            ).all()

    def everybodys(
        self, enabled: bool | None = None, cursor: str | None = None, limit: int = 20
    ) -> EndpointPage:
        """A page of all owners' endpoints, for who runs the service.

        Raises:
            BadCursor: the cursor isn't one of ours.
        """
        statement = select(WebhookEndpoint).order_by(WebhookEndpoint.id.desc()).limit(limit + 1)
        if cursor is not None:
            if not ENDPOINT_ID.fullmatch(cursor):
                raise BadCursor(f"{cursor[:60]!r} isn't a cursor of this list; start again without one")
            statement = statement.where(WebhookEndpoint.id < cursor)
        if enabled is not None:
            statement = statement.where(WebhookEndpoint.enabled == enabled)
        with self._database.read() as session:
            found = session.scalars(statement).all()
        return EndpointPage(found[:limit], found[limit - 1].id if len(found) > limit else None)

    def anybodys(self, endpoint_id: str) -> WebhookEndpoint | None:
        """The endpoint of this id, whoever's it is."""
        if not ENDPOINT_ID.fullmatch(endpoint_id):
            return None
        with self._database.read() as session:
            return session.get(WebhookEndpoint, endpoint_id)

    def disabled(self) -> int:
        """How many endpoints of all owners hear of nothing."""
        with self._database.read() as session:
            counted = select(func.count()).select_from(WebhookEndpoint)
            return session.scalar(counted.where(WebhookEndpoint.enabled.is_(False))) or 0

    def change(self, owner: str, endpoint_id: str, wanted: Change, by: Actor = SERVICE) -> WebhookEndpoint:
        """Enable or disable it, or let it hear of other events.

        Enabling takes it for well again; what waited for it meanwhile is delivered.

        Raises:
            EndpointNotFound: there is none of this owner.
        """
        with self._database.write() as session:
            endpoint = _one(session, owner, endpoint_id)
            if wanted.events[0]:
                endpoint.events = None if wanted.events[1] is None else [*wanted.events[1]]
            if wanted.description[0]:
                endpoint.description = wanted.description[1]
            if wanted.enabled:
                endpoint.enabled, endpoint.disabled_at, endpoint.disabled_because = True, None, None
                endpoint.failing_since = None
            elif wanted.enabled is False and endpoint.enabled:
                endpoint.enabled, endpoint.disabled_at = False, utc_now()
                endpoint.disabled_because = BY_REQUEST
            record(session, by, "webhook.changed", endpoint.id, enabled=endpoint.enabled)
            return endpoint

    def rotate(
        self, owner: str, endpoint_id: str, overlap: timedelta = OVERLAP, by: Actor = SERVICE
    ) -> IssuedSecret:
        """Give it another secret. For as long as `overlap` every delivery is signed with both.

        Raises:
            EndpointNotFound: there is none of this owner.
        """
        secret = new_secret()
        with self._database.write() as session:
            endpoint = _one(session, owner, endpoint_id)
            both = overlap > timedelta()
            endpoint.previous_secret = endpoint.secret if both else None
            endpoint.previous_until = utc_now() + overlap if both else None
            endpoint.secret = self._seal.close(secret)
            record(session, by, "webhook.rotated", endpoint.id)
        return IssuedSecret(endpoint, secret)

    def delete(self, owner: str, endpoint_id: str, by: Actor = SERVICE) -> None:
        """Remove it with its deliveries; what waits is never sent.

        Raises:
            EndpointNotFound: there is none of this owner.
        """
        with self._database.write() as session:
            endpoint = _one(session, owner, endpoint_id)
            session.execute(delete(WebhookDelivery).where(WebhookDelivery.endpoint_id == endpoint.id))
            session.delete(endpoint)
            record(session, by, "webhook.deleted", endpoint_id)

    def test(self, owner: str, endpoint_id: str) -> WebhookDelivery:
        """Have something delivered to it.

        Raises:
            EndpointNotFound: there is none of this owner.
            EndpointRefused: it is disabled.
        """
        with self._database.write() as session:
            endpoint = _one(session, owner, endpoint_id)
            refuse_disabled(endpoint)
            return session.get_one(WebhookDelivery, announce_test(session, endpoint.id))


def refuse_disabled(endpoint: WebhookEndpoint) -> None:
    """Raises `EndpointRefused` for one that nothing is sent to."""
    if not endpoint.enabled:
        raise EndpointRefused(f"the endpoint {endpoint.id} is disabled: enable it first")


def _found(session: Session, owner: str, endpoint_id: str, *, lock: bool = False) -> WebhookEndpoint | None:
    # What isn't an id was never given, and a database may choke on it.
    if not ENDPOINT_ID.fullmatch(endpoint_id):
        return None
    endpoint = session.get(WebhookEndpoint, endpoint_id, with_for_update=True if lock else None)
    return None if endpoint is None or endpoint.owner != owner else endpoint


def _one(session: Session, owner: str, endpoint_id: str) -> WebhookEndpoint:
    endpoint = _found(session, owner, endpoint_id, lock=True)
    if endpoint is None:
        raise EndpointNotFound(endpoint_id)
    return endpoint
