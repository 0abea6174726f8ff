"""Sample generations that the page offers for a click: a directory of PNG files, with titles if it names them."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from app.catalogue import SMALL_SIDE, measure
from das.errors import SettingsError

TITLES = "samples.json"


@dataclass(frozen=True)
class Sample:
    """One picture; `name` is its file's name, the only way in which a request can ask for it."""

    name: str
    title: str
    path: Path
    width: int
    height: int

    @property
    def small(self) -> bool:
        return max(self.width, self.height) <= SMALL_SIDE


class Samples:
    """The pictures of `samples_dir`, read once, in the order of samples.json or else of their names.

    `samples.json` is optional: a list of `{"file": ..., "title": ...}`; other keys are left alone. Pictures that it
    doesn't name come last.
    """

    def __init__(self, directory: Path | None) -> None:
        self._by_name: dict[str, Sample] = {}
        if directory is None:
            return
        if not directory.is_dir():
            raise SettingsError(f"DAS_SAMPLES_DIR: {directory} isn't a directory.")
        titles = _titles(directory / TITLES)
        present = {path.name: path for path in sorted(directory.glob("*.png"))}
        for name in [*(name for name in titles if name in present), *(n for n in present if n not in titles)]:
            picture = measure(present[name].read_bytes())
            title = titles.get(name) or f"Sample generation {len(self._by_name) + 1}"
            self._by_name[name] = Sample(name, title, present[name], picture.width, picture.height)

    def __iter__(self) -> Iterator[Sample]:
        return iter(self._by_name.values())

    def __len__(self) -> int:
        return len(self._by_name)

    def find(self, name: str) -> Sample | None:
        return self._by_name.get(name)


def _titles(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        return {str(entry["file"]): str(entry.get("title") or "") for entry in entries}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SettingsError(f'{path} has to be a list of {{"file": ..., "title": ...}}: {error!r}') from error
