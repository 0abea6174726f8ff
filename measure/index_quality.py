"""The linear datamodeling score of an index itself, as it answers, and its place in the index's manifest and card.

`das evaluate lds` compares estimators on features of its own; here the queries go through the library as any
question does: the index's default method, its stored features and damping, every work a candidate. No option is
chosen by the subsets, so all of them are used.
"""

import hashlib
import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from das.attribution import Attributor
from das.card import card_of
from das.durable import lock, remove_partials, write_together
from das.errors import SettingsError
from das.index import CARD_NAME, AttributionIndex
from das.manifest import (
    MANIFEST_NAME,
    FileRecord,
    Manifest,
    QualityRecord,
    manifest_bytes,
    read_manifest,
    record_file,
)
from das.models import DiffusionModel
from measure.index_works import IndexWorks
from measure.lds import interval, lds, predictions
from measure.pictures import as_pixels
from measure.report import versions
from measure.statistics import POINTS, ceilings
from measure.truth import QUERIES, SUBSETS, WORKS, GroundTruth

Progress = Callable[[str, int, int], None]

# Half a level of 8 bits, which rounding a picture costs in [-1, 1], and a little for floating point.
ROUNDING = 1.02 / 255
_BATCH = 16  # pictures encoded, or queries asked, at once


def measure(
    index: AttributionIndex,
    truth: GroundTruth,
    *,
    works: Path | None = None,
    device: str = "cpu",
    command: str = "",
    progress: Progress | None = None,
) -> QualityRecord:
    """Ask the index every query of the ground truth; nothing is written.

    Queries are rounded to 8 bits, as pictures that a service is asked about are.

    Args:
        works: where the index's works are now; None: where they were when it was built.
        progress: told `("works" or "queries", done, total)`.

    Raises:
        SettingsError: the ground truth is of another model or of other works, or the works can't be read.
    """
    manifest, name = index.manifest, truth.directory.resolve().name
    _check_counts(index, truth)
    model = truth.model(device=device)
    found = model.identity["digest"]
    if found != manifest.model.digest:
        raise SettingsError(
            f"{truth.directory} is a ground truth of another model than {index.id}'s: the digest of its weights is"
            f" {found[:12]}, the index has {manifest.model.digest[:12]}. Name the ground truth that was made with"
            " the index's model, or build an index of the ground truth's pipeline."
        )
    rows = _rows_of_works(index, truth, model, works, progress)
    if not np.array_equal(index.repeats[rows], truth.repeats):
        raise SettingsError(
            f"{index.id} counts how often its works were trained on otherwise than {truth.directory} did. Build the"
            " index with the ground truth's repeats, or without any where it has none."
        )
    scores = _scores(Attributor(index, model=model, device=device), truth, progress)[:, rows]
    losses = truth.mean_losses()
    low, high = interval(predictions(scores, truth.members), losses)
    generated = len(truth.queries_of("generated"))
    models = int((~np.isnan(truth.losses).any(2)).sum())
    return QualityRecord(
        method=manifest.config.methods[0],
        lds=POINTS * float(lds(scores, losses, truth.members).mean()),
        low=POINTS * low,
        high=POINTS * high,
        **ceilings(truth.losses),
        subsets=len(truth.members),
        queries=len(truth.queries),
        generated=generated,
        truth=f"{name}, {models:,} models trained on {len(truth.members):,} subsets of the {len(index):,} works",
        truth_digest=_digest(truth.directory),
        measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
        command=command,
        versions=versions(),
    )


