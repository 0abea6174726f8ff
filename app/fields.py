"""Types of fields that are written in their own way: a moment, and which works are candidates."""

import re
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from app.numbers import as_whole

RFC_3339 = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]+)?(?:[Zz]|[+-][0-9]{2}:[0-9]{2})?"
)


def _candidates(value: Any) -> Any:
    """`auto`, `all` or a positive number; a number is kept as its decimal text."""
    value = as_whole(value)
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if value in ("auto", "all"):
        return value
    if isinstance(value, str) and re.fullmatch(r"[1-9][0-9]{0,8}", value):
        return value
    raise ValueError("has to be a number of works from 1 up, or all, or auto.")


def _written_out(value: Any) -> Any:
    """Refuse what isn't a date with a time: a number, above all, which would count as seconds since 1970."""
    if isinstance(value, datetime) or (isinstance(value, str) and RFC_3339.fullmatch(value)):
        return value
    raise ValueError("has to be a moment of RFC 3339, such as 2026-01-31T12:00:00Z.")


def _in_utc(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise ValueError("needs a time zone, such as 2026-01-31T12:00:00Z.")
    try:
        return moment.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("is beyond the years that can be told.") from error


Moment = Annotated[datetime, BeforeValidator(_written_out), AfterValidator(_in_utc)]
Candidates = Annotated[
    str,
    BeforeValidator(_candidates),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": "^(auto|all|[1-9][0-9]{0,8})$"},
                {"type": "integer", "minimum": 1, "maximum": 999_999_999},
            ]
        }
    ),
]


def _number(value: Any) -> Any:
    """Refuse true and false, which Python takes for 1 and 0. A form's text is taken, as is a number."""
    if isinstance(value, bool):
        raise ValueError("has to be a number.")
    return value


Number = Annotated[int, BeforeValidator(_number)]
# Bounds stand inside, or the description doesn't have them where a field may be null.
TopK = Annotated[int, Field(ge=1), BeforeValidator(_number)]
Seed = Annotated[int, Field(ge=0, lt=2**63), BeforeValidator(_number)]
