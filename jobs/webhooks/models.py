"""The tables of webhooks: endpoints, and what is to be delivered to them.

Between the two there is no foreign key: deliveries are written in the transactions that end jobs, and none of those
shall fail because an endpoint was removed at that moment. What is left without an endpoint is never sent.
"""

from datetime import datetime
from enum import StrEnum

from sqlalchemy import Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column
from uuid_utils import uuid7

from jobs.models import Base, JsonObject

ENDPOINT_PREFIX = "whe_"
DELIVERY_PREFIX = "msg_"
MAX_DESCRIPTION = 200


class WebhookEvent(StrEnum):
    """What an endpoint may hear of."""

    SUCCEEDED = "attribution.succeeded"
    FAILED = "attribution.failed"
    CANCELLED = "attribution.cancelled"
    DECIDED = "decision.made"
    BATCH_FINISHED = "batch.finished"
    TEST = "webhook.test"


class DeliveryState(StrEnum):
    """A delivery is pending until it was taken, or given up."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"


class WebhookEndpoint(Base):
    """An address of an owner's that hears of events; `events` None: of all. `secret` is sealed."""

    __tablename__ = "webhook_endpoints"
    __table_args__ = (
        Index("ix_webhook_endpoints_owner", "owner"),
        Index("ix_webhook_endpoints_enabled_id", "enabled", "id"),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    owner: Mapped[str] = mapped_column(String(80))
    url: Mapped[str] = mapped_column(Text)
    description: Mapped[str | None] = mapped_column(String(MAX_DESCRIPTION))
    events: Mapped[list[str] | None]
    secret: Mapped[str] = mapped_column(Text)
    previous_secret: Mapped[str | None] = mapped_column(Text)
    previous_until: Mapped[datetime | None]
    created_at: Mapped[datetime]
    enabled: Mapped[bool]
    disabled_at: Mapped[datetime | None]
    disabled_because: Mapped[str | None] = mapped_column(Text)
    failing_since: Mapped[datetime | None]


class WebhookDelivery(Base):
    """One event for one endpoint. Its id is the `webhook-id` of every attempt, and its body the same bytes.

    `attempt` counts those of this round, which begins anew when it is delivered again by request; `tried` has the
    last ones. `settled_at` is when it was taken or given up. `job_id` is the question or batch that it tells of, with
    which it is erased.
    """

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        Index("ix_webhook_deliveries_endpoint_id_id", "endpoint_id", "id"),
        Index("ix_webhook_deliveries_state_next", "state", "next_attempt_at"),
        Index("ix_webhook_deliveries_state_id", "state", "id"),
        Index("ix_webhook_deliveries_job_id", "job_id"),
        Index("ix_webhook_deliveries_settled_at", "settled_at"),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    endpoint_id: Mapped[str] = mapped_column(String(40))
    job_id: Mapped[str | None] = mapped_column(String(40))
    type: Mapped[str] = mapped_column(String(40))
    body: Mapped[str] = mapped_column(Text)
    state: Mapped[str] = mapped_column(String(16))
    created_at: Mapped[datetime]
    attempt: Mapped[int]
    tried: Mapped[list[JsonObject]]
    next_attempt_at: Mapped[datetime | None]
    give_up_at: Mapped[datetime | None]
    delivered_at: Mapped[datetime | None]
    settled_at: Mapped[datetime | None]
    lease_token: Mapped[str | None] = mapped_column(String(32))
    lease_expires_at: Mapped[datetime | None]


def new_endpoint_id() -> str:
    """A name for a new endpoint, later than every one this process gave before."""
    return ENDPOINT_PREFIX + uuid7().hex


def new_delivery_id() -> str:
    """A name for a new delivery, later than every one this process gave before."""
    return DELIVERY_PREFIX + uuid7().hex
