"""Engines that share a search answer as one alone does: what they send each other is all that it takes."""

from pathlib import Path

import numpy as np
import pytest

import das.scoring
from das.index import AttributionIndex
from das.sections import Section, sections_of
from jobs.searches import SectionTask
from jobs.settings import Settings
from tests.worker.questions import question
from worker.engine import AttributionEngine
from worker.together import Found, Search


@pytest.fixture
def engines(
    tiny_index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[AttributionEngine, AttributionEngine]:
    """Two that read features from the index's files."""
    monkeypatch.setattr(das.scoring, "IN_MEMORY_BYTES", 0)
    settings = Settings(_env_file=None, data_dir=tmp_path, index_dir=tiny_index, torch_threads=1)
    return AttributionEngine(settings), AttributionEngine(settings)


def task_of(search: Search[Found], number: int, section: Section) -> SectionTask:
    asked = (search.index_id, search.method, search.question(), section.begin, section.end)
    return SectionTask("search_1", number, "worker", *asked)


@pytest.mark.parametrize("most", [2, 5])
def test_two_engines_answer_as_one(
    engines: tuple[AttributionEngine, AttributionEngine], tiny_index: Path, most: int
) -> None:
    leading, other = engines
    index = AttributionIndex.open(tiny_index)
    sent: list[int] = []

    def lead(search: Search[Found], /) -> list[Found]:
        found = []
        for number, section in enumerate(sections_of(search.shard_rows, most)):
            search.alive()
            if number == 1:
                found.append(search.compute(section))
                continue
            result = other.score_section(task_of(search, number, section), lambda: None)
            found.append(search.read(section, result))
            # Each array of an .npz has a header.
            assert len(result) <= search.result_bytes(section) + 20 * 400
            with pytest.raises(ValueError, match="isn't of"):
                search.read(Section(section.begin, section.end + 1), result)
            sent.append(number)
        return found

    pictures = list(np.random.default_rng(3).integers(0, 256, (3, 16, 16, 3), np.uint8))
    screened = [index.works.id_of(row) for row in (3, 9, 20)]
    for method in index.methods:
        jobs = [
            question(index.id, 5, method=method),
            question(index.id, 4, screened, method=method),
            question(index.id, 40, method=method),
        ]
        alone = leading.run(jobs, pictures, lambda *_: None)
        shared = leading.run(jobs, pictures, lambda *_: None, lead)
        for one, other_one in zip(alone, shared, strict=True):
            assert [work["work_id"] for work in one["works"]] == [
                work["work_id"] for work in other_one["works"]
            ]
            for name in ("score", "share", "percentile"):
                mine, theirs = ([work[name] for work in both["works"]] for both in (one, other_one))
                # Three queries are multiplied at once in the one case and two in the other.
                assert mine == pytest.approx(theirs, rel=2e-4, abs=1e-9)
            assert one["candidates"] == other_one["candidates"]
            assert [group["name"] for group in one["groups"]["creator"]] == [
                group["name"] for group in other_one["groups"]["creator"]
            ]
    assert sent


class Over(Exception):
    """Nobody waits any more."""


def test_scoring_ends_where_nobody_waits_for_it(
    engines: tuple[AttributionEngine, AttributionEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(das.scoring, "_PIECE_ROWS", 4)
    leading, other = engines
    pieces: list[int] = []

    def alive() -> None:
        pieces.append(len(pieces))
        if len(pieces) == 2:
            raise Over

    def progress(stage: str, *_: int) -> None:
        if stage == "scored":
            alive()

    def lead(search: Search[Found], /) -> list[Found]:
        (whole,) = sections_of(search.shard_rows, 1)
        with pytest.raises(Over):
            other.score_section(task_of(search, 0, whole), alive)
        assert len(pieces) == 2
        pieces.clear()
        return [search.compute(whole)]

    (index_id,) = leading.describe()["indexes"]
    with pytest.raises(Over):
        leading.run([question(index_id, 3)], [np.zeros((16, 16, 3), np.uint8)], progress, lead)
    assert len(pieces) == 2


def test_small_indexes_are_not_divided(tiny_index: Path, tmp_path: Path) -> None:
    engine = AttributionEngine(
        Settings(_env_file=None, data_dir=tmp_path, index_dir=tiny_index, torch_threads=1)
    )
    (index_id,) = engine.describe()["indexes"]

    def lead(*_: object) -> list[object]:
        raise AssertionError("what is held in memory is computed at once")

    (answer,) = engine.run([question(index_id, 3)], [np.zeros((16, 16, 3), np.uint8)], lambda *_: None, lead)
    assert len(answer["works"]) == 3
