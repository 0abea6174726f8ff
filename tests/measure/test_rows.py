"""The rows of a comparison: figures, what a variant takes, and differences to the paper's form."""

import sys

import numpy as np
import pytest

from measure.curves import CURVES, curve_rows, dimensions, fewer
from measure.lds import predictions, resampled
from measure.methods import REFERENCE, Variant
from measure.report import command_line, noted
from measure.rows import comparison_rows
from measure.spectrum import DAMPING_GRID
from measure.statistics import DIFFERENCE

TIMESTEPS = (0, 100, 300, 500)
K = 64


def test_every_row_says_what_it_measured_or_why_not(study):
    rows = {row["label"]: row for row in comparison_rows(study, study.variants())}
    assert len(rows) == len(study.variants())
    assert rows["clip-dot"]["skipped"] == "no CLIP model was given"
    assert rows["tracincp"]["skipped"] == "no checkpoints were given"
    measured = [row for row in rows.values() if "skipped" not in row]
    assert len(measured) == len(rows) - 4
    for row in measured:
        assert -100 <= row["low"] <= row["high"] <= 100
        assert row["oracle_lds"] >= row["chosen_lds"] - 1e-9
        assert {"lds_validation", "lds_generated", "ceiling", "perfect"} <= row.keys()
        for kind in ("", "_validation", "_generated"):
            if row["label"] == "das":
                assert [row[f"{name}{kind}"] for name in DIFFERENCE] == [None] * 3
            else:
                assert row[f"difference{kind}"] == row[f"lds{kind}"] - rows["das"][f"lds{kind}"]
                assert row[f"difference_low{kind}"] <= row[f"difference_high{kind}"]
        if row["damping"] is None:
            assert "regret" not in row
        else:
            assert row["regret"] == pytest.approx(row["oracle_lds"] - row["lds"])
    das = rows["das-block loss+mean+square+random"]
    assert (das["forward_passes"], das["backward_passes"]) == (4, 4 * 4)
    assert das["bytes_per_work"] == 4 * K * 4
    assert das["oracle_damping"] in DAMPING_GRID
    assert [damping for damping, _ in das["curve"]] == list(DAMPING_GRID)
    assert rows["pixel-dot"]["bytes_per_work"] == 64 * 4
    assert rows["pixel-dot"]["forward_passes"] == 0
    assert rows["trak"]["damping"] > 0
    assert rows["pixel-dot"]["damping"] is None


def test_differences_are_to_the_papers_form_wherever_it_stands(study):
    chosen = [Variant("trak", ("loss",)), REFERENCE, Variant("d-trak", ("square",))]
    rows = {row["label"]: row for row in comparison_rows(study, chosen)}
    assert {row["label"]: row for row in comparison_rows(study, chosen[::-1])} == rows
    truth = study.truth
    own, paper = (
        resampled(predictions(study.scores(one), truth.members), truth.mean_losses()) for one in chosen[:2]
    )
    for kind, queries in (("", np.arange(7)), ("_generated", truth.queries_of("generated"))):
        draws = 100 * (own[:, queries] - paper[:, queries]).mean(1)
        found = [rows["trak"][f"difference_{end}{kind}"] for end in ("low", "high")]
        assert found == pytest.approx(np.quantile(draws, [0.025, 0.975]))
    assert [rows["das"][name] for name in DIFFERENCE] == [None] * 3
    alone = comparison_rows(study, chosen[:1])[0]
    assert [alone[name] for name in DIFFERENCE] == [None] * 3
    assert alone["lds"] == rows["trak"]["lds"]


def test_curves_are_held_against_the_papers_form_with_the_same_choices(study):
    rows = curve_rows(study)
    assert len(rows) == len(CURVES) * (len(dimensions(K)) + len(fewer(TIMESTEPS)))
    paper = {
        (row["varied"], tuple(row["timesteps"]), row["dimension"]): row["lds"]
        for row in rows
        if row["label"] == "das"
    }
    for row in rows:
        expected = row["lds"] - paper[row["varied"], tuple(row["timesteps"]), row["dimension"]]
        assert row["difference"] == (None if row["label"] == "das" else expected)


@pytest.mark.parametrize("words", [["--note", "see ../a, it's busy"], ["--note=see ../a, it's busy"]])
def test_a_command_is_told_without_its_note(monkeypatch, words):
    monkeypatch.setattr(sys, "argv", ["/bin/das", "bench", *words, "--out", "/srv/figures.json"])
    assert command_line() == "das bench --out figures.json"
    assert noted("busy") == {"note": "busy"}
    assert noted(None) == noted("") == {}
