"""What scores come to is bit for bit what they say one by one, and an answer is made of that alone."""

from pathlib import Path

import numpy as np
import pytest

from das.answer import UNKNOWN_CREATOR
from das.index import AttributionIndex
from das.intervals import Noise, ShareNoise
from das.ranking import Ranking
from das.references import AS_MADE, References
from das.tally import tally_of
from tests.das.named_works import named

COUNT = 40
NOISE = ShareNoise(Noise(1e-4, 2e-3), Noise(2e-4, 1e-3), 2.5)


@pytest.fixture(scope="module")
def index(tiny_index: Path) -> AttributionIndex:
    """The tiny index whose works are of nine creators, some unknown, with references."""
    opened = AttributionIndex.open(tiny_index)
    found = AttributionIndex(opened.path, opened.manifest, named(opened.works))
    shares = {"das-block": np.linspace(0, 0.5, 100)}
    statistics = {AS_MADE: np.random.default_rng(0).normal(size=(100, 3))}
    found.__dict__["references"] = References(statistics, shares, None, {"das-block": NOISE})
    return found


def scored(count: int, seed: int) -> np.ndarray:
    """Scores with both signs, of which some are equal."""
    return np.round(np.random.default_rng(seed).normal(1, 2, count), 1)


@pytest.mark.parametrize("rows", [None, np.array([7, 3, 21, 30, 2, 11, 39])])
@pytest.mark.parametrize("top_k", [1, 5, 100])
@pytest.mark.parametrize("seed", range(5))
def test_an_answer_has_the_bits_of_the_scores(
    index: AttributionIndex, rows: np.ndarray | None, top_k: int, seed: int
) -> None:
    places = np.arange(COUNT) if rows is None else rows
    scores = scored(len(places), seed)
    tally = tally_of(index.works, scores, rows, top_k)
    answer = Ranking(index).rank("das-block", tally, top_k, {}, None, None)

    shares = np.maximum(scores, 0.0)
    shares /= shares.sum()
    order = sorted(range(len(places)), key=lambda place: (-scores[place], places[place]))[:top_k]
    assert [work.row for work in answer.works] == [places[place] for place in order]
    assert [work.score for work in answer.works] == [scores[place] for place in order]
    assert [work.share for work in answer.works] == [shares[place] for place in order]
    assert [work.percentile for work in answer.works] == [
        100.0 * (scores < scores[place]).sum() / len(places) for place in order
    ]
    creators = index.works.grouping("creator")
    totals = np.bincount(creators.codes[places], shares, len(creators))
    expected = {creators[code] or UNKNOWN_CREATOR: totals[code] for code in set(creators.codes[places])}
    assert {group.name: group.share for group in answer.groups["creator"]} == expected
    first = answer.works[0].share
    intervals = [(work.low, work.high) for work in answer.works]
    if rows is None:
        assert intervals == [NOISE.interval(work.share, "works") for work in answer.works]
        second = np.sort(shares)[-2]
        assert answer.certainty is not None
        assert answer.certainty["clearly_first"] == NOISE.clear(first, second)
        assert answer.certainty["percentile"] == index.references.percentile("das-block", first)  # type: ignore[union-attr]
    else:
        assert set(intervals) == {(None, None)}
        assert answer.certainty is not None
        assert (answer.certainty["clearly_first"], answer.certainty["percentile"]) == (None, None)


def test_without_influence_there_are_no_shares(index: AttributionIndex) -> None:
    tally = tally_of(index.works, np.full(COUNT, -1.0), None, 3)
    answer = Ranking(index).rank("das-block", tally, 3, {}, None, None)
    assert [work.share for work in answer.works] == [0.0] * 3
    assert {group.share for group in answer.groups["creator"]} == {0.0}
    assert answer.summary == "No influence was measured among 40 works."
