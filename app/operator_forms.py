"""The operator's forms: what their fields mean as a request of the API, and where on the page each is.

Lengths of time and days are written as people do, so what is wrong with one is said in the same unit.
"""

from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError
from starlette.requests import Request

from app.key_schemas import LONGEST_S, SHORTEST_RESULTS_S, KeyRequest, RotationRequest
from app.lengths import length_of
from app.opt_out_schemas import Application, Done
from app.problems import Problem, invalid
from app.schemas import Printable
from app.uploads import parse_as
from jobs.audit import AuditFilters
from jobs.credentials import Kind, Scope
from jobs.keys import LONGEST

Filters = TypeVar("Filters", bound=BaseModel)

# The fields of the requests with the ids of those of the forms, in the page's order.
KEY_FIELDS = {
    "name": "name",
    "scopes": "scopes",
    "indexes": "indexes",
    "rights_holders": "rights_holders",
    "expires_in": "expires",
    "daily_quota": "quota",
    "daily_works": "works",
    "keep_uploads": "keep_uploads",
    "keep_results": "keep_results",
}
ROTATION_FIELDS = {"overlap": "overlap"}
DECISION_FIELDS = {"left_out_at": "left_out", "removed_at": "removed", "reason": "reason"}
# Filters, which are sent in the address.
AUDIT_FIELDS = {name: name for name in ("actor", "action", "object", "since", "until")}
KEYS_FIELDS = {"named": "named", "state": "state"}
# A link is handed to a person: it ends by itself unless somebody says for how long.
LINK_DAYS = "7"


def _seconds(least: int) -> Callable[[Any], Any]:
    """Reads a length of time, at least so many seconds; a number alone counts days."""

    def read(given: Any) -> Any:
        if not isinstance(given, str):
            return given
        length = length_of(f"{given}d" if given.isascii() and given.isdigit() else given)
        if length is None and given.strip("0"):
            raise PydanticCustomError("length", "isn't a length of time: write it as 90d, 12h, 30m or 45s.")
        seconds = 0 if length is None else int(length.total_seconds())
        if seconds > LONGEST_S:
            raise PydanticCustomError("length_most", "is {days} days at most.", {"days": LONGEST.days})
        if seconds < least:
            raise PydanticCustomError("length_least", "is {seconds} s at least.", {"seconds": least})
        return seconds

    return read


def _day(given: Any) -> Any:
    """Reads a day, as browsers send it, as its begin."""
    try:
        day = date.fromisoformat(given)
    except ValueError as error:
        raise PydanticCustomError("day", "isn't a day: write it as 2026-03-01.") from error
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def _day_or_none(given: Any) -> Any:
    return None if given == "" else _day(given)


Day = Annotated[Done, BeforeValidator(_day)]


def absent(given: Any) -> Any:
    """None for what stands in a field that was left empty: a form sends those too."""
    return None if given == "" else given


Name = Annotated[Annotated[Printable, Field(max_length=80)] | None, BeforeValidator(absent)]
Action = Annotated[Annotated[Printable, Field(max_length=40)] | None, BeforeValidator(absent)]
ObjectId = Annotated[Annotated[Printable, Field(max_length=200)] | None, BeforeValidator(absent)]


class AuditDays(BaseModel):
    """Which entries of the audit log are shown; `until` is the last day."""

    model_config = ConfigDict(extra="forbid")

    actor: Name = None
    action: Action = None
    object: ObjectId = None
    since: Annotated[datetime | None, BeforeValidator(_day_or_none)] = None
    until: Annotated[datetime | None, BeforeValidator(_day_or_none)] = None
    cursor: Annotated[str | None, Field(max_length=200)] = None

    @property
    def filters(self) -> AuditFilters:
        """As the log takes them."""
        end = (
            None
            if self.until is None
            else self.until.replace(hour=23, minute=59, second=59, microsecond=999_999)
        )
        return AuditFilters(
            actor=self.actor, action=self.action, object=self.object, after=self.since, before=end
        )


class KeysQuery(BaseModel):
    """Which keys are shown."""

    model_config = ConfigDict(extra="forbid")

    named: Annotated[Printable, Field(max_length=200)] = ""
    state: Literal["", "active", "expired", "revoked"] = ""
    cursor: Annotated[str | None, Field(max_length=64)] = None


class KeyForm(KeyRequest):
    """A key as the form asks for it."""

    expires_in: Annotated[int | None, BeforeValidator(_seconds(1))] = None
    keep_uploads: Annotated[int | None, BeforeValidator(_seconds(0))] = None
    keep_results: Annotated[int | None, BeforeValidator(_seconds(SHORTEST_RESULTS_S))] = None


class RotationForm(RotationRequest):
    """A replacement as the form asks for it."""

    overlap: Annotated[int, BeforeValidator(_seconds(0))]


class DoneForm(BaseModel):
    """What was done about an opt-out, as the form says it."""

    left_out_at: Day | None = None
    removed_at: Day | None = None


def key_of(given: dict[str, str]) -> tuple[KeyRequest, Kind]:
    """The key or link that the form asks for; raises `Problem` with what is wrong with each field."""
    kind = Kind.LINK if given.get("kind") == Kind.LINK else Kind.KEY
    # Who asks on the page reads the answer there.
    chosen = [scope for scope in Scope if given.get(f"scope_{scope}")]
    scopes = [scope for scope in Scope if scope in chosen or (kind is Kind.LINK and scope == Scope.READ)]
    lengths = {
        "expires_in": _text(given, "expires") or (LINK_DAYS if kind is Kind.LINK else ""),
        "keep_uploads": _text(given, "keep_uploads"),
        "keep_results": _text(given, "keep_results"),
    }
    asked: dict[str, Any] = {
        "name": _text(given, "name"),
        "scopes": scopes,
        "indexes": _lines(given, "indexes") or None,
        "rights_holders": _lines(given, "rights_holders"),
        "daily_quota": _whole(_text(given, "quota")),
        "daily_works": _whole(_text(given, "works")),
        **{name: text for name, text in lengths.items() if text},
    }
    return parse_as(KeyForm, asked), kind


def filters_of(
    model: type[Filters], request: Request
) -> tuple[Filters | None, dict[str, str], Problem | None]:
    """The filters in a request's address, what was given, and what is wrong with that: the first or the last."""
    given = dict(request.query_params)
    try:
        return parse_as(model, given), given, None
    except Problem as problem:
        return None, given, problem


def overlap_of(given: dict[str, str], usual: int) -> int:
    """For how many seconds a replaced key still works: `usual` days where nothing is said; raises `Problem`."""
    return parse_as(RotationForm, {"overlap": _text(given, "overlap") or str(usual)}).overlap


def done_of(given: dict[str, str]) -> Application:
    """What was done about an opt-out, and when; raises `Problem`."""
    days = {f"{name}_at": _text(given, name) for name in ("left_out", "removed") if _text(given, name)}
    if not days:
        raise invalid("left_out_at", "give the day of one of the two.", "mistake.no_day")
    done = parse_as(DoneForm, days)
    return Application(left_out_at=done.left_out_at, removed_at=done.removed_at)


def _text(given: dict[str, str], field: str) -> str:
    return given.get(field, "").strip()


def _lines(given: dict[str, str], field: str) -> list[str]:
    return [line.strip() for line in given.get(field, "").splitlines() if line.strip()]


def _whole(text: str) -> int | str | None:
    """The number in a field; None for nothing, and the text itself where it is no number of any use."""
    if not text:
        return None
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 12 else text
