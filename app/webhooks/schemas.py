"""What the API takes and gives about webhooks."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

from app.addresses import MAX_URL_LENGTH
from app.numbers import WHOLE
from app.schemas import Printable
from jobs.webhooks.endpoints import LONGEST_OVERLAP, OVERLAP, IssuedSecret
from jobs.webhooks.models import MAX_DESCRIPTION, WebhookDelivery, WebhookEndpoint, WebhookEvent

LONGEST_OVERLAP_S = int(LONGEST_OVERLAP.total_seconds())
OVERLAP_S = int(OVERLAP.total_seconds())
EXAMPLE_ID = "whe_0193a6c1f3d07e528f1e5b1b2f0c9d11"
EXAMPLE_DELIVERY = "msg_0193a6c1f3d07e528f1e5b1b2f0c9d12"
EXAMPLE_JOB = "att_0193a6c1f3d07e528f1e5b1b2f0c9d10"
ENDPOINT: JsonDict = {
    "id": EXAMPLE_ID,
    "url": "https://pipeline.example.org/hooks/das",
    "description": "the publishing queue",
    "events": ["decision.made"],
    "enabled": False,
    "created_at": "2026-01-31T12:00:00Z",
    "failing_since": "2026-02-03T12:00:00Z",
    "disabled_at": "2026-02-06T12:00:00Z",
    "disabled_because": "It has taken no delivery for 3 days. The receiver answered 503.",
    "previous_secret_until": "2026-02-01T12:00:00Z",
    "links": {
        "self": f"/v1/webhook-endpoints/{EXAMPLE_ID}",
        "deliveries": f"/v1/webhook-endpoints/{EXAMPLE_ID}/deliveries",
    },
}
DELIVERY: JsonDict = {
    "id": EXAMPLE_DELIVERY,
    "type": "attribution.succeeded",
    "state": "pending",
    "created_at": "2026-01-31T12:00:00Z",
    "delivered_at": "2026-01-31T12:00:00Z",
    "next_attempt_at": "2026-01-31T13:00:00Z",
    "attempts": [
        {
            "at": "2026-01-31T12:00:00Z",
            "seconds": 0.12,
            "status_code": 503,
            "error": "The receiver answered 503.",
            "response": "down for maintenance",
        }
    ],
    "body": f'{{"type":"attribution.succeeded","timestamp":"2026-01-31T12:00:00Z","data":{{"id":"{EXAMPLE_JOB}",'
    f'"state":"succeeded","links":{{"self":"/v1/attributions/{EXAMPLE_JOB}"}}}}}}',
    "links": {"endpoint": f"/v1/webhook-endpoints/{EXAMPLE_ID}"},
}


def _each_once(events: list[WebhookEvent]) -> list[WebhookEvent]:
    if len(set(events)) < len(events):
        raise ValueError("names an event more than once.")
    return events


Events = Annotated[
    list[WebhookEvent],
    AfterValidator(_each_once),
    Field(min_length=1, max_length=len(WebhookEvent), json_schema_extra={"uniqueItems": True}),
]
Description = Annotated[Printable, Field(max_length=MAX_DESCRIPTION)]


class EndpointRequest(BaseModel):
    """An endpoint that shall be made."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"url": ENDPOINT["url"], "events": ["decision.made"]}]},
    )

    url: str = Field(
        min_length=1,
        max_length=MAX_URL_LENGTH,
        description="Where events are sent: https, port 443, a host of the public internet, unless the operator"
        " allows others.",
    )
    events: Events | None = Field(
        default=None, description="What it hears of; null: everything, also what later versions tell."
    )
    description: Description | None = Field(default=None, description="What it is for; shown in lists.")


class EndpointChange(BaseModel):
    """What shall be different about an endpoint; what is left out stays."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"enabled": True}]})

    enabled: Annotated[bool, Field(strict=True)] | None = Field(
        default=None, description="Enabling it takes it for well again, and what waited is delivered."
    )
    events: Events | None = Field(default=None, description="What it hears of from now on; null: everything.")
    description: Description | None = Field(default=None)


class SecretRotation(BaseModel):
    """How an endpoint's secret shall be replaced."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"overlap": 86400}]})

    overlap: Annotated[int, Field(ge=0, le=LONGEST_OVERLAP_S, strict=True), WHOLE] = Field(
        default=OVERLAP_S,
        description="Seconds for which deliveries are signed with the old secret as well.",
    )


