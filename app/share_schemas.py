"""What the API takes and gives about shares."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

from app.fields import Moment
from app.left_out import Part
from app.numbers import WHOLE
from app.schemas import Printable
from jobs.models import utc_now
from jobs.shares import LONGEST, MAX_LABEL, Issued, Share

LONGEST_S = int(LONGEST.total_seconds())
MOST_WORKS = 1000
EXAMPLE_ID = "shr_0193a6c1f3d07e52b3a1c5d4e6f70819"
EXAMPLE: JsonDict = {
    "id": EXAMPLE_ID,
    "state": "revoked",
    "label": "for my lawyer",
    "leave_out": ["picture", "settings"],
    "works": 5,
    "created_at": "2026-01-31T12:00:00Z",
    "expires_at": "2026-03-02T12:00:00Z",
    "revoked_at": "2026-02-02T09:00:00Z",
    "views": 2,
    "last_viewed_at": "2026-02-01T09:00:00Z",
}


class ShareRequest(BaseModel):
    """A link that shall be made."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"leave_out": ["picture"], "works": 5, "expires_in": 604800}]},
    )

    leave_out: list[Part] = Field(
        default=[],
        max_length=20,
        description="What isn't told to who opens it. `picture`: the picture, its digests, size and metadata,"
        " look-alikes, whether it is a copy of a work, and `settings`. `settings`: prompt, seed, and what the picture"
        " says of itself. `creators`: names, titles, ids and sources of works, and `thumbnails`. `thumbnails`: the"
        " works' pictures. Your tag and the question's id are never told.",
    )
    works: Annotated[int, Field(ge=1, le=MOST_WORKS, strict=True), WHOLE] | None = Field(
        default=None,
        description="How many of the first works are told, and no other work's name anywhere; null: all.",
    )
    expires_in: Annotated[int, Field(ge=1, le=LONGEST_S, strict=True), WHOLE] | None = Field(
        default=None,
        description="Seconds for which it is open; null: 30 days, or until `expires_at`. It is never open beyond the"
        " answer's own end.",
    )
    expires_at: Moment | None = Field(
        default=None, description="The same as a moment (RFC 3339, with a time zone); one of the two."
    )
    label: Printable | None = Field(
        default=None,
        min_length=1,
        max_length=MAX_LABEL,
        description="Your own word for it; nobody else is told.",
    )


class ShareLink(BaseModel):
    """A link, without its token."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE]})

    id: str
    state: Literal["open", "expired", "revoked"]
    label: str | None
    leave_out: list[str] = Field(description="All that is left out, with what would give it away.")
    works: int | None
    created_at: datetime
    expires_at: datetime
    revoked_at: datetime | None
    views: int = Field(description="How often its page was opened or a report taken from it.")
    last_viewed_at: datetime | None

    @classmethod
    def of(cls, row: Share) -> "ShareLink":
        """What is told of a share."""
        return cls(
            id=row.id,
            state=row.state(utc_now()),  # type: ignore[arg-type]
            label=row.label,
            leave_out=row.left_out,
            works=row.works,
            created_at=row.created_at,
            expires_at=row.expires_at,
            revoked_at=row.revoked_at,
            views=row.views,
            last_viewed_at=row.viewed_at,
        )


class NewlyMadeShareLink(ShareLink):
    """A link with its token, which can't be read again."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{**EXAMPLE, "views": 0, "url": f"http://127.0.0.1:8000/s/dass_{43 * 'x'}"}]
        }
    )

    url: str = Field(description="The link. Whoever has it sees the answer; it is shown here only.")

    @classmethod
    def issued(cls, issued: Issued, base: str) -> "NewlyMadeShareLink":
        """What is told of a share once; `base` is the service's address."""
        return cls(**ShareLink.of(issued.share).model_dump(), url=f"{base}/s/{issued.token}")


class ShareLinkList(BaseModel):
    """Every share of a question, the newest first."""

    items: list[ShareLink]
