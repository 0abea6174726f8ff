"""The outbox: what endpoints shall hear of is written in the transaction in which it happens.

So whatever is killed afterwards, it will be delivered; and what is undone is told to nobody. What is told is thin:
ids, a state and where to read the rest. Whoever receives it asks for that, with a key.
"""

import json
from collections.abc import Sequence
from typing import Any, cast

from sqlalchemy import Table, bindparam, delete, insert, select
from sqlalchemy.orm import Session

from jobs.batch_rows import Batch
from jobs.models import Job, utc_now
from jobs.webhooks.models import (
    DeliveryState,
    WebhookDelivery,
    WebhookEndpoint,
    WebhookEvent,
    new_delivery_id,
)

# The events of a job's history that end it.
ENDS = {
    "succeeded": WebhookEvent.SUCCEEDED,
    "failed": WebhookEvent.FAILED,
    "cancelled": WebhookEvent.CANCELLED,
}
ENDPOINTS = cast(Table, WebhookEndpoint.__table__).c
JOB = cast(Table, Job.__table__).c
BATCH = cast(Table, Batch.__table__).c

# Built once; it runs in every transaction that ends a job.
OF_JOB = select(ENDPOINTS.id, ENDPOINTS.events, JOB.webhook_endpoint).where(
    JOB.id == bindparam("job_id"), ENDPOINTS.owner == JOB.owner, ENDPOINTS.enabled
)
OF_BATCH = select(ENDPOINTS.id, ENDPOINTS.events, BATCH.webhook_endpoint).where(
    BATCH.id == bindparam("batch_id"), ENDPOINTS.owner == BATCH.owner, ENDPOINTS.enabled
)
ADD = insert(cast(Table, WebhookDelivery.__table__))


def announce_end(session: Session, job_id: str, kind: str) -> None:
    """Tell of a job that has ended in this transaction; `kind` is a key of `ENDS`."""
    hearing = _hearing(session, job_id, ENDS[kind])
    _deliver(session, hearing, ENDS[kind], job_id, job_id, kind, {"self": f"/v1/attributions/{job_id}"})


def announce_decision(session: Session, decision_id: str, job_id: str) -> None:
    """Tell of a decision that is made in this transaction."""
    links = {"self": f"/v1/decisions/{decision_id}", "attribution": f"/v1/attributions/{job_id}"}
    hearing = _hearing(session, job_id, WebhookEvent.DECIDED)
    _deliver(session, hearing, WebhookEvent.DECIDED, job_id, decision_id, "decided", links)


def announce_batch(session: Session, batch_id: str, state: str) -> None:
    """Tell of a batch whose last item has ended in this transaction; `state` is what the batch is called in."""
    hearing = _for(session.execute(OF_BATCH, {"batch_id": batch_id}).all(), WebhookEvent.BATCH_FINISHED)
    address = f"/v1/attribution-batches/{batch_id}"
    links = {"self": address, "results": f"{address}/results.jsonl"}
    _deliver(session, hearing, WebhookEvent.BATCH_FINISHED, batch_id, batch_id, state, links)


def announce_test(session: Session, endpoint_id: str) -> str:
    """Tell one endpoint that it is being tried; returns the delivery's id."""
    links = {"self": f"/v1/webhook-endpoints/{endpoint_id}"}
    (made,) = _deliver(session, [endpoint_id], WebhookEvent.TEST, None, endpoint_id, "enabled", links)
    return made


def erase_deliveries(session: Session, about: str) -> None:
    """Remove what tells of a job or batch that is being erased, whether it was delivered or not."""
    session.execute(delete(WebhookDelivery).where(WebhookDelivery.job_id == about))


def _hearing(session: Session, job_id: str, event: WebhookEvent) -> list[str]:
    """The endpoints that shall hear of something about a job: the one it was asked with, or all of its owner."""
    return _for(session.execute(OF_JOB, {"job_id": job_id}).all(), event)


def _for(rows: Sequence[Any], event: WebhookEvent) -> list[str]:
    return [
        row.id
        for row in rows
        if row.webhook_endpoint in (None, row.id) and (row.events is None or event in row.events)
    ]


def _deliver(
    session: Session,
    endpoints: Sequence[str],
    event: WebhookEvent,
    job_id: str | None,
    about: str,
    state: str,
    links: dict[str, str],
) -> list[str]:
    if not endpoints:
        return []
    now = utc_now()
    told = {
        "type": event,
        "timestamp": now.isoformat().replace("+00:00", "Z"),
        "data": {"id": about, "state": state, "links": links},
    }
    rows: list[dict[str, Any]] = [
        {
            "id": new_delivery_id(),
            "endpoint_id": endpoint_id,
            "job_id": job_id,
            "type": event,
            # As text, so that every attempt sends the same bytes.
            "body": json.dumps(told, separators=(",", ":")),
            "state": DeliveryState.PENDING,
            "created_at": now,
            "attempt": 0,
            "tried": [],
            "next_attempt_at": now,
        }
        for endpoint_id in endpoints
    ]
    session.execute(ADD, rows)
    return [row["id"] for row in rows]
