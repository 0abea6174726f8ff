"""Rankings by two ways to compute the same scores, which add up in another order."""

from collections.abc import Sequence
from typing import Protocol


class Ranked(Protocol):
    work_id: str
    score: float


# Of the highest score: more than sums of float32 differ by, less than works that a person tells apart.
ROUNDING = 1e-4


def assert_same_ranking(
    found: Sequence[Ranked], expected: Sequence[Ranked], rounding: float = ROUNDING
) -> None:
    """Works of the same scores, in the same order but for those that are as good as equal.

    Such works may also take each other's place at the end, where one is listed and the other isn't.
    """
    most = rounding * max(abs(work.score) for work in expected)
    scores = {work.work_id: work.score for work in expected}
    last = expected[-1].score
    assert len({work.work_id for work in found}) == len(found) == len(expected)
    for place, (ours, theirs) in enumerate(zip(found, expected, strict=True), 1):
        assert abs(ours.score - theirs.score) <= most, f"place {place}: {ours.score} and not {theirs.score}"
        # Who isn't there at all is as good as the last one.
        other = scores.get(ours.work_id, last)
        assert abs(ours.score - other) <= 2 * most, f"{ours.work_id} has {ours.score} and not {other}"
