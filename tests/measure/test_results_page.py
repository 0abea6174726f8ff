"""The page of results: numbers and figures from the reports, the same every time."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from das.cli import build_app
from das.errors import SettingsError
from measure.results.evaluation import evaluation_page
from measure.results.pages import draw, out_of_step, pages

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


CEILINGS = {"ceiling_validation": 23.1, "ceiling_generated": -13.9}
TRUTH = {
    "works": 1000,
    "shape": [3, 16, 16],
    "queries": {"validation": 100, "generated": 100},
    "subsets": 32,
    "share": 0.5,
    "seeds": 2,
    "repeated": 6,
    "models": 38,
    "parameters": 634_000,
    "training": {"steps": 500, "full_steps": 1000, "batch_size": 32},
    "ceiling": 4.6,
}
REPORTS = {
    "lds-digits": [
        row("trak", "trak", 30.6),
        row(
            "das-block loss",
            "das-block",
            63.3,
            regret=1.0,
            difference=32.7,
            difference_low=29.8,
            difference_high=35.6,
        ),
        {"label": "clip-dot", "method": "clip-dot", "skipped": "no CLIP model was given"},
        *(row("trak", "trak", 20.0 + k / 64, dimension=k, varied="dimension") for k in (64, 128)),
        *(row("trak", "trak", 20.0, timesteps=t, varied="timesteps") for t in ([0], [0, 100])),
    ],
    "counterfactual-digits": [
        {
            "label": "random",
            "removed": 5,
            "queries": 4,
            "l2": 1.25,
            "l2_of_sets": [1.2, 1.3],
            "clip_similarity": None,
        }
    ],
    "screening-digits": [
        {
            "label": "das",
            "embedding": "pixels",
            "candidates": 100,
            "recall": 0.5,
            "lds": 64.0,
            "screened_lds": 56.75,
            "lds_lost": 7.25,
        },
        {
            "label": "das",
            "embedding": "pixels",
            "candidates": 1000,
            "recall": 1.0,
            "lds": 64.0,
            "screened_lds": 64.0,
            "lds_lost": 0.0,
        },
    ],
    "lds-cifar2-16": [
        row("trak", "trak", 5.0, lds_validation=8.0, lds_generated=2.0, **CEILINGS),
        row(
            "das-block loss+activation",
            "das-block",
            16.6,
            lds_validation=22.7,
            lds_generated=10.4,
            **CEILINGS,
        ),
    ],
}


@pytest.fixture
def folder(tmp_path):
    for name, rows in REPORTS.items():
        report = {"command": "das evaluate", "seed": 3, "versions": {"torch": "2.6"}, "rows": rows}
        if name != "lds-digits":
            report["truth"] = TRUTH
        (tmp_path / f"{name}.json").write_text(json.dumps(report))
    return tmp_path


def test_the_page_holds_the_numbers_of_the_reports(folder):
    text = evaluation_page(folder)
    assert "| das-block loss | 63.3 | 61.3 to 65.3 | +32.7 (29.8 to 35.6) | 1.0 |" in text
    assert "| trak | 30.6 | 28.6 to 32.6 | – | – |" in text
    assert "| trak | 1.0e-02 | 30.6 | 31.6 | 2 | 64 | – | 2 | 2,048 |" in text
    assert "A second real retraining scores 67.4" in text
    assert "Not measured: clip-dot (no CLIP model was given)." in text
    assert "| random | 5 | 4 | 1.25 | 1.2, 1.3 | – |" in text
    assert "| das | pixels | 100 | 50 % | 64.0 | 56.8 | 7.2 |" in text
    assert "| das | pixels | 1,000 (all) | 100 % | 64.0 | 64.0 | 0.0 |" in text
    assert text.count("| trak |") == 4
    assert "In-sample" in text


def test_the_papers_figures_stand_beside_ours(folder):
    text = evaluation_page(folder)
    assert (
        "| TRAK | 23.6 / 15.9 | 13.6 / 10.3 | 27.3 / 20.0 | 21.0 / 19.5 | 20.0 / 14.7 | 8.0 / 2.0 | 30.6 |"
        in text
    )
    assert "| Journey TRAK | – / 12.2 |" in text
    assert "| `das-block loss+activation` | – | – | – | – | – | 22.7 / 10.4 | – |" in text
    assert "| a second real retraining | – | – | – | – | – | 23.1 / -13.9 | 67.4 |" in text
    assert text.index("## LDS: cifar2-16") < text.index("## LDS: digits")
    # The one report says what its truth is, the other is of an older version.
    assert "| works | 5,000 (CIFAR-2), 50,000 (CIFAR-10) | 1,000 | – |" in text
    assert (
        "1,000 works of 3×16×16, queries: 100 validation, 100 generated; 38 models trained on 32 subsets"
        in text
    )
    assert "| **das-block loss+activation** | **16.6** |" in text


def test_an_untrained_network_stands_beside_the_trained_one_and_not_beside_the_paper(folder):
    report = json.loads((folder / "lds-digits.json").read_text())
    for name, lds, extra in (("k1024", 61.5, "--method das-block"), ("untrained", 52.5, "--untrained")):
        rows = [
            {**one, "lds": lds, "low": lds - 1, "high": lds + 1}
            for one in report["rows"]
            if one["label"] == "das-block loss" and "varied" not in one
        ]
        written = {**report, "command": f"{report['command']} {extra}", "rows": rows}
        (folder / f"lds-digits-{name}.json").write_text(json.dumps(written))
    text = evaluation_page(folder)
    assert "| estimator | digits, trained | digits, untrained |" in text
    assert "| das-block loss | 61.5 (60.5 to 62.5) | 52.5 (51.5 to 53.5) |" in text
    assert "| das | – | – |" in text
    assert "here: digits |" in text
    assert "here: digits-untrained" not in text
    assert "A control: the features are those of the network before its training." in text


def test_a_report_without_a_measured_row_still_makes_a_page(folder):
    report = json.loads((folder / "lds-digits.json").read_text())
    rows = [row for row in report["rows"] if "skipped" in row]
    (folder / "lds-digits.json").write_text(json.dumps({**report, "rows": rows}))
    assert "nothing was measured. Not measured: clip-dot (no CLIP model was given)." in evaluation_page(
        folder
    )
    assert draw(folder)


def test_a_contact_sheet_beside_its_report_is_shown(folder):
    assert "counterfactual-digits.png" not in evaluation_page(folder)
    (folder / "counterfactual-digits.png").touch()
    assert "](counterfactual-digits.png)" in evaluation_page(folder)


def test_figures_are_those_of_the_page_and_come_out_the_same(folder):
    drawn = draw(folder)
    assert [path.name for path in drawn] == [
        "lds-cifar2-16-bars.svg",
        "lds-cifar2-16-damping.svg",
        "lds-digits-bars.svg",
        "lds-digits-damping.svg",
        "lds-digits-dimension.svg",
        "lds-digits-timesteps.svg",
    ]
    text = evaluation_page(folder)
    before = {path: path.read_bytes() for path in drawn}
    for path in draw(folder):
        assert f"]({path.name})" in text
        assert path.read_bytes() == before[path]


def test_the_pages_in_the_repository_are_in_step_with_their_json():
    assert set(pages(FOLDER)) == {"README.md", "copies.md", "evaluation.md", "intervals.md", "uploads.md"}
    assert out_of_step(FOLDER) == []


def test_what_is_out_of_step_is_named(folder):
    run = CliRunner()
    assert run.invoke(build_app(), ["results", "write", str(folder)]).exit_code == 0
    assert run.invoke(build_app(), ["results", "check", str(folder)]).exit_code == 0
    (folder / "lds-digits-bars.svg").unlink()
    with (folder / "evaluation.md").open("a") as stream:
        stream.write("more\n")
    told = run.invoke(build_app(), ["results", "check", str(folder)])
    assert told.exit_code == 1
    assert [Path(line.split()[0]).name for line in told.stdout.splitlines()] == [
        "evaluation.md",
        "lds-digits-bars.svg",
    ]


def test_a_folder_without_results_is_refused(tmp_path):
    with pytest.raises(SettingsError, match="no results"):
        pages(tmp_path)


LOAD = {
    "command": "das bench service",
    "clients": 100,
    "polls_per_s": 2.0,
    "uploaders": 10,
    "seconds": 60.0,
    "requests": {
        "question": {
            "count": 9000,
            "per_s": 150.0,
            "p50_ms": 12.4,
            "p99_ms": 130.6,
            "max_ms": 201.0,
            "statuses": {"200": 4000, "304": 5000},
        }
    },
    "questions": {"accepted": 1200, "answered": 840, "answered_per_s": 14.0},
    "faults": {},
    "memory": {"api": {"first_rss_mb": 800.0, "peak_rss_mb": 850.4}},
    "client_cpu_share": 0.123,
    "load_average_before": 0.6,
}


def test_the_service_under_load_has_a_section(folder):
    for name in ("demo.json", "features.json"):
        shutil.copy(FOLDER / name, folder)
    assert "under load" not in pages(folder)["README.md"]
    (folder / "load.json").write_text(json.dumps(LOAD))
    text = pages(folder)["README.md"]
    assert "| question | 9,000 | 150.0 | 12 ms | 131 ms | 201 ms | 200: 4,000, 304: 5,000 |" in text
    assert "1,200 questions were accepted and 840 answered within the time, 14.0 a second. Faults: 0." in text
    assert "Memory at most: api 850 MB (at first 800 MB). The client itself took 12% of a core." in text


def told_of(answered, per_s, p95_ms):
    parts = {"queue_wait": 12.4, "engine": 26.6}
    times = {"p50_ms": 60.2, "p95_ms": p95_ms}
    return {"answered": answered, "refused": 1234, "per_s": per_s, **times, "parts_ms": parts}


THROUGHPUT = {
    "command": "das bench throughput",
    "machine": {"cores": 2, "load_average_before": 9.6},
    "clients": 8,
    "seconds": 15.0,
    "rounds": 3,
    "one": told_of(1185, 11.56, 180.4),
    "several": told_of(2290, 23.12, 750.3),
    "ratio": 2.0,
    "ratio_low": 1.9,
    "ratio_high": 2.33,
    "bulk": {
        "pictures": 1000,
        "answered": 990,
        "per_s": 9.96,
        "questions": told_of(400, 4.0, 360.6),
        "p95_ratio": 1.999,
    },
}


@pytest.mark.parametrize("with_bulk", [True, False])
def test_several_questions_at_once_have_a_section(folder, with_bulk):
    for name in ("demo.json", "features.json"):
        shutil.copy(FOLDER / name, folder)
    assert "Several questions" not in pages(folder)["README.md"]
    (folder / "throughput.json").write_text(json.dumps(THROUGHPUT | ({} if with_bulk else {"bulk": None})))
    text = pages(folder)["README.md"]
    assert "| 8 clients | 2,290 | 1,234 | 23.1 | 60 ms | 750 ms | 12 ms | 27 ms |" in text
    assert "8 clients are answered **2.00** times as many (1.90 to 2.33; aim: ≥ 2)." in text
    beside = "990 of whose pictures were answered at 10.0 a second meanwhile, the 95th percentile is **2.00** times"
    assert (beside in text) is with_bulk
    assert ("beside 1,000 pictures of batches" in text) is with_bulk
    told = json.loads((folder / "throughput.json").read_text())
    assert "Before the fan." not in text
    (folder / "throughput.json").write_text(json.dumps(told | {"note": "Before the fan."}))
    assert "). Before the fan.\n" in pages(folder)["README.md"]


def test_models_of_a_published_size_have_a_section(folder):
    for name in ("demo.json", "features.json"):
        shutil.copy(FOLDER / name, folder)
    assert "published size" not in pages(folder)["README.md"]
    told = {
        "family": "stable-diffusion",
        "parameters": 885_030_852,
        "attributed": 25_509_888,
        "rank": 128,
        "works": 12,
        "size": 256,
        "timesteps": 3,
        "device": "cpu",
        "s_per_work": 46.52,
        "seconds": {"loading": 83.0},
        "peak_memory_bytes": 7_530_377_216,
        "machine": {"load_average_before": 5.2},
    }
    (folder / "full-size-sd.json").write_text(json.dumps(told))
    line = (
        "| stable-diffusion | 885 M | 25.5 M (rank 128) | 12 of 256 px, 3 timesteps | cpu | 46.5 s | 83 s |"
        " 7.5 GB | 5.2 |"
    )
    assert line in pages(folder)["README.md"].splitlines()


def test_approximate_search_has_a_section(folder):
    for name in ("demo.json", "features.json"):
        shutil.copy(FOLDER / name, folder)
    assert "Approximate search" not in pages(folder)["README.md"]
    row = {
        "factory": "PQ64x4fs",
        "depth": 1000,
        "recall_at_20": 0.9173,
        "p50_ms": 41.26,
        "p95_ms": 60.51,
        "cpu_p50_ms": 39.9,
        "bytes_per_work": 32.1,
        "build_cpu_s": 61.2,
    }
    told = {
        "works": 10_000_000,
        "base_works": 60_000,
        "dimension": 512,
        "queries": 50,
        "threads": 1,
        "share_of_top_works": 0.00162,
        "exact": {"p50_ms": 9_512.4, "p95_ms": 9_900.0, "cpu_p50_ms": 8_000.0},
        "approximate": [row],
        "groups": [
            {"sample": 10_000, "groups": 100, "median_relative_error": 0.1234, "inside_95": 0.9482},
        ],
    }
    (folder / "approximate.json").write_text(json.dumps(told))
    lines = pages(folder)["README.md"].splitlines()
    assert "| PQ64x4fs | 1,000 | 0.917 | 41 ms | 61 ms | 40 ms | 32 | 61 s of CPU |" in lines
    assert "| 10,000 | 100 | 12.3 % | 94.8 % |" in lines
