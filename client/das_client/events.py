"""Server-sent events: what comes over the wire, read into events."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

LAST = frozenset({"succeeded", "failed", "cancelled", "erased"})
"""Names of events after which nothing comes."""


@dataclass(frozen=True)
class Event:
    """Something that happened to a question.

    Attributes:
        name: `created`, `screened`, `started`, `progress`, `retrying`, or one of `LAST`.
        data: what is told of it, as the service's AttributionEvent or ProgressEvent has it.
        id: for `last_event_id`, to go on after it; None for `progress`.
    """

    name: str
    data: dict[str, Any]
    id: str | None


@dataclass
class Reader:
    """Lines in, events out. `last_id` and `retry_s` are what a connection that is opened again has to know."""

    last_id: str | None = None
    retry_s: float = 2.0
    _name: str = ""
    _id: str | None = None
    _data: list[str] = field(default_factory=list)

    def lines(self, line: str) -> Iterator[Event]:
        """The event that ends with this line, if one does (HTML standard, section 9.2.6)."""
        if not line:
            yield from self._dispatch()
            return
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match name:
            case "event":
                self._name = value
            case "data":
                self._data.append(value)
            case "id" if "\0" not in value:
                self._id = value
            case "retry" if value.isascii() and value.isdigit() and len(value) < 9:
                self.retry_s = int(value) / 1000
            case _:
                pass

    def begin(self) -> None:
        """Forget half an event: the connection that brought it is gone."""
        self._name, self._id, self._data = "", None, []

    def _dispatch(self) -> Iterator[Event]:
        name, number, text = self._name, self._id, "\n".join(self._data)
        self.begin()
        if number:
            self.last_id = number
        if not text:
            return
        try:
            data = json.loads(text)
        except ValueError:
            data = None
        # What isn't an object is of a service newer than this client; it says nothing that is known here.
        if isinstance(data, dict):
            yield Event(name or "message", data, number)
