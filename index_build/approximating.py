"""An index with an approximate search: the same works and features, and what finds works without scoring them all.

It is another index, with an id of its own: its answers are others. Files that stay are shared with its parent. A kill
leaves the parent as it is; the same command begins anew, and gives the same bytes.
"""

import io
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import faiss
import numpy as np
from PIL import Image

from das import durable
from das.approximate import (
    METHOD,
    ApproximateSearch,
    factory_of,
    quantised,
    sample_of,
    sum_of_squares,
    work_weights,
)
from das.approximation import (
    FEWEST_WORKS,
    SAMPLE_NAME,
    TOP_WORKS,
    ApproximateRecord,
    Asked,
    search_name,
    sum_name,
)
from das.attribution import Attributor
from das.card import card_of
from das.errors import BuildError, SettingsError
from das.index import CARD_NAME, AttributionIndex
from das.manifest import (
    MANIFEST_NAME,
    Manifest,
    content_digest,
    list_files,
    manifest_bytes,
    read_manifest,
    record_file,
)
from das.tally import best_of
from index_build.changing import version_place
from index_build.finish import write_array
from index_build.inputs import read_digested_works
from index_build.kept import Shared, keep_file
from index_build.later import tell_of_later
from index_build.moved import seen_from
from index_build.pictures import PictureReader
from index_build.progress import QuietReporter, Reporter
from index_build.records import versions
from index_build.workspace import Workspace, building_path

DEFAULT_BYTES, DEFAULT_DEPTH, DEFAULT_SAMPLE = 64, 4_000, 100_000
ASKED_ABOUT = 50
"""Pictures that a search is measured with."""

_AT_ONCE = 10
_FEWEST_SAMPLED = 100


@dataclass(frozen=True)
class Approximated:
    """The index with the search; `present`: it was there already."""

    path: Path
    index_id: str
    parent: str
    state: Literal["made", "present"]
    record: ApproximateRecord
    later: tuple[str, ...] = ()
    """Newer versions beside it that it isn't made of, in whose place it is served."""
    seconds: dict[str, float] = field(default_factory=dict)


def approximate(
    index: AttributionIndex,
    out: Path,
    *,
    size: int = DEFAULT_BYTES,
    depth: int = DEFAULT_DEPTH,
    sample: int = DEFAULT_SAMPLE,
    pictures: Path | None = None,
    seed: int = 0,
    device: str = "cpu",
    reporter: Reporter | None = None,
) -> Approximated:
    """Make `out` of `index` with an approximate search, and measure how many of the 20 highest works it finds.

    Args:
        size: bytes of the search for each work and feature set, at most.
        depth: candidates of each sign and feature set.
        sample: works that stand for all in shares of groups.
        pictures: a folder of pictures to measure with; None: those that the index was measured with, where their
            folder is still there, else its own works' thumbnails.

    Raises:
        SettingsError: the index can't be searched so, or an option makes no sense.
        BuildError: the model or the pictures can't be had, the place is taken, or the disk is full.
        IndexFormatError: the index is damaged.
    """
    reporter = reporter or QuietReporter()
    _check(index, depth, sample)
    _, size = factory_of(size, index.manifest.features.dimension)
    record = ApproximateRecord(
        method=METHOD,
        parent=index.id,
        bytes=size,
        depth=depth,
        sample=min(sample, len(index)),
        seed=seed,
        recall=0.0,
        queries=0,
        asked="works",
    )
    with version_place(index, out) as out:
        later = tell_of_later(index, out, reporter)
        found = _present(record, out) or _Making(index, record, out, reporter).make(pictures, device)
        return replace(found, later=later)


