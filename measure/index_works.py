"""The works of an index, read again from where they lie, however they are kept there."""

import hashlib
from pathlib import Path

import numpy as np

from das.errors import ImageRefused, SettingsError
from das.images import ImageLimits, normalise
from das.index import AttributionIndex
from das.works import read_works

_LIMITS = ImageLimits(max_bytes=2**30, max_pixels=400_000_000, max_side=2**20, min_side=1)


class IndexWorks:
    """Opens the source that an index was built of."""

    def __init__(self, index: AttributionIndex, works: Path | None = None) -> None:
        """`works` is where they are now; None: where they were when it was built.

        Raises:
            SettingsError: they aren't there.
            WorksError: what is there can't be read as works.
        """
        record = index.manifest.works
        self._place = works or Path(record.source)
        if not self._place.exists():
            raise SettingsError(
                f"the works of {index.id} aren't at {self._place}; name the place where they are now with --works."
            )
        self._source = read_works(self._place, follow_links=True, format=record.format or "auto")
        self._rows = {name: row for row, name in enumerate(self._source.table["file"].to_pylist())}
        self._index = index

    def pixels(self, row: int) -> np.ndarray:
        """Pixels (H, W, 3) uint8 of a work in a row of the index, which is still what it was built from.

        Raises:
            SettingsError: it isn't there, can't be used, or changed.
        """
        name = str(self._index.works.table["file"][row])
        here = f"{self._place / name}, a work of {self._index.id},"
        if name not in self._rows:
            raise SettingsError(
                f"{here} isn't there; if the works were moved, name their place with --works."
            )
        try:
            data = self._source.read(self._rows[name])
            if hashlib.sha256(data).hexdigest() != str(self._index.works.table["digest"][row]):
                raise SettingsError(f"{here} isn't what the index was built from: it changed since.")
            return normalise(data, _LIMITS).pixels
        except OSError as error:
            raise SettingsError(f"{here} can't be read: {error.strerror}.") from error
        except ImageRefused as error:
            raise SettingsError(f"{here} can't be used: {error}") from error
