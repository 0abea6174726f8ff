"""Computing a report's answer again from picture, index and model, and what is found to differ."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from das.errors import DasError, EvidenceError
from das.evidence.report import FORMAT, VERSION, pixels_digest
from das.images import IsolatedNormaliser
from das.index import AttributionIndex

TOLERANCE = 1e-3
"""Scores may differ by this part of the largest: other processors and libraries add up in another order."""
_MOST_BYTES = 2**28


@dataclass(frozen=True)
class Recomputed:
    """What computing again gave.

    Attributes:
        works: how many ranked works were held against the report.
        largest_difference: between a score then and now, as a part of the largest score.
        differences: a sentence for each work that differs by more than `TOLERANCE`; empty where all agree.
    """

    works: int
    largest_difference: float
    differences: tuple[str, ...]

    @property
    def agrees(self) -> bool:
        """Whether the report's ranking and scores are those that were found now."""
        return not self.differences


def recompute(
    report: Mapping[str, Any], index: AttributionIndex, picture: Path, device: str = "cpu"
) -> Recomputed:
    """Ask the report's question again.

    Args:
        report: of the version that this program writes; its seal was checked.
        picture: the file that was uploaded, or the service's normalised PNG of it.

    Raises:
        EvidenceError: report, index or picture aren't what belongs together.
        DasError: the index's model can't be loaded.
    """
    if (report.get("format"), report.get("version")) != (FORMAT, VERSION):
        raise EvidenceError(
            f"The report is of the format {report.get('format')} {report.get('version')}; this program computes"
            f" {FORMAT} {VERSION} again."
        )
    try:
        return _recomputed(report, index, picture, device)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise EvidenceError(
            f"The report lacks what computing it again needs: {type(error).__name__} {error}."
        ) from error


def _recomputed(report: Mapping[str, Any], index: AttributionIndex, picture: Path, device: str) -> Recomputed:
    from das.attribution import Attributor

    asked, places = report["question"], report["answer"]["works"]
    if index.manifest.content_digest != report["index"]["content_digest"]:
        raise EvidenceError(f"{index.id} isn't the index of the report, which is {report['index']['id']}.")
    pixels = _pixels(report["picture"], picture)
    candidates = asked["candidate_works"]
    rows = None if candidates is None else np.asarray([index.works.row_of(one) for one in candidates])
    again = Attributor(index, device=device).attribute(
        pixels,
        # More than were named: one that fell behind by the tolerance is then still found.
        top_k=2 * len(places) + 1,
        candidates=rows,
        method=asked["method"],
        prompt=asked["prompt"],
        seed=None if asked["seed"] is None else int(asked["seed"]),
    )
    found = {work.work_id: work.score for work in again.works}
    largest = max(abs(float(place["score"])) for place in places) or 1.0
    differences, furthest = [], 0.0
    for place in places:
        score = found.get(place["work_id"])
        if score is None:
            differences.append(f"{place['work_id']}, rank {place['rank']}, isn't among the first now.")
            continue
        difference = abs(score - float(place["score"])) / largest
        furthest = max(furthest, difference)
        if difference > TOLERANCE:
            differences.append(
                f"{place['work_id']}, rank {place['rank']}, had the score {place['score']:.6g} and has {score:.6g}."
            )
    listed = [place["work_id"] for place in places]
    lowest = min((found[one] for one in listed if one in found), default=0.0)
    for work_id, score in found.items():
        if work_id not in listed and score - lowest > TOLERANCE * largest:
            differences.append(f"{work_id} isn't in the report and has the score {score:.6g}.")
    return Recomputed(len(places), furthest, tuple(differences))


def _pixels(said: Mapping[str, Any], path: Path) -> np.ndarray:
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise EvidenceError(f"{path} is larger than {_MOST_BYTES // 2**20} MB; it can't be the picture.")
        data = path.read_bytes()
    except OSError as error:
        raise EvidenceError(f"{path} can't be read: {error.strerror}.") from error
    try:
        with IsolatedNormaliser(processes=1) as normaliser:
            pixels = normaliser.normalise(data).pixels
    except DasError as error:
        raise EvidenceError(f"{path} can't be used as a picture: {error}") from error
    same = hashlib.sha256(data).hexdigest() == said["sha256"] or pixels_digest(pixels) == said["pixels"]
    if not same:
        raise EvidenceError(f"{path} isn't the picture of the report: its digest is another.")
    return pixels
