"""What the API takes and gives about keys and quotas."""

from datetime import datetime, timedelta
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

from app.described import Described
from app.numbers import WHOLE
from app.schemas import Printable
from jobs.credentials import Scope
from jobs.keys import (
    LONGEST,
    MAX_INDEX_NAME,
    MAX_INDEXES,
    MAX_NAME,
    MAX_QUOTA,
    MAX_RIGHTS_HOLDERS,
    SHORTEST_RESULTS,
    ApiKey,
    IssuedKey,
)
from jobs.models import utc_now

LONGEST_S = int(LONGEST.total_seconds())
SHORTEST_RESULTS_S = int(SHORTEST_RESULTS.total_seconds())
EXAMPLE_ID = "k7f3m2q9xwbt"
EXAMPLE: JsonDict = {
    "id": EXAMPLE_ID,
    "prefix": f"das_{EXAMPLE_ID}",
    "kind": "key",
    "name": "render farm",
    "state": "revoked",
    "scopes": ["ask", "read"],
    "indexes": ["photographs"],
    "daily_quota": 1000,
    "daily_works": 500,
    "rights_holders": ["Ada Example"],
    "keep_uploads": 3600,
    "keep_results": 2592000,
    "replaces": "h4t8n2c6vdrz",
    "created_at": "2026-01-31T12:00:00Z",
    "expires_at": "2026-05-01T12:00:00Z",
    "revoked_at": "2026-03-01T12:00:00Z",
    "last_used_at": "2026-03-01T11:00:00Z",
}

# For the description: `NewKey` refuses what doesn't fit, with a sentence.
_ON_ONE_LINE = r"[^\x00-\x1f\x7f]"
_Line = Annotated[Printable, Described(pattern=rf"^{_ON_ONE_LINE}*[^\s\x00-\x1f\x7f]{_ON_ONE_LINE}*$")]
IndexName = Annotated[_Line, Field(min_length=1, max_length=MAX_INDEX_NAME)]
RightsHolder = Annotated[_Line, Field(min_length=1, max_length=MAX_NAME)]
State = Literal["active", "expired", "revoked"]


class KeyQuery(BaseModel):
    """Filters and paging of the list. A misspelt filter would silently show everything, so it is an error."""

    model_config = ConfigDict(extra="forbid")

    state: State | None = Field(default=None, description="Only those in this state; default: all.")
    cursor: str | None = Field(default=None, max_length=200, description="`next_cursor` of the page before.")
    limit: int = Field(default=20, ge=1, le=100)


class KeyRequest(BaseModel):
    """A key that shall be made."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"name": "render farm", "scopes": ["ask", "read"], "expires_in": 7776000}]
        },
    )

    name: _Line = Field(
        min_length=1, max_length=MAX_NAME, description="Whose it is or what it is for; shown in lists."
    )
    scopes: list[Scope] = Field(min_length=1, max_length=len(Scope), description="What it may do.")
    indexes: list[IndexName] | None = Field(
        default=None,
        min_length=1,
        max_length=MAX_INDEXES,
        description="Ids or names of the indexes that it may see and ask; null: all. Not together with `admin`.",
    )
    daily_quota: Annotated[int, Field(ge=1, le=MAX_QUOTA, strict=True), WHOLE] | None = Field(
        default=None,
        description="Questions a day; null: the service's own limit.",
    )
    daily_works: Annotated[int, Field(ge=1, le=MAX_QUOTA, strict=True), WHOLE] | None = Field(
        default=None,
        description="Different works that it may be shown in a day; null: the service's own limit. Not together with"
        " `admin`.",
    )
    expires_in: Annotated[int, Field(ge=1, le=LONGEST_S, strict=True), WHOLE] | None = Field(
        default=None,
        description="Seconds for which it works; null: until it is revoked.",
    )
    rights_holders: list[RightsHolder] = Field(
        default=[],
        max_length=MAX_RIGHTS_HOLDERS,
        description="Whom it speaks for: it sees works whose visibility is `rights-holder` if they are theirs.",
    )
    keep_uploads: Annotated[int, Field(ge=0, le=LONGEST_S, strict=True), WHOLE] | None = Field(
        default=None,
        description="Seconds for which a picture is kept after its question has ended; null: as the service does.",
    )
    keep_results: Annotated[int, Field(ge=SHORTEST_RESULTS_S, le=LONGEST_S, strict=True), WHOLE] | None = (
        Field(
            default=None,
            description="Seconds after its end at which a question is erased; null: as the service does.",
        )
    )

    @property
    def lifetime(self) -> timedelta | None:
        """`expires_in` as a length of time."""
        return as_span(self.expires_in)


def as_span(seconds: int | None) -> timedelta | None:
    """Seconds as a length of time."""
    return None if seconds is None else timedelta(seconds=seconds)


class RotationRequest(BaseModel):
    """How a key shall be replaced."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"overlap": 604800}]})

    overlap: Annotated[int, Field(ge=0, le=LONGEST_S, strict=True), WHOLE] = Field(
        default=7 * 86400,
        description="Seconds for which the old key still works.",
    )


