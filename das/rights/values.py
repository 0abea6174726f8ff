"""The values of a work's `tdm`, and how the vocabularies that people use are brought to them."""

import re
from collections.abc import Iterable
from typing import Literal, get_args

Tdm = Literal[
    "prohibited",
    "prohibited-except-search",
    "prohibited-ai",
    "prohibited-generative-ai",
    "constrained",
    "allowed",
    "unspecified",
]
VALUES: tuple[Tdm, ...] = get_args(Tdm)
"""From the strictest: where a work carries several signals, the first of these that one of them says is its `tdm`."""
CODES: tuple[Tdm | None, ...] = (None, *VALUES)
"""By these numbers the values are kept while an index is built; 0: the work carries no signal."""
RESERVED: frozenset[Tdm] = frozenset(VALUES[:5])
"""The values that reserve something."""

MEANINGS: dict[Tdm, str] = {
    "prohibited": "data mining is reserved altogether",
    "prohibited-except-search": "reserved, except for the index of a search engine",
    "prohibited-ai": "training of AI is reserved",
    "prohibited-generative-ai": "training of generative AI is reserved",
    "constrained": "allowed under conditions that stand elsewhere",
    "allowed": "allowed",
    "unspecified": "the file says that nothing is specified",
}

_PLUS = {
    "UNSPECIFIED": "unspecified",
    "ALLOWED": "allowed",
    "PROHIBITED": "prohibited",
    "PROHIBITED-AIMLTRAINING": "prohibited-ai",
    "PROHIBITED-GENAIMLTRAINING": "prohibited-generative-ai",
    "PROHIBITED-EXCEPTSEARCHENGINEINDEXING": "prohibited-except-search",
    "PROHIBITED-SEECONSTRAINT": "constrained",
}
_PLUS_VALUE = re.compile(r"(?:https?://ns\.useplus\.org/ldf/vocab/)?DMI-([A-Z-]{1,60})", re.IGNORECASE)
_RESERVATION = re.compile(r"(?:tdm-reservation\s*[:=]\s*)?([01])", re.IGNORECASE)
_ROBOTS = re.compile(r"(?:x-robots-tag\s*[:=]\s*)?((?:[a-z0-9_-]+\s*:\s*)?[a-z, -]+)", re.IGNORECASE)
_ROBOTS_WORD = re.compile(r"[a-z0-9_-]+")
_NO_AI = {"noai", "noimageai"}
_ROBOTS_WORDS = _NO_AI | {"noindex", "nofollow", "index", "follow", "all", "none", "noarchive", "nosnippet"}


def strictest(values: Iterable[Tdm | None]) -> Tdm | None:
    """The strictest of some values; None where none says anything."""
    said = {value for value in values if value is not None}
    return next((value for value in VALUES if value in said), None)


def from_plus(value: str) -> Tdm | None:
    """A value of PLUS's vocabulary (`plus:DataMining`), as an address or by its code; None for another."""
    found = _PLUS_VALUE.fullmatch(value.strip())
    return _PLUS.get(found[1].upper()) if found else None  # type: ignore[return-value]


def from_text(value: object) -> Tdm | None:
    """A value as metadata of works give it: ours, PLUS's, `tdm-reservation: 1`, or `X-Robots-Tag: noai`; "" is None.

    `tdm-reservation: 0` says that nothing is reserved: allowed. A robots tag without a word on AI says nothing.

    Raises:
        ValueError: it is none of these.
    """
    if value is None or value is False:
        return None
    text = "1" if value is True else str(value).strip().strip("\"'")
    if not text:
        return None
    if text.lower() in VALUES:
        return text.lower()  # type: ignore[return-value]
    if (found := from_plus(text)) is not None:
        return found
    if reservation := _RESERVATION.fullmatch(text):
        return "prohibited" if reservation[1] == "1" else "allowed"
    if robots := _ROBOTS.fullmatch(text):
        words = {word.strip() for word in robots[1].lower().rpartition(":")[2].split(",")}
        if words & _NO_AI:
            return "prohibited-ai"
        if words <= _ROBOTS_WORDS:
            return None
    raise ValueError(text)


def from_robots(value: object) -> Tdm | None:
    """A value of the header `X-Robots-Tag`, whatever else it says, for all robots or for some; never refused."""
    try:
        return from_text(value)
    except ValueError:
        return "prohibited-ai" if _NO_AI & set(_ROBOTS_WORD.findall(str(value).lower())) else None
