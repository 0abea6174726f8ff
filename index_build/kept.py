"""The works of an index that stay in its next version: their files, shared where nothing of them changes."""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np

from das import durable
from das.index import AttributionIndex, feature_name, thumbnail_name
from das.manifest import FileRecord
from index_build.finish import write_array


@dataclass(frozen=True)
class Part:
    """What stays of one shard: its number in the parent, rows of the parent, and whether that is all of them."""

    number: int
    rows: np.ndarray
    whole: bool


@dataclass
class Shared:
    """Files that both versions have, with what the parent's manifest says of each, by their names here."""

    records: dict[str, FileRecord] = field(default_factory=dict)


def parts_of(shard_rows: Sequence[int], kept: np.ndarray) -> list[Part]:
    """The shards of which something stays; `kept` (N,) bool."""
    starts = np.cumsum([0, *shard_rows])
    parts = []
    for number, (start, end) in enumerate(pairwise(starts)):
        rows = start + np.flatnonzero(kept[start:end])
        if len(rows):
            parts.append(Part(number, rows, len(rows) == end - start))
    return parts


def keep_features(index: AttributionIndex, parts: Sequence[Part], directory: Path, shared: Shared) -> None:
    """Share the shards of which all works stay, and write what stays of the others, byte for byte."""
    for features in index.manifest.features.sets:
        shards = list(index.features(features).shards())
        for number, part in enumerate(parts):
            name = feature_name(features, number)
            if part.whole:
                _share(index, feature_name(features, part.number), directory, name, shared)
            else:
                start, stored = shards[part.number]
                write_array(directory / name, stored[part.rows - start])


def keep_thumbnails(
    index: AttributionIndex, parts: Sequence[Part], directory: Path, shared: Shared
) -> np.ndarray:
    """The same of thumbnails; returns where they lie now, (n, 3) int64 (`das.index`)."""
    places = []
    for number, part in enumerate(parts):
        name = thumbnail_name(number)
        theirs = index.thumbnail_places[part.rows].copy()
        if part.whole:
            _share(index, thumbnail_name(part.number), directory, name, shared)
        else:
            durable.write_bytes(directory / name, b"".join(index.thumbnail(int(row)) for row in part.rows))
            theirs[:, 1] = np.cumsum(theirs[:, 2]) - theirs[:, 2]
        theirs[:, 0] = number
        places.append(theirs)
    return np.concatenate(places)


def keep_file(index: AttributionIndex, name: str, directory: Path, shared: Shared) -> None:
    """Share a file that is the same in both versions."""
    _share(index, name, directory, name, shared)


def _share(index: AttributionIndex, name: str, directory: Path, as_name: str, shared: Shared) -> None:
    """Give a file of the parent a name in the new version too, or copy it where the disk has no hard links."""

    def make(partial: Path) -> None:
        try:
            os.link(index.path / name, partial)
        except OSError as error:
            if error.errno in durable.NO_ROOM:
                raise
            shutil.copyfile(index.path / name, partial)

    durable.write_path(directory / as_name, make)
    shared.records[as_name] = index.manifest.files[name]