def _check(index: AttributionIndex, depth: int, sample: int) -> None:
    if METHOD not in index.methods:
        raise SettingsError(
            f"{index.id} answers {', '.join(index.methods)}; works are found approximately for {METHOD} alone."
        )
    if index.manifest.approximate is not None:
        raise SettingsError(
            f"{index.id} has an approximate search already. Make another of the index that it was made of,"
            f" {index.manifest.approximate.parent}."
        )
    if len(index) < FEWEST_WORKS:
        raise SettingsError(
            f"{index.id} has {len(index):,} works; below {FEWEST_WORKS:,} scoring all of them takes no longer."
        )
    if depth < TOP_WORKS:
        raise SettingsError(f"{depth} candidates are too few; give {TOP_WORKS} at least.")
    if sample < _FEWEST_SAMPLED:
        raise SettingsError(f"a sample of {sample} works is too small; give {_FEWEST_SAMPLED} at least.")


def _present(record: ApproximateRecord, out: Path) -> Approximated | None:
    """The index if it is finished already, published if it only lacked that.

    Raises:
        BuildError: another index is there.
    """
    for place in (out, building_path(out)):
        if not (place / MANIFEST_NAME).is_file():
            continue
        manifest = read_manifest(place)
        there = manifest.approximate
        measured = {"recall": 0.0, "queries": 0, "asked": "works"}
        if there is None or there.model_copy(update=measured) != record:
            raise BuildError(
                f"{place} holds another index, {manifest.id}, than this makes of {record.parent}. Delete it, or"
                " choose another --out."
            )
        if place != out:
            Workspace(out).publish()
        return Approximated(out, manifest.id, record.parent, "present", there)
    return None


