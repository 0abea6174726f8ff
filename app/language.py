"""The languages of the page, and which one a request is answered in.

Each language is a file of words in app/languages; English is the first, and what is said where no other is asked for.
"""

import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from starlette.requests import Request

CATALOGUES = Path(__file__).parent / "languages"
COOKIE = "das_language"
# Nobody speaks more; a header is read no further.
MOST_RANGES = 50
# One element of Accept-Language (RFC 9110, 12.5.4): a language range, and perhaps its weight.
RANGE = re.compile(
    r"\s*(\*|[A-Za-z]{1,8}(?:-[A-Za-z0-9]{1,8})*)\s*(?:;\s*[qQ]\s*=\s*(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?))?\s*"
)
# In French one speaks of none and of one in the singular.
SINGULAR_BELOW = {"fr": 2}

Words = Mapping[str, str | Mapping[str, str]]


@dataclass(frozen=True)
class Language:
    """One language: its words by key (`section.key`), and how it writes numbers and dates.

    Called with a key and values for its placeholders it gives the sentence; `n` chooses between one and many.
    """

    code: str
    words: Words

    @classmethod
    def read(cls, path: Path) -> "Language":
        """The language of a catalogue, which is named after it."""
        sections = tomllib.loads(path.read_text("utf-8"))
        words = {f"{name}.{key}": word for name, section in sections.items() for key, word in section.items()}
        return cls(path.stem, words)

    def __contains__(self, key: str) -> bool:
        return key in self.words

    def __call__(self, key: str, **values: Any) -> str:
        return self.template(key, values.get("n")).format(**self.written(values))

    def template(self, key: str, n: int | None = None) -> str:
        """The words of a key with its placeholders; where they differ by number, those for `n`."""
        word = self.words[key]
        return word if isinstance(word, str) else word[self.number_form(0 if n is None else n)]

    def written(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Values for placeholders, with `n` as this language writes it."""
        return {name: self.whole(value) if name == "n" else value for name, value in values.items()}

    def number_form(self, n: int) -> str:
        """Which words go with a number: `one` or `other`."""
        singular = n < SINGULAR_BELOW[self.code] if self.code in SINGULAR_BELOW else n == 1
        return "one" if singular else "other"

    @property
    def name(self) -> str:
        """What it calls itself."""
        return self("language.name")

    @cached_property
    def _months(self) -> list[str]:
        return self("format.months").split()

    @cached_property
    def _numbers(self) -> list[str]:
        return self("format.numbers").split()

    def number(self, value: float, digits: int = 0) -> str:
        """A number with so many decimals."""
        marks: dict[str, str | int | None] = {",": self("format.group"), ".": self("format.decimal")}
        return f"{value:,.{digits}f}".translate(str.maketrans(marks))

    def whole(self, value: int) -> str:
        """A whole number, its thousands apart."""
        return self.number(value)

    def counted(self, number: int) -> str:
        """Numbers up to ten in words."""
        return self._numbers[number] if number < len(self._numbers) else self.whole(number)

    def percent(self, share: float) -> str:
        """A share with two significant digits at most; in English the same as `das.answer.percent`."""
        value = 100.0 if math.isclose(share, 1, rel_tol=1e-9) else 100 * share
        if 99.5 <= value < 100:
            return self("format.over", value=self.percents(99, 0))
        if value < 0.1:
            return self("format.under", value=self.percents(0.1, 1))
        return self.percents(value, 0 if value >= 9.95 else 1)

    def percents(self, value: float, digits: int) -> str:
        """So many percent."""
        return self("format.percent", value=self.number(value, digits))

    def between(self, low: str, high: str) -> str:
        """An interval of two percentages, such as `15 to 26 %`; just the one where both are written alike."""
        if low == high:
            return high
        return self("format.between", low=low.replace("\u00a0", " ").removesuffix(" %"), high=high)

    def size(self, count: float) -> str:
        """A number of bytes, in the unit that suits it."""
        unit, value = "kb", count / 1e3
        for larger in ("mb", "gb", "tb"):
            if value < 999.5:
                break
            unit, value = larger, value / 1e3
        return self(
            f"format.size_{unit}", value=self.number(value, 0 if value >= 9.95 or unit == "kb" else 1)
        )

    def span(self, seconds: float) -> str:
        """A length of time in the unit that suits it, to about one percent where that matters."""
        for unit, length, until in (("seconds", 1, 100), ("minutes", 60, 100), ("hours", 3600, 48)):
            if round(seconds / length) < until:
                return self(f"format.{unit}", n=round(seconds / length))
        return self("format.days", n=round(seconds / 86400))

    def date(self, at: datetime) -> str:
        """A day in UTC."""
        at = at.astimezone(UTC)
        return self("format.date", day=at.day, month=self._months[at.month - 1], year=at.year)

    def moment(self, at: datetime) -> str:
        """A moment to the second, in UTC."""
        return self("format.moment", date=self.date(at), time=at.astimezone(UTC).strftime("%H:%M:%S"))


ENGLISH = Language.read(CATALOGUES / "en.toml")
# In the order in which the page offers them.
LANGUAGES = {
    language.code: language
    for language in (ENGLISH, *(Language.read(CATALOGUES / f"{code}.toml") for code in ("de", "fr")))
}


def accepted(header: str) -> Language:
    """The language that an Accept-Language header prefers of those there are; English where it names none of them.

    What isn't formed as RFC 9110 says is passed over: a header that can't be read is as good as none.
    """
    weights: dict[str, float] = {}
    for element in header.split(",", MOST_RANGES)[:MOST_RANGES]:
        found = RANGE.fullmatch(element)
        if found is not None:
            # As with RFC 4647's lookup, de-AT is answered in German. What comes first in the header goes first.
            primary = found[1].lower().partition("-")[0]
            weight = 1.0 if found[2] is None else float(found[2])
            weights[primary] = max(weight, weights.get(primary, 0.0))
    others = weights.get("*", 0.0)
    first = {code: place for place, code in enumerate(weights)}
    best = max(
        LANGUAGES,
        key=lambda code: (weights.get(code, others), -first.get(code, first.get("*", 0))),
    )
    return LANGUAGES[best] if weights.get(best, others) > 0 else ENGLISH


def language_of(request: Request) -> Language:
    """The language to answer a request in: of the page the one that was chosen on it, else what is accepted."""
    kept: Language | None = getattr(request.state, "language", None)
    if kept is None:
        chosen = "" if request.url.path.startswith("/v1/") else request.cookies.get(COOKIE, "")
        kept = LANGUAGES.get(chosen) or accepted(",".join(request.headers.getlist("accept-language")))
        request.state.language = kept
    return kept
