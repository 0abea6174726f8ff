"""What the API gives of the audit log."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from app.schemas import Moment, Printable

COLUMNS = ("id", "at", "actor", "action", "object", "outcome", "request_id", "details")


class AuditFilter(BaseModel):
    """Which entries are meant. A misspelt filter would silently show everything, so it is an error."""

    model_config = ConfigDict(extra="forbid")

    actor: Printable | None = Field(default=None, max_length=80, description="Such as das_k7f3m2q9xwbt.")
    action: Printable | None = Field(
        default=None, max_length=40, description="Such as `key.revoked`, or `key` for all that begin so."
    )
    object: Printable | None = Field(
        default=None, max_length=200, description="The id of what it was done to."
    )
    after: Moment | None = Field(default=None, description="RFC 3339, with a time zone.")
    before: Moment | None = Field(default=None, description="RFC 3339, with a time zone.")


class AuditQuery(AuditFilter):
    """The same with paging."""

    cursor: str | None = Field(default=None, max_length=200, description="`next_cursor` of the page before.")
    limit: int = Field(default=20, ge=1, le=100)


class AuditEntry(BaseModel):
    """Who did what to which object."""

    id: str
    at: datetime
    actor: str = Field(
        description="The public part of a key or link, `local` or `without-key` for who came without one, `operator's"
        " shell`, or `service`."
    )
    action: str
    object: str | None
    outcome: str
    request_id: str | None
    details: dict[str, Any]


class AuditList(BaseModel):
    items: list[AuditEntry]
    next_cursor: str | None = Field(description="Give it as `cursor` for the next page; null at the end.")
