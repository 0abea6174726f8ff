"""Sample generations that the page offers for a click: a directory of PNG files, with titles if it names them."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from app.catalogue import SMALL_SIDE, measure
from das.errors import SettingsError

TITLES = "samples.json"
SHOWN_FIRST = 18
"""Pictures that the page shows at once, three rows of a wide window; the others are a click away."""


@dataclass(frozen=True)
class Sample:
    """One picture; `name` is its file's name, the only way in which a request can ask for it."""

    name: str
    number: int
    """Its place among all of them, from 1."""
    title: str
    """Empty where it has none of its own: pages name it by its number, in their language."""
    path: Path
    width: int
    height: int
    shows: str = ""  # a word below the picture
    about: str = ""  # the sentence that explains it

    @property
    def small(self) -> bool:
        return max(self.width, self.height) <= SMALL_SIDE


class Samples:
    """The pictures of `samples_dir`, read once, in the order of samples.json or else of their names.

    `samples.json` is optional: a list of `{"file": ..., "title": ...}`, or `{"note": ..., "samples": [...]}` with a
    sentence about all of them. A picture may have a word of what it `shows`, and a sentence `about` it; other keys
    are left alone. Pictures that it doesn't name come last.
    """

    def __init__(self, directory: Path | None) -> None:
        self._by_name: dict[str, Sample] = {}
        self.note = ""
        if directory is None:
            return
        if not directory.is_dir():
            raise SettingsError(f"DAS_SAMPLES_DIR: {directory} isn't a directory.")
        self.note, told = _told(directory / TITLES)
        present = {path.name: path for path in sorted(directory.glob("*.png"))}
        for name in [*(name for name in told if name in present), *(n for n in present if n not in told)]:
            picture = measure(present[name].read_bytes())
            said = told.get(name, {})
            self._by_name[name] = Sample(
                name,
                len(self._by_name) + 1,
                said.get("title", ""),
                present[name],
                picture.width,
                picture.height,
                said.get("shows", ""),
                said.get("about", ""),
            )

    def __iter__(self) -> Iterator[Sample]:
        return iter(self._by_name.values())

    def __len__(self) -> int:
        return len(self._by_name)

    def find(self, name: str) -> Sample | None:
        return self._by_name.get(name)


def _told(path: Path) -> tuple[str, dict[str, dict[str, str]]]:
    """The note about all, and by each picture's file what is said of it."""
    if not path.is_file():
        return "", {}
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        note, entries = ("", kept) if isinstance(kept, list) else (kept.get("note"), kept["samples"])
        said = {
            str(entry["file"]): {key: str(entry.get(key) or "") for key in ("title", "shows", "about")}
            for entry in entries
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SettingsError(f'{path} has to be a list of {{"file": ..., "title": ...}}: {error!r}') from error
    return str(note or ""), said
