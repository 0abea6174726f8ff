"""Computing a report's answer again from picture, index and model, and what is found to differ."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from das.answer import HIDDEN_PREFIX
from das.errors import DasError, EvidenceError
from das.evidence.report import FORMAT, VERSION, pixels_digest
from das.images import IsolatedNormaliser
from das.index import AttributionIndex
from das.registry import methods

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
        not_compared: a sentence for each work that the report doesn't name, which can't be found again.
    """

    works: int
    largest_difference: float
    differences: tuple[str, ...]
    not_compared: tuple[str, ...] = ()
    by_share: int = 0
    """How many of the works have no score in the report, and were held against their share as it was rounded."""

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
    if report["index"]["content_digest"] is None:
        raise EvidenceError(
            f"{report['index']['id']} wasn't there any more when the report was made, so that it doesn't tell what"
            " the answer was computed from: it can't be computed again."
        )
    if index.manifest.content_digest != report["index"]["content_digest"]:
        raise EvidenceError(f"{index.id} isn't the index of the report, which is {report['index']['id']}.")
    _refuse_left_out(report, index)
    pixels = _pixels(report["picture"], picture)
    candidates = asked["candidate_works"]
    rows = None
    if candidates is not None:
        # A score depends on no other work, so that those that aren't named may be missing.
        named = [one for one in candidates if not one.startswith(HIDDEN_PREFIX)]
        if candidates and not named and all(place["work_id"].startswith(HIDDEN_PREFIX) for place in places):
            return Recomputed(0, 0.0, (), _not_compared(places, ()))
        rows = np.asarray([index.works.row_of(one) for one in named])
    again = Attributor(index, device=device).attribute(
        pixels,
        # More than were named: one that fell behind by the tolerance is then still found.
        top_k=2 * len(places) + 1,
        candidates=rows,
        method=asked["method"],
        prompt=asked["prompt"],
        seed=None if asked["seed"] is None else int(asked["seed"]),
        # As it was asked: an index with an approximate search can be asked in both ways.
        exact=asked["candidates"]["mode"] == "all",
    )
    found = {work.work_id: work.score for work in again.works}
    largest, tolerance = _scale(report["answer"], places, found)
    differences, furthest = [], 0.0
    unnamed = [place for place in places if place["work_id"].startswith(HIDDEN_PREFIX)]
    unrated = [place for place in places if place["score"] is None and place not in unnamed]
    listed = [place["work_id"] for place in places if place not in unnamed]
    places = [place for place in places if place not in unnamed and place not in unrated]
    by_share = []
    if report["answer"].get("rounding") and (rows is None or len(rows) == len(candidates)):
        # Shares are parts of what all candidates have, so that none of these may be missing.
        by_share, unrated = unrated, []
        shares = {work.work_id: work.share for work in again.works}
        differences += _shares_that_differ(by_share, shares, report["answer"]["rounding"]["step"])
    for place in places:
        score = found.get(place["work_id"])
        if score is None:
            differences.append(f"{place['work_id']}, rank {place['rank']}, isn't among the first now.")
            continue
        difference = abs(score - float(place["score"])) / largest
        furthest = max(furthest, difference)
        if difference > tolerance:
            differences.append(
                f"{place['work_id']}, rank {place['rank']}, had the score {place['score']:.6g} and has {score:.6g}."
            )
    # Where no work is named, none is missing either.
    lowest = min((found[one] for one in listed if one in found), default=max(found.values(), default=0.0))
    margin = tolerance * largest
    further = {one: score for one, score in found.items() if one not in listed and score - lowest > margin}
    # Those without a name in the report are among these: which ones is told by their scores alone.
    for place in unnamed:
        if further and place["score"] is None:
            del further[min(further, key=lambda one: further[one])]
        elif further and float(place["score"]) - lowest > -margin:
            del further[min(further, key=lambda one: abs(further[one] - float(place["score"])))]
    differences += [
        f"{work_id} isn't in the report and has the score {score:.6g}." for work_id, score in further.items()
    ]
    compared, not_compared = len(places) + len(by_share), _not_compared(unnamed, unrated)
    return Recomputed(compared, furthest, tuple(differences), not_compared, len(by_share))


def _not_compared(
    unnamed: Sequence[Mapping[str, Any]], unrated: Sequence[Mapping[str, Any]]
) -> tuple[str, ...]:
    """A sentence for each work without a name or a score in the report."""
    return tuple(
        f"{place['work_id']}, rank {place['rank']}, {why}, so it can't be compared."
        for some, why in ((unnamed, "isn't named in the report"), (unrated, "has no score in the report"))
        for place in some
    )


def _shares_that_differ(
    places: Sequence[Mapping[str, Any]], found: Mapping[str, float], step: float | None
) -> list[str]:
    """A sentence for each work whose share isn't what it was rounded to, or isn't below what it is told to be."""
    tolerance = TOLERANCE * max(found.values(), default=0.0)
    differences = []
    for place in places:
        name, share = f"{place['work_id']}, rank {place['rank']}", found.get(place["work_id"])
        if share is None:
            differences.append(f"{name}, isn't among the first now.")
        elif place["share"] is None and share > float(place["below"]) + tolerance:
            differences.append(f"{name}, had a share below {place['below']:.6g} and has {share:.6g}.")
        elif (
            place["share"] is not None and abs(share - float(place["share"])) > (step or 0.0) / 2 + tolerance
        ):
            differences.append(f"{name}, had the share {place['share']:.6g} and has {share:.6g}.")
    return differences


def _scale(
    answer: Mapping[str, Any], places: Sequence[Mapping[str, Any]], found: Mapping[str, float]
) -> tuple[float, float]:
    """The largest score of a report, and by which part of it scores may differ: also by what they were rounded.

    Where it tells no scores, the largest is that of those that were found.
    """
    if all(place["score"] is None for place in places):
        return max(map(abs, found.values()), default=0.0) or 1.0, TOLERANCE
    first = max(places, key=lambda place: abs(float(place["score"] or 0.0)))
    largest = abs(float(first["score"] or 0.0)) or 1.0
    step = (answer.get("rounding") or {}).get("step")
    # Scores were rounded as their shares were: by half a step at most.
    return largest, TOLERANCE + (step / 2 / first["share"] if step and first["share"] else 0.0)


def _refuse_left_out(report: Mapping[str, Any], index: AttributionIndex) -> None:
    """Raises `EvidenceError` where whoever handed the report on has left out what the answer was computed from."""
    left_out = (report.get("shared") or {}).get("left_out", ())
    if "picture" in left_out:
        raise EvidenceError(
            "The report doesn't tell its picture from any other: whoever handed it on has left that out. Only the"
            " whole report can be computed again."
        )
    seeded = any(one.along_trajectory for one in methods() if one.name == report["question"]["method"])
    if "settings" in left_out and (seeded or index.manifest.model.conditional):
        raise EvidenceError(
            "The answer may have been computed with a prompt or a seed, which whoever handed the report on has left"
            " out. Only the whole report can be computed again."
        )


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
