"""`das bench features`: both sides of the ratio are timed on the same pairs, and told for people and machines."""

import json

import pytest
from typer.testing import CliRunner

from das.cli import build_app
from das.models import load_model

SMALL = ["--images", "2", "--timesteps", "3", "--dimension", "16", "--batch-size", "4", "--rounds", "2"]


def run(*words):
    return CliRunner().invoke(build_app(), ["bench", "features", *map(str, words)])


def test_features_are_timed_against_a_plain_pass_over_the_same_pairs(tiny_model):
    done = run("--model", tiny_model, *SMALL, "--probe", "loss", "--probe", "activation", "--json")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert (told["pairs"], told["rounds"], told["dimension"]) == (2 * 3, 2, 16)
    assert told["probes"] == ["loss", "activation"]
    weights = load_model(str(tiny_model)).network.parameters()
    assert told["parameters"] == sum(one.numel() for one in weights)
    assert 0 < told["ratio_low"] <= told["ratio_to_floor"] <= told["ratio_high"]
    assert told["floor_ms_per_pair"] > 0
    assert told["features_ms_per_pair"] > 0


def test_people_get_a_sentence(tiny_model):
    done = run("--model", tiny_model, *SMALL)
    assert done.exit_code == 0, done.output
    assert "ms for the features of one (image, timestep) pair" in done.stdout.replace("\n", " ")


@pytest.mark.parametrize("words", [[], ["--model", "MODEL", "--rounds", "0"]])
def test_a_model_is_required_and_a_round_at_least(words):
    assert run(*words).exit_code == 2


def test_all_figures_of_a_machine_are_taken_and_one_that_fails_is_told(tiny_model, tiny_index, tmp_path):
    def all_of(*words):
        options = [
            "--model",
            tiny_model,
            "--folder",
            tmp_path / "made",
            "--out",
            tmp_path / "figures",
            *words,
        ]
        return CliRunner().invoke(build_app(), ["bench", "all", *map(str, options)])

    done = all_of("--index", tiny_index, "--only", "search", "--works", 200)
    assert done.exit_code == 0, done.output
    assert json.loads((tmp_path / "figures" / "search.json").read_text())["works"] == 200
    done = all_of("--index", tmp_path / "nowhere", "--only", "search", "--only", "features")
    assert done.exit_code == 1
    assert "search failed: " in done.output
    rows = json.loads((tmp_path / "figures" / "features.json").read_text())
    assert [row["probes"] for row in rows] == [["loss"], ["activation"], ["loss", "activation"]]
    assert all_of("--index", tiny_index, "--only", "everything").exit_code != 0