class EndpointLinks(BaseModel):
    self: str
    deliveries: str


class Endpoint(BaseModel):
    """An address that hears of events, without its secret."""

    model_config = ConfigDict(json_schema_extra={"examples": [ENDPOINT]})

    id: str
    url: str
    description: str | None
    events: list[WebhookEvent] | None = Field(description="null: everything.")
    enabled: bool = Field(description="false: it hears of nothing until it is enabled again.")
    created_at: datetime
    failing_since: datetime | None = Field(
        description="Since when nothing was taken, with no pause of a day between attempts; null: the last attempt"
        " was. After three days it is disabled."
    )
    disabled_at: datetime | None
    disabled_because: str | None = Field(description="Why it isn't enabled, in words.")
    previous_secret_until: datetime | None = Field(
        description="Until when deliveries are signed with the secret before this one as well."
    )
    links: EndpointLinks

    @classmethod
    def of(cls, endpoint: WebhookEndpoint) -> "Endpoint":
        """What is told of an endpoint."""
        told = {
            name: getattr(endpoint, name)
            for name in cls.model_fields
            if name not in ("links", "previous_secret_until")
        }
        address = f"/v1/webhook-endpoints/{endpoint.id}"
        links = EndpointLinks(self=address, deliveries=f"{address}/deliveries")
        return cls.model_validate({**told, "previous_secret_until": endpoint.previous_until, "links": links})


class EndpointWithSecret(Endpoint):
    """An endpoint with its secret, which can't be read again."""

    model_config = ConfigDict(json_schema_extra={"examples": [{**ENDPOINT, "secret": f"whsec_{43 * 'x'}="}]})

    secret: str = Field(description="What deliveries are signed with. It is shown here only.")

    @classmethod
    def issued(cls, issued: IssuedSecret) -> "EndpointWithSecret":
        """What is told of an endpoint once."""
        return cls(**Endpoint.of(issued.endpoint).model_dump(), secret=issued.secret)


class EndpointList(BaseModel):
    """Your endpoints, the oldest first."""

    items: list[Endpoint]


class DeliveryAttempt(BaseModel):
    """One attempt."""

    at: datetime
    seconds: float
    status_code: int | None = Field(description="What the receiver answered; null: nothing.")
    error: str | None = Field(description="Why it wasn't taken, in words; null: it was.")
    response: str | None = Field(description="The first 1,000 characters of what the receiver answered.")


class DeliveryLinks(BaseModel):
    endpoint: str


class Delivery(BaseModel):
    """An event for an endpoint. Its id is the `webhook-id` of every attempt."""

    model_config = ConfigDict(json_schema_extra={"examples": [DELIVERY]})

    id: str
    type: WebhookEvent
    state: Literal["pending", "delivered", "failed"]
    created_at: datetime
    delivered_at: datetime | None
    next_attempt_at: datetime | None = Field(
        description="null: none will be made. While its endpoint is disabled it waits beyond this."
    )
    attempts: list[DeliveryAttempt] = Field(description="The last twenty.")
    body: str = Field(description="What is sent, to the byte.")
    links: DeliveryLinks

    @classmethod
    def of(cls, delivery: WebhookDelivery) -> "Delivery":
        """What is told of a delivery."""
        told = {
            name: getattr(delivery, name) for name in cls.model_fields if name not in ("links", "attempts")
        }
        links = DeliveryLinks(endpoint=f"/v1/webhook-endpoints/{delivery.endpoint_id}")
        return cls.model_validate({**told, "attempts": delivery.tried, "links": links})


class DeliveryList(BaseModel):
    """A page of an endpoint's deliveries, newest first."""

    items: list[Delivery]
    next_cursor: str | None = Field(description="Give it as `cursor` for the next page; null at the end.")


class DeliveryQuery(BaseModel):
    """Filters and paging of the list of deliveries."""

    model_config = ConfigDict(extra="forbid")

    state: Literal["pending", "delivered", "failed"] | None = None
    cursor: str | None = Field(default=None, max_length=200, description="`next_cursor` of the page before.")
    limit: int = Field(default=20, ge=1, le=100)
