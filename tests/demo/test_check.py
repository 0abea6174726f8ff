"""The check's eye for a faulty answer, and where the demo looks for its index."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import demo.home
from app.examples import ATTRIBUTION
from app.schemas import Attribution
from demo.check import _planted_faults, faults_of
from demo.home import CLIP, PIPELINE, SAMPLES, _inputs_digest, build_config
from demo.samples import read_samples

Answer = dict[str, Any]
SIZE = 3


def good_answer() -> Answer:
    """The API's own example, made into an answer on an index of three works."""
    answer = copy.deepcopy(ATTRIBUTION)
    first = answer["works"][0]
    answer["works"] = [
        {**first, "rank": rank, "work_id": f"w_{rank}", "score": 1 / rank, "share": 0.5 / rank}
        for rank in (1, 2, 3)
    ]
    answer["candidates"]["count"] = SIZE
    group = answer["groups"]["creator"][0]
    answer["groups"]["creator"] = [{**group, "share": 0.75}, {**group, "name": "Another", "share": 0.25}]
    answer["timings_ms"]["engine"] = 800.0
    Attribution.model_validate(answer)
    return answer


def test_a_good_answer_has_no_faults() -> None:
    assert faults_of(good_answer(), SIZE) == []


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (
            lambda a: a.update(state="failed", error={"code": "x", "message": "the worker died"}),
            "the worker died",
        ),
        (lambda a: a["works"].pop(), "2 works instead of 3"),
        (lambda a: a["works"][1].update(rank=3), "ranks aren't"),
        (lambda a: a["works"][1].update(work_id="w_1"), "named twice"),
        (lambda a: a["works"][1].update(score=9.0), "scores aren't in order"),
        (lambda a: a["works"][1].update(score=float("nan")), "isn't a number"),
        (lambda a: a["works"][0].update(share=1.2), "between 0 and 1"),
        (lambda a: a["works"][2].update(licence=None), "no title, creator, licence"),
        (lambda a: a["groups"]["creator"].pop(), "don't add up"),
        (lambda a: a["candidates"].update(count=2), "2 candidates instead of 3"),
        (lambda a: a.update(lookalikes=None), "no look-alikes"),
        (lambda a: a.update(summary=None), "no summary"),
        (lambda a: a["timings_ms"].pop("engine"), "timings"),
    ],
)
def test_every_fault_is_named(spoil: Callable[[Answer], object], fault: str) -> None:
    answer = good_answer()
    spoil(answer)
    assert any(fault in found for found in faults_of(answer, SIZE)), faults_of(answer, SIZE)


def test_too_few_planted_works_found_is_a_fault() -> None:
    assert _planted_faults({"planted_total": 20, "planted_das_hits": 19}) == []
    assert "90%" in _planted_faults({"planted_total": 20, "planted_das_hits": 18})[0]
    assert "no sample" in _planted_faults({"planted_total": 0, "planted_das_hits": 0})[0]


def test_the_index_belongs_to_this_model_and_these_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = _inputs_digest(tmp_path)
    assert before == _inputs_digest(tmp_path / "elsewhere")
    monkeypatch.setitem(demo.home.PRESETS["economical"], "dimension", 64)
    assert _inputs_digest(tmp_path) != before
    assert build_config(tmp_path).dimension == 64


def test_the_assets_are_inside_the_package() -> None:

    for path in (PIPELINE, CLIP, SAMPLES):
        assert path.is_dir()
        assert path.is_relative_to(Path(demo.__file__).parent)
    assert all((SAMPLES / sample.file).is_file() for sample in read_samples(SAMPLES))
