"""Near ties are no difference between two rankings, and everything else is."""

from dataclasses import dataclass

import pytest

from tests.rankings import assert_same_ranking


@dataclass
class Work:
    work_id: str
    score: float


def ranking(**scores: float) -> list[Work]:
    return [Work(name, score) for name, score in scores.items()]


THREE = ranking(a=10.0, b=5.0, c=4.9999)


@pytest.mark.parametrize(
    "found", [THREE, ranking(a=10.0, c=5.0, b=4.9999), ranking(a=10.0005, b=5.0, d=4.9999)]
)
def test_works_as_good_as_equal_may_take_each_others_place(found: list[Work]) -> None:
    assert_same_ranking(found, THREE)


@pytest.mark.parametrize(
    "found",
    [
        ranking(b=10.0, a=5.0, c=4.9999),
        ranking(a=10.01, b=5.0, c=4.9999),
        ranking(a=10.0, b=5.0),
        ranking(a=10.0, d=5.01, c=4.9999),
        [*THREE[:2], THREE[1]],
    ],
)
def test_another_order_is_another_ranking(found: list[Work]) -> None:
    with pytest.raises(AssertionError):
        assert_same_ranking(found, THREE)
