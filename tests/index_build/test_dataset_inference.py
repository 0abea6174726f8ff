"""The test whether a model knows works: its level where it doesn't, its power where it does, and its correction."""

import numpy as np
import pytest

from index_build.dataset_inference import (
    PictureLosses,
    generalisation_gap,
    holm,
    known_creators,
    permutation_p,
)

RNG = np.random.default_rng(0)


def losses(count: int, scale: float, name: str = "Ada", rng: np.random.Generator = RNG) -> PictureLosses:
    """Errors of pictures that differ much more from one another than training changes them."""
    hard = np.exp(0.3 * rng.normal(size=(count, 1)))
    return PictureLosses(scale * hard * np.exp(0.1 * rng.normal(size=(count, 10))), [name] * count)


def test_the_gap_is_found_within_its_interval() -> None:
    inside = 0
    for _ in range(60):
        found = generalisation_gap(losses(300, 0.9), losses(100, 1.0), seed=1)
        assert found.low < found.gap < found.high
        inside += found.low <= 0.1 <= found.high
    assert inside >= 51, "of 60 95 % intervals; with probability 0.998 that many"


def test_chance_isnt_taken_for_knowledge() -> None:
    p = np.array(
        [
            permutation_p(RNG.normal(size=20), RNG.normal(size=15), np.random.default_rng(trial))
            for trial in range(60)
        ]
    )
    assert (p <= 0.05).mean() <= 0.14
    assert 0.35 < p.mean() < 0.65


def test_knowledge_is_found_and_by_creator() -> None:
    works = [losses(40, 0.7, "Ada"), losses(40, 1.0, "Bert"), losses(40, 0.7, "Cleo"), losses(4, 0.2, "Dora")]
    held_out = [losses(40, 1.0, "Ada"), losses(40, 1.0, "Bert"), losses(40, 1.0, "Dora")]
    found = known_creators(joined(works), joined(held_out), fewest=10, seed=0)
    assert [one.name for one in found] == ["Ada", "Bert"], "of Cleo nothing was held out, Dora has four works"
    ada, bert = found
    assert ada.p_adjusted < 0.01
    assert ada.gap == pytest.approx(0.3, abs=0.15)
    assert bert.p_adjusted > 0.05


def joined(parts: list[PictureLosses]) -> PictureLosses:
    return PictureLosses(
        np.concatenate([part.errors for part in parts]), [name for part in parts for name in part.creators]
    )


def test_equal_errors_are_no_evidence() -> None:
    assert permutation_p(np.ones(10), np.ones(10), np.random.default_rng(0)) == 1


def test_holm() -> None:
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([]) == []
    assert holm([0.5, 0.9]) == [1.0, 1.0]