class Key(BaseModel):
    """A key or link, without its secret."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE]})

    id: str
    prefix: str = Field(description="How it begins; the log names it so.")
    kind: Literal["key", "link"] = Field(description="A link opens the page alone.")
    name: str
    state: State
    scopes: list[Scope]
    indexes: list[str] | None
    daily_quota: int | None
    daily_works: int | None
    rights_holders: list[str]
    keep_uploads: int | None = Field(description="Seconds; null: as the service does.")
    keep_results: int | None = Field(description="Seconds; null: as the service does.")
    replaces: str | None = Field(description="Id of the key whose questions it took over.")
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None = Field(description="To the hour.")

    @classmethod
    def of(cls, key: ApiKey) -> "Key":
        """What is told of a key."""
        elsewhere = {
            "state": key.state(utc_now()),
            "rights_holders": key.rights_holders or [],
        }
        told = {name: getattr(key, name) for name in cls.model_fields.keys() - elsewhere.keys()}
        return cls.model_validate({**told, **elsewhere})


class NewlyMadeKey(Key):
    """A key with its secret, which can't be read again."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{**EXAMPLE, "secret": f"das_{EXAMPLE_ID}_{43 * 'x'}"}]}
    )

    secret: str = Field(description="Send it as `Authorization: Bearer`. It is shown here only.")

    @classmethod
    def issued(cls, issued: IssuedKey) -> "NewlyMadeKey":
        """What is told of a key once."""
        return cls(**Key.of(issued.key).model_dump(), secret=issued.secret)


class KeyList(BaseModel):
    items: list[Key]
    next_cursor: str | None = Field(description="Give it as `cursor` for the next page; null at the end.")


class Allowance(BaseModel):
    """How much of one limit is used up."""

    limit: int | None = Field(description="null: there is none.")
    used: int
    remaining: int | None
    renewed_at: datetime = Field(description="When it is whole again.")


class Quota(BaseModel):
    """What a caller may still do."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "requests": {
                        "limit": 3000, "used": 12, "remaining": 2988, "renewed_at": "2026-01-31T12:01:00Z",
                    },
                    "questions": {
                        "limit": 1000, "used": 40, "remaining": 960, "renewed_at": "2026-02-01T00:00:00Z",
                    },
                    "works": {
                        "limit": 500, "used": 320, "remaining": 180, "renewed_at": "2026-02-01T11:58:00Z",
                    },
                    "counting": True,
                }
            ]
        }
    )  # fmt: skip

    requests: Allowance = Field(description="Requests of any kind, in a minute or what DAS_RATE_LIMIT says.")
    questions: Allowance = Field(description="Pictures asked about in a day (UTC).")
    works: Allowance = Field(
        description="Different works that were shown to you in the last 24 hours; each is free again after those."
    )
    counting: bool = Field(
        description="Whether requests are counted now; while that isn't possible they are let through."
    )