def record_quality(index: AttributionIndex, quality: QualityRecord) -> Manifest:
    """Write what was measured of `index` into its manifest and card; returns the manifest. The id stays.

    Both files are replaced whole, the card first. A process that is killed meanwhile leaves an index that opens and
    answers as before, of which `verify` names the card or what was left beside it; measuring again mends it.

    Raises:
        SettingsError: the index can't be written to, or was replaced by another one since it was opened.
    """
    directory = index.path
    try:
        # On the directory itself, which leaves no file in it; others who write to the index are waited for.
        with lock(directory):
            remove_partials(directory)
            manifest = read_manifest(directory)
            if manifest.content_digest != index.manifest.content_digest:
                raise SettingsError(
                    f"{directory} was replaced by {manifest.id} while {index.id} was measured; measure again."
                )
            manifest = manifest.model_copy(update={"quality": quality})
            card = card_of(manifest, index.works).encode()
            record = FileRecord(bytes=len(card), sha256=hashlib.sha256(card).hexdigest())
            manifest = manifest.model_copy(update={"files": {**manifest.files, CARD_NAME: record}})
            write_together({directory / CARD_NAME: card, directory / MANIFEST_NAME: manifest_bytes(manifest)})
    except OSError as error:
        raise SettingsError(
            f"{directory} can't be written to ({error.strerror}); make it writable, or make room, and measure again."
        ) from error
    return manifest


def _check_counts(index: AttributionIndex, truth: GroundTruth) -> None:
    """What can be told apart without loading a model."""
    manifest, directory = index.manifest, truth.directory
    if len(truth.works) != len(index):
        raise SettingsError(
            f"{directory} has {len(truth.works):,} works, {index.id} has {len(index):,}. Both must have the same:"
            " build the index of all works of the ground truth."
        )
    if truth.works.shape[1:] != manifest.model.sample_shape:
        raise SettingsError(
            f"{directory} has works of the shape {truth.works.shape[1:]}, the model of {index.id} takes"
            f" {manifest.model.sample_shape}; it is a ground truth of another model."
        )
    if not os.access(index.path, os.W_OK):
        raise SettingsError(f"{index.path} can't be written to; its quality couldn't be kept.")


def _rows_of_works(
    index: AttributionIndex,
    truth: GroundTruth,
    model: DiffusionModel,
    works: Path | None,
    progress: Progress | None,
) -> np.ndarray:
    """The index's row of each of the ground truth's works, (N,).

    Each of the index's works is encoded and takes the nearest of the ground truth's that is still free, if no
    number of theirs differs by more than rounding. Equal works are interchangeable: they have equal scores.
    """
    theirs = truth.works.reshape(len(truth.works), -1).astype(np.float64)
    halves = np.square(theirs).sum(1) / 2
    free = np.ones(len(theirs), bool)
    rows = np.empty(len(theirs), np.int64)
    names = index.works.column("file")
    row = 0
    for batch in _encoded(index, model, works):
        # Half the squared distances, less what is the same for all of the ground truth's works.
        distances = halves - batch @ theirs.T
        for ours, far in zip(batch, distances, strict=True):
            place = int(np.where(free, far, np.inf).argmin())
            difference = float(np.abs(ours - theirs[place]).max())
            if difference > ROUNDING:
                raise SettingsError(
                    f"{names[row]} of {index.id} is none of the works of {truth.directory}: the nearest that is"
                    f" left differs by {difference:.3f}, and rounding to 8 bits explains {ROUNDING:.3f}. Build the"
                    " index of the very pictures that the ground truth was made from, at the model's size."
                )
            rows[place], free[place] = row, False
            row += 1
        if progress is not None:
            progress("works", row, len(theirs))
    return rows


def _encoded(index: AttributionIndex, model: DiffusionModel, works: Path | None) -> Iterator[np.ndarray]:
    """The index's works in the model's own space, batches of (n, d) float64."""
    source = IndexWorks(index, works)
    for start in range(0, len(index), _BATCH):
        pixels = [source.pixels(row) for row in range(start, min(start + _BATCH, len(index)))]
        yield model.encode(pixels).double().cpu().numpy().reshape(len(pixels), -1)


def _scores(attributor: Attributor, truth: GroundTruth, progress: Progress | None) -> np.ndarray:
    """Scores (Q, N) of every query and every row of the index."""
    pictures = as_pixels(truth.queries)
    found = []
    for start in range(0, len(pictures), _BATCH):
        found.append(attributor.scores(pictures[start : start + _BATCH]))
        if progress is not None:
            progress("queries", min(start + _BATCH, len(pictures)), len(pictures))
    return np.concatenate(found)


def _digest(directory: Path) -> str:
    lines = [f"{name} {record_file(directory / name).sha256}\n" for name in (WORKS, QUERIES, SUBSETS)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()
