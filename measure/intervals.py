"""How many intervals of shares hold: an index's answers against those of the same index at many timesteps."""

from collections.abc import Callable
from typing import Any

import numpy as np

from das.answer import UNKNOWN_CREATOR, Attribution
from das.attribution import Attributor
from das.errors import SettingsError
from measure.statistics import POINTS
from measure.uploads import Uploads, mean_interval, wilson

AT_ONCE = 10
TOP_WORKS, TOP_CREATORS = 20, 3

Told = Callable[[int], None]


def measure_intervals(
    attributor: Attributor, richer: Attributor, asked: Uploads, told: Told
) -> dict[str, Any]:
    """Ask both indexes about the same pictures; rows of how many intervals of the first hold the second's share.

    Raises:
        SettingsError: they aren't two indexes of the same works, or the first has no intervals.
    """
    ours, theirs = attributor.index, richer.index
    if ours.works.column("id") != theirs.works.column("id"):
        raise SettingsError(f"{theirs.id} isn't an index of the same works as {ours.id}.")
    method = ours.methods[0]
    if ours.references is None or method not in ours.references.noise:
        raise SettingsError(
            f"{ours.id} has no intervals: build it with references and three timesteps at least."
        )
    held: dict[str, list[np.ndarray]] = {}
    widths: dict[str, list[np.ndarray]] = {}
    stays: dict[bool, list[bool]] = {True: [], False: []}
    for first in range(0, len(asked.pixels), AT_ONCE):
        pixels, prompts = asked.pixels[first : first + AT_ONCE], asked.prompts[first : first + AT_ONCE]
        answers = attributor.attribute_batch(
            pixels, method=method, top_k=TOP_WORKS, prompts=prompts, exact=True
        )
        rich = richer.attribute_batch(pixels, method=method, top_k=len(theirs), prompts=prompts, exact=True)
        for answer, full in zip(answers, rich, strict=True):
            for what, (low, share, high) in _compared(answer, full).items():
                held.setdefault(what, []).append((low <= share) & (share <= high))
                widths.setdefault(what, []).append(high - low)
            assert answer.certainty is not None
            same = full.works[0].row == answer.works[0].row
            stays[bool(answer.certainty["clearly_first"])].append(same)
        told(len(pixels))
    return {
        "pictures": len(asked.pixels),
        "coverage": [_row(what, held[what], widths[what]) for what in held],
        "first_place": [
            {
                "clearly_first": clear,
                "count": len(same),
                "stays_first": sum(same),
                **_rate(sum(same), len(same)),
            }
            for clear, same in stays.items()
        ],
    }


def _compared(answer: Attribution, full: Attribution) -> dict[str, np.ndarray]:
    """Rows of low end, share at many timesteps, high end: (3, n) for each kind."""
    shares = {work.row: work.share for work in full.works}
    works = np.array([[work.low, shares[work.row], work.high] for work in answer.works], float).T
    by_name = {group.name: group.share for group in full.groups["creator"]}
    groups = [group for group in answer.groups["creator"][:TOP_CREATORS] if group.name in by_name]
    creators = np.array([[group.low, by_name[group.name], group.high] for group in groups], float).T
    found = {"first work": works[:, :1], f"first {TOP_WORKS} works": works}
    if len(by_name) > 1 or UNKNOWN_CREATOR not in by_name:
        found |= {"first creator": creators[:, :1], f"first {TOP_CREATORS} creators": creators}
    return found


def _row(what: str, held: list[np.ndarray], widths: list[np.ndarray]) -> dict[str, Any]:
    rates = np.array([one.mean() for one in held])
    if all(len(one) == 1 for one in held):
        low, high = wilson(int(rates.sum()), len(rates))
    else:
        # A picture's intervals hold or fail together, so pictures are resampled.
        low, high = mean_interval(rates)
    return {
        "what": what,
        "count": sum(len(one) for one in held),
        "covered": POINTS * float(rates.mean()),
        "low": POINTS * low,
        "high": POINTS * high,
        "mean_width": POINTS * float(np.concatenate(widths).mean()),
    }


def _rate(hits: int, count: int) -> dict[str, float | None]:
    if not count:
        return {"rate": None, "low": None, "high": None}
    low, high = wilson(hits, count)
    return {"rate": POINTS * hits / count, "low": POINTS * low, "high": POINTS * high}
