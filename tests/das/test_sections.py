"""What is put together of sections is what the whole index's scores come to."""

from pathlib import Path

import numpy as np
import pytest
import torch

import das.scoring
from das.attribution import Attributor
from das.index import AttributionIndex
from das.lookups import GROUPED
from das.sections import Section, SectionTally, packed, packed_bytes, put_together, sections_of, unpacked
from das.tally import tally_of
from das.works import Works
from tests.das.named_works import named

COUNT = 40


@pytest.fixture(scope="module")
def works(tiny_index: Path) -> Works:
    """Those of the tiny index, of nine creators and four texts of rights holders."""
    return named(AttributionIndex.open(tiny_index).works)


def scored(kind: str, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    match kind:
        case "many alike":
            return rng.integers(-1, 3, COUNT).astype(float)
        case "nothing":
            return np.zeros(COUNT)
        case "against it":
            return -rng.random(COUNT)
        case _:
            return rng.normal(1, 2, COUNT)


@pytest.mark.parametrize("kind", ["any", "many alike", "nothing", "against it"])
@pytest.mark.parametrize("most", [1, 2, 3, 40])
@pytest.mark.parametrize("best", [1, 5, 39, 100])
@pytest.mark.parametrize("seed", range(4))
def test_sections_come_to_what_the_whole_does(
    works: Works, kind: str, most: int, best: int, seed: int
) -> None:
    scores = scored(kind, seed)
    whole = tally_of(works, scores, None, best)
    sections = sections_of([1] * COUNT, most)
    assert len(sections) == most
    tallies = [SectionTally.of(works, one, scores[one.begin : one.end], best) for one in sections]
    sent = []
    for one, tally in zip(sections, tallies, strict=True):
        content = packed(works, one, [tally, tally])
        # Each array of an .npz has a header.
        assert len(content) <= packed_bytes(works, one, [best, best]) + 6 * 400
        sent.append(unpacked(works, one, content)[1])
    found = put_together(works, sent, best)
    assert found.candidates == whole.candidates
    np.testing.assert_array_equal(found.rows, whole.rows)
    np.testing.assert_array_equal(found.scores, whole.scores)
    np.testing.assert_allclose(found.percentiles, whole.percentiles, rtol=1e-14)
    assert found.total == pytest.approx(whole.total, rel=1e-14)
    for column in GROUPED:
        ours, theirs = found.groups[column], whole.groups[column]
        np.testing.assert_allclose(ours.shares, theirs.shares, rtol=1e-12, atol=1e-15)
        np.testing.assert_array_equal(ours.works, theirs.works)
        np.testing.assert_array_equal(ours.of_candidates, theirs.of_candidates)


def test_what_is_found_in_one_section_is_not_taken_for_another(works: Works) -> None:
    scores = scored("any", 0)
    first, second = Section(0, 2), Section(2, COUNT)
    content = packed(works, first, [SectionTally.of(works, first, scores[:2], 5)])
    with pytest.raises(ValueError, match="isn't of 1 queries"):
        unpacked(works, second, content)


def test_sections_are_of_whole_shards_and_even() -> None:
    assert sections_of([8, 8, 8, 8, 3], 2) == [Section(0, 16), Section(16, 35)]
    assert sections_of([8, 8, 8, 8, 3], 3) == [Section(0, 8), Section(8, 24), Section(24, 35)]
    # No more than there are shards, and a large one isn't divided.
    assert sections_of([100, 1], 3) == [Section(0, 100), Section(100, 101)]
    assert sections_of([7], 4) == [Section(0, 7)]


@pytest.mark.parametrize("most", [2, 4, 7])
def test_a_section_has_the_scores_of_the_whole_to_the_bit(
    tiny_index: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(das.scoring, "IN_MEMORY_BYTES", 0)
    index = AttributionIndex.open(tiny_index)
    attributor = Attributor(index, threads=1)
    pictures = list(np.random.default_rng(1).integers(0, 256, (2, 16, 16, 3), np.uint8))
    for method in index.methods:
        averages = attributor.averaged_features(pictures, method)
        whole = attributor.scores_of(averages, method, [None, None])
        sections = sections_of(index.manifest.features.shard_rows, most)
        for one in sections:
            some = attributor.scores_of(averages, method, [one, one])
            for query in range(2):
                np.testing.assert_array_equal(some[query], whole[query][one.begin : one.end])
        # In memory, pieces are multiplied that begin elsewhere: the same but for rounding.
        monkeypatch.setattr(das.scoring, "IN_MEMORY_BYTES", 2**40)
        kept = Attributor(index, attributor.model, threads=1)
        for one in sections:
            some = kept.scores_of(averages, method, [one, one])
            np.testing.assert_allclose(some[1], whole[1][one.begin : one.end], rtol=1e-4, atol=1e-9)
        monkeypatch.setattr(das.scoring, "IN_MEMORY_BYTES", 0)


@pytest.mark.parametrize("threads", [2, 3])
def test_as_many_threads_as_one_likes_give_the_same_bits(
    tiny_index: Path, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    monkeypatch.setattr(das.scoring, "IN_MEMORY_BYTES", 0)
    # Chunks of five works in pieces of seven: many for few works.
    monkeypatch.setattr(das.scoring, "_CHUNK_BYTES", 5 * 4 * 128)
    monkeypatch.setattr(das.scoring, "_PIECE_ROWS", 7)
    index = AttributionIndex.open(tiny_index)
    before = torch.get_num_threads()
    try:
        one = Attributor(index, threads=1)
        averages = one.averaged_features([np.full((16, 16, 3), 90, np.uint8)], index.methods[0])
        alone = one.scores_of(averages, index.methods[0], [None])[0]
        several = Attributor(index, one.model, threads=threads)
        for _ in range(20):
            np.testing.assert_array_equal(several.scores_of(averages, index.methods[0], [None])[0], alone)
        # What else is computed here keeps its threads.
        assert torch.get_num_threads() == threads
        # Who stops asking early leaves nothing that the next could meet.
        kernel = index.manifest.kernels_of(index.methods[0])[0]
        next(several._scorer(kernel).pieces(averages[kernel.features], [None]))
        np.testing.assert_array_equal(several.scores_of(averages, index.methods[0], [None])[0], alone)
    finally:
        torch.set_num_threads(before)
