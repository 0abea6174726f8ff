"""The page of results: numbers and figures from the reports, the same every time."""

import json
import runpy
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "docs" / "results"


def row(label, method, value, **more):
    figures = {
        "lds": value,
        "low": value - 2,
        "high": value + 2,
        "chosen_lds": value,
        "oracle_lds": value + 1,
    }
    facts = {
        "damping": 0.01,
        "timesteps": [0, 100],
        "dimension": 64,
        "backward_passes": 2,
        "bytes_per_work": 2048,
    }
    curve = {"curve": [[0.01, value], [0.1, value - 3]], "preset": None, "ceiling": 67.4, "perfect": 82.1}
    return {"label": label, "method": method, **figures, **facts, **curve, **more}


REPORTS = {
    "lds-digits": [
        row("trak", "trak", 30.6),
        row("das-block loss", "das-block", 63.3),
        {"label": "clip-dot", "method": "clip-dot", "skipped": "no CLIP model was given"},
        *(row("trak", "trak", 20.0 + k / 64, dimension=k, varied="dimension") for k in (64, 128)),
        *(row("trak", "trak", 20.0, timesteps=t, varied="timesteps") for t in ([0], [0, 100])),
    ],
    "counterfactual-digits": [
        {"label": "random", "removed": 5, "queries": 4, "l2": 1.25, "clip_similarity": None}
    ],
    "screening-digits": [
        {
            "label": "das",
            "embedding": "pixels",
            "candidates": 100,
            "recall": 0.5,
            "lds": 64.0,
            "lds_lost": 7.25,
        }
    ],
}


@pytest.fixture
def folder(tmp_path):
    for name, rows in REPORTS.items():
        report = {"command": "das evaluate", "seed": 3, "versions": {"torch": "2.6"}, "rows": rows}
        (tmp_path / f"{name}.json").write_text(json.dumps(report))
    return tmp_path


@pytest.fixture
def maker():
    return runpy.run_path(str(FOLDER / "evaluation.py"), run_name="maker")


def test_the_page_holds_the_numbers_of_the_reports(folder, maker):
    text = maker["page"](folder)
    assert "| das-block loss | **63.3** | 61.3 to 65.3 |" in text
    assert "A second real retraining scores 67.4" in text
    assert "Without clip-dot: no CLIP model was given." in text
    assert "| random | 5 | 4 | 1.25 | – |" in text
    assert "| das | pixels | 100 | 0.5 | 64 | 7.25 |" in text
    assert text.count("| trak |") == 1


def test_figures_are_those_of_the_page_and_come_out_the_same(folder, maker):
    drawn = maker["draw"](folder)
    assert [path.name for path in drawn] == [
        "lds-digits-bars.svg",
        "lds-digits-damping.svg",
        "lds-digits-dimension.svg",
        "lds-digits-timesteps.svg",
    ]
    text = maker["page"](folder)
    before = {path: path.read_bytes() for path in drawn}
    for path in maker["draw"](folder):
        assert f"]({path.name})" in text
        assert path.read_bytes() == before[path]


def test_the_page_in_the_repository_is_in_step_with_its_reports(maker):
    measured = [report for kind in maker["KINDS"] for report in maker["reports"](FOLDER, kind).values()]
    written = FOLDER / "evaluation.md"
    assert written.is_file() == bool(measured)
    if measured:
        assert written.read_text() == maker["page"](FOLDER)
