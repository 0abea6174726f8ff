"""Every command of `das evaluate` on a tiny ground truth."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from das.cli import build_app
from das.errors import SettingsError
from das.models import load_model
from measure.contact_sheet import CELL, GAP
from measure.methods import ALL_PROBES
from measure.pictures import as_pixels
from measure.report import write_report
from measure.scores import Options, Study


def run(*words):
    result = CliRunner().invoke(build_app(), ["evaluate", *map(str, words)], catch_exceptions=False)
    assert result.exit_code == 0
    return [json.loads(line) for line in result.stdout.splitlines() if line.startswith("{")]


def test_lds_prints_a_row_for_each_method(truth, tmp_path):
    report = tmp_path / "lds.json"
    options = ["--timesteps", "0,100", "--dimension", "32", "--method", "trak", "--method", "das-block loss"]
    rows = run("lds", "--truth", truth.directory, *options, "--out", report, "--json")
    assert [row["label"] for row in rows] == ["trak", "das-block loss"]
    names = "method lds low high ceiling damping oracle_lds timesteps probes dimension backward_passes"
    for row in rows:
        assert set(names.split()) | {"bytes_per_work"} <= row.keys()
    written = json.loads(report.read_text())
    assert written["rows"] == rows
    parameters = sum(weights.numel() for weights in load_model(str(truth.pipeline)).network.parameters())
    assert written["truth"] == {
        "works": 20,
        "stream": 20,
        "shape": [1, 8, 8],
        "queries": {"validation": 3, "generated": 4},
        "subsets": 8,
        "share": 0.5,
        "seeds": 2,
        "repeated": 4,
        "models": 12,
        "parameters": parameters,
        "attributed": parameters,
        "lora": False,
        "training": {"steps": 3, "full_steps": 6, "batch_size": 4},
        "plan": json.loads((truth.directory / "plan.json").read_text()),
        "ceiling": rows[0]["ceiling"],
    }


def test_an_untrained_network_is_a_control_of_its_own(truth, tmp_path):
    options = Options((0, 100), 32, cache=tmp_path)
    trained, untrained = (
        Study(truth, dataclasses.replace(options, untrained=which)).features(ALL_PROBES)[0].by_probe
        for which in (False, True)
    )
    for probe in ALL_PROBES:
        assert not np.allclose(trained[probe], untrained[probe], rtol=0.1)
    again = (
        Study(truth, dataclasses.replace(options, untrained=True, cache=None))
        .features(ALL_PROBES)[0]
        .by_probe
    )
    assert np.array_equal(again["loss"], untrained["loss"])
    rows = run(
        "lds",
        "--truth",
        truth.directory,
        "--timesteps",
        "0,100",
        "--dimension",
        "32",
        "--untrained",
        "--json",
    )
    assert {row["label"] for row in rows} > {"das", "das-block loss+activation"}


def test_counterfactual_has_a_row_for_random_removal(truth, tmp_path):
    options = ["--timesteps", "0,100", "--dimension", "32", "--method", "das-block loss"]
    options += ["--remove", "5", "--set-size", "2", "--sets", "2"]
    sheet = tmp_path / "new" / "sheet.png"
    rows = run("counterfactual", "--truth", truth.directory, *options, "--pictures", sheet, "--json")
    assert [row["label"] for row in rows] == ["random", "das-block loss"]
    drawn = np.asarray(Image.open(sheet))
    generated = as_pixels(truth.queries[truth.queries_of("generated")[:2]])
    side = len(generated[0])
    scale = round(CELL / side)
    # Row 0 is the first set as it was, from the right: the second picture, a gap, the first one.
    second = drawn[GAP : GAP + scale * side, -GAP - scale * side : -GAP]
    assert np.array_equal(second[::scale, ::scale], generated[1])
    assert len(drawn) == GAP + 3 * (scale * side + GAP)
    assert all(row["l2"] > 0 and row["queries"] == 4 for row in rows)
    assert all(np.mean(row["l2_of_sets"]) == pytest.approx(row["l2"]) for row in rows)


def test_output_function_correlates_both(truth):
    rows = run("output-function", "--truth", truth.directory, "--models", "2", "--remove", "5", "--json")
    assert [row["function"] for row in rows] == ["loss", "prediction"]
    assert all(-1 <= row["pearson"] <= 1 and row["pairs"] == 8 for row in rows)


def test_screening_with_every_work_loses_nothing(truth):
    options = [
        "--timesteps",
        "0,100",
        "--dimension",
        "32",
        "--method",
        "das-block loss",
        "--candidates",
        "5,100,200",
    ]
    rows = run("screening", "--truth", truth.directory, *options, "--json")
    assert [row["candidates"] for row in rows] == [5, 20]
    assert rows[0]["recall"] <= 5 / 20 + 1e-9
    assert rows[1]["recall"] == 1
    assert rows[1]["lds_lost"] == pytest.approx(0)
    assert {row["embedding"] for row in rows} == {"pixels"}


def test_a_table_is_printed_for_people(truth):
    result = CliRunner().invoke(
        build_app(), ["evaluate", "screening", "--truth", str(truth.directory), "--method", "pixel-cosine"]
    )
    assert result.exit_code == 0
    assert "recall" in result.stdout


def test_unknown_methods_and_odd_lists_are_refused(truth):
    for words, message in (
        (["--method", "guess"], "guess"),
        (["--timesteps", "many"], "--timesteps"),
        (["--timesteps", "0"], "--timesteps"),
    ):
        result = CliRunner().invoke(build_app(), ["evaluate", "lds", "--truth", str(truth.directory), *words])
        assert isinstance(result.exception, SettingsError)
        assert message in str(result.exception)


def test_a_report_keeps_no_paths_of_this_machine(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "sys.argv", ["das", "evaluate", "lds", "--truth", f"{tmp_path}/digits", "--seed", "1"]
    )
    write_report(tmp_path / "report.json", [{"lds": 1.0}], 1)
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["command"] == "das evaluate lds --truth digits --seed 1"
    assert report["seed"] == 1
    assert report["rows"] == [{"lds": 1.0}]
