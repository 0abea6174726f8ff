"""What a condition comes to, and the comparisons it hangs on: three values, by Kleene's logic."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from app.moderation import words
from app.moderation.fields import Field
from app.moderation.policy import Test

Truth = bool | None

# Works and creators that one reason names; a rule may be met by a thousand.
NAMED = 10
COMPARED = 20


@dataclass(frozen=True)
class Compared:
    """One comparison that was made: `value` is None where the answer has none. `text` says it in words."""

    field: str
    value: Any
    asked: dict[str, Any]
    text: str


class Seen(NamedTuple):
    """One comparison before it is put into words, which only those of the reasons are.

    `place` stands before the field's name, `name` before the words; `missing` says why there is no value.
    """

    field: Field
    test: Test
    value: Any
    missing: str
    place: str = ""
    name: str = ""

    def told(self) -> Compared:
        """The comparison in words."""
        asked = self.test.given()
        text = words.compared(self.field.about, self.field, self.value, asked, self.missing)
        name = f"{self.name}, " if self.name else ""
        return Compared(f"{self.place}{self.field.name}", self.value, asked, f"{name}{text}")


@dataclass(frozen=True)
class Cause:
    """What a condition comes to, the comparisons it hangs on, and the works and creators that they are about."""

    holds: Truth
    compared: tuple[Seen, ...] = ()
    works: tuple[str, ...] = ()
    creators: tuple[str, ...] = ()


def both(causes: Iterable[Cause]) -> Cause:
    """All of them: false if one is, else unknown if one is, else true."""
    found = list(causes)
    holds: Truth = True
    if any(cause.holds is False for cause in found):
        holds = False
    elif any(cause.holds is None for cause in found):
        holds = None
    return gathered(holds, [cause for cause in found if cause.holds is holds])


def either(causes: Iterable[Cause]) -> Cause:
    """One of them: true if one is, else unknown if one is, else false."""
    found = list(causes)
    holds: Truth = False
    if any(cause.holds for cause in found):
        holds = True
    elif any(cause.holds is None for cause in found):
        holds = None
    return gathered(holds, [cause for cause in found if cause.holds is holds])


def gathered(holds: Truth, causes: list[Cause]) -> Cause:
    def some(groups: Iterable[tuple[str, ...]], most: int) -> tuple[str, ...]:
        # Everything is looked at; what is told of it is bounded.
        return tuple(dict.fromkeys(one for group in groups for one in group))[:most]

    works = some((cause.works for cause in causes), NAMED)
    creators = some((cause.creators for cause in causes), NAMED)
    # Whether a comparison may be told is judged by the works and creators that are kept, so it is about no others.
    compared = [
        one
        for cause in causes
        if {*cause.works} <= {*works} and {*cause.creators} <= {*creators}
        for one in cause.compared
    ]
    return Cause(holds, tuple(compared[:COMPARED]), works, creators)