class _Making:
    """One index on its way."""

    def __init__(
        self, index: AttributionIndex, record: ApproximateRecord, out: Path, reporter: Reporter
    ) -> None:
        self._index = index
        self._record = record
        self._out = out
        self._reporter = reporter
        self._seconds: dict[str, float] = {}

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        self._seconds[name] = time.monotonic() - began

    def make(self, pictures: Path | None, device: str) -> Approximated:
        index = self._index
        with self._timed("verifying"):
            # What is made of damaged features would get digests of its own.
            index.check_whole()
        said = self._record.model_dump(mode="json", include={"parent", "bytes", "depth", "sample", "seed"})
        workspace = Workspace.open(self._out, {"approximate": said})
        directory, shared = workspace.path, Shared()
        for name in index.manifest.files:
            if name != CARD_NAME:
                keep_file(index, name, directory, shared)
        self._write(directory)
        with self._timed("measuring"):
            record = self._measured(directory, pictures, device)
        manifest = seen_from(index.manifest, index.path, self._out)
        build = manifest.build.model_copy(
            update={
                "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
                "command": "das index approximate",
                "device": device,
                "versions": versions(),
                "seconds": {name: round(value, 3) for name, value in self._seconds.items()},
            }
        )
        manifest = manifest.model_copy(update={"approximate": record, "build": build})
        manifest = self._with_files(workspace, manifest, shared)
        durable.write_bytes(directory / MANIFEST_NAME, manifest_bytes(manifest))
        workspace.publish()
        return Approximated(self._out, manifest.id, index.id, "made", record, seconds=self._seconds)

    def _write(self, directory: Path) -> None:
        """Write the search, the sums and the sample."""
        index, record = self._index, self._record
        kernels = index.manifest.kernels_of(METHOD)
        factory, _ = factory_of(record.bytes, index.manifest.features.dimension)
        with (
            self._timed("quantising"),
            self._reporter.stage("quantising", len(index) * len(kernels)) as stage,
        ):
            for kernel in kernels:
                weights, features = work_weights(index, kernel), index.features(kernel.features)
                search = quantised(features, weights, factory, record.seed, stage.advance)
                durable.write_file(
                    directory / search_name(kernel.features),
                    # By a stream of ours: FAISS's own tells of a full disk in an error of any kind.
                    lambda stream, made=search: faiss.write_index(  # type: ignore[misc]
                        made,
                        faiss.PyCallbackIOWriter(stream.write),  # type: ignore[attr-defined]
                    ),
                )
                write_array(directory / sum_name(kernel.features), sum_of_squares(features, weights))
        write_array(directory / SAMPLE_NAME, sample_of(len(index), record.sample, record.seed))

    def _measured(self, directory: Path, given: Path | None, device: str) -> ApproximateRecord:
        """The record with how many of the highest works are found."""
        index = self._index
        asked, pixels, prompts = self._pictures(given)
        attributor = Attributor(index, device=device)
        search = ApproximateSearch.open(index, self._record, directory)
        hits: list[float] = []
        with self._reporter.stage("measuring", len(pixels)) as stage:
            for first in range(0, len(pixels), _AT_ONCE):
                part = slice(first, first + _AT_ONCE)
                averages = attributor.averaged_features(pixels[part], METHOD, prompts=prompts[part])
                found = search.candidates(attributor.mapped(averages, METHOD))
                for place, rows in enumerate(found):
                    one = {name: values[place : place + 1] for name, values in averages.items()}
                    scores = attributor.scores_of(one, METHOD, [None])[0]
                    best, _ = best_of(scores, None, TOP_WORKS)
                    hits.append(float(np.isin(best, rows).mean()))
                    stage.advance()
        update = {"recall": round(float(np.mean(hits)), 5), "queries": len(hits), "asked": asked}
        return self._record.model_copy(update=update)

    def _pictures(self, given: Path | None) -> tuple[Asked, list[np.ndarray], list[str | None]]:
        """Pictures to ask about, each (H, W, 3) uint8, with their prompts, and which they are."""
        manifest = self._index.manifest
        folders: list[tuple[Asked, str | None]] = [
            ("given", None if given is None else str(given)),
            ("references", None if manifest.references is None else manifest.references.source),
            ("held-out", None if manifest.held_out is None else manifest.held_out.source),
        ]
        for asked, source in folders:
            if source is not None and (
                asked == "given" or (Path(source).is_absolute() and Path(source).is_dir())
            ):
                return asked, *_read(Path(source), self._reporter)
        rows = np.linspace(0, len(self._index) - 1, ASKED_ABOUT).astype(int)
        pixels = []
        for row in rows:
            with Image.open(io.BytesIO(self._index.thumbnail(int(row)))) as image:
                pixels.append(np.asarray(image.convert("RGB")))
        return "works", pixels, [self._index.works.value("prompt", int(row)) for row in rows]

    def _with_files(self, workspace: Workspace, manifest: Manifest, shared: Shared) -> Manifest:
        directory, record = workspace.path, manifest.approximate
        durable.write_bytes(directory / CARD_NAME, card_of(manifest, self._index.works).encode())
        names = [name for name in list_files(directory) if workspace.is_product(name)]
        files = {
            name: shared.records[name] if name in shared.records else record_file(directory / name)
            for name in names
        }
        digest = content_digest(
            manifest.config,
            [one.digest for one in (manifest.model, *manifest.checkpoints)],
            manifest.works.digest,
            manifest.clip_digest,
            manifest.kernels,
            files,
            manifest.extensions,
            None if record is None else record.depth,
        )
        return manifest.model_copy(update={"content_digest": digest, "files": files})


def _read(folder: Path, reporter: Reporter) -> tuple[list[np.ndarray], list[str | None]]:
    """Up to `ASKED_ABOUT` pictures of a folder, evenly spaced, with their prompts.

    Raises:
        BuildError: none can be read.
    """
    works = read_digested_works(folder, reporter)
    chosen = works.only(
        [int(row) for row in np.unique(np.linspace(0, len(works) - 1, ASKED_ABOUT).astype(int))]
    )
    reader = PictureReader(chosen)
    try:
        found = [one for some, _ in reader.batches(range(len(chosen)), _AT_ONCE) for one in some]
    finally:
        reader.close()
    if not found:
        raise BuildError(
            f"none of the pictures in {folder} can be read, so nothing can be measured with them."
        )
    prompts = chosen.source.table["prompt"].to_pylist()
    return [one.pixels for one in found], [prompts[one.row] for one in found]
