"""A ground truth of models that were trained elsewhere: the same as one made here, and what can be wrong with it."""

import json
import shutil

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from das.cli import build_app
from das.errors import SettingsError
from das.models import load_model
from measure.own_runs import simple_losses, truth_of_runs
from measure.training import LossConfig, Recipe, losses_on, new_network, save_pipeline
from measure.truth import load_truth, save_truth

LOSSES = LossConfig(timesteps=3, draws=2)
WORKS, QUERIES, SUBSETS = 6, 3, 3


def network(seed):
    torch.manual_seed(seed)
    return new_network((3, 8, 8), Recipe(widths=(8, 16)))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Three halves of six works, the first with two seeds; fresh weights are as good as trained ones."""
    folder = tmp_path_factory.mktemp("own") / "runs"
    generator = np.random.default_rng(0)
    pictures = generator.uniform(-1, 1, (WORKS + QUERIES, 3, 8, 8)).astype(np.float32)
    save_pipeline(network(0), folder / "pipeline")
    save_truth(folder, works={"images": pictures[:WORKS]}, queries={"images": pictures[WORKS:]})
    for number, rows in enumerate([[0, 1, 2], [5, 1, 0], [2, 3, 4], [2, 1, 0]]):
        model = folder / "models" / f"{number}"
        save_pipeline(network(1 + number), model / "pipeline")
        members = np.isin(np.arange(WORKS), rows) if number == 1 else np.array(rows)
        np.save(model / "members.npy", members)
    return folder


@pytest.fixture
def own(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "runs")


def test_losses_are_the_models_and_equal_members_are_seeds(own, tmp_path):
    made = truth_of_runs(own, tmp_path / "truth", LOSSES)
    assert made.members.tolist() == [
        [True, True, True, False, False, False],
        [True, True, False, False, False, True],
        [False, False, True, True, True, False],
    ]
    assert np.isnan(made.losses[1:, 1]).all()
    queries = torch.from_numpy(made.queries)
    for place, seed in {(0, 0): 1, (0, 1): 4, (1, 0): 2, (2, 0): 3}.items():
        expected = losses_on(network(seed).eval(), queries, LOSSES).numpy()
        np.testing.assert_allclose(made.losses[place], expected, rtol=1e-5)
    shutil.rmtree(own)
    assert load_truth(tmp_path / "truth").model().identity["class"] == "UNet2DModel"


def test_a_model_may_be_added_and_no_loss_is_computed_twice(own, tmp_path):
    later = tmp_path / "later"
    shutil.move(own / "models" / "3", later)
    said = []
    before = truth_of_runs(own, tmp_path / "truth", LOSSES, say=said.append)
    assert len(said) == 3
    assert before.losses.shape[1] == 1
    shutil.move(later, own / "models" / "3")
    after = truth_of_runs(own, tmp_path / "truth", LOSSES, say=said.append)
    assert len(said) == 4
    assert after.losses.shape[1] == 2
    np.testing.assert_array_equal(after.losses[:, 0], before.losses[:, 0])


def test_another_prediction_type_is_measured_as_it_was_trained(tmp_path):
    from diffusers import DDPMPipeline, DDPMScheduler

    scheduler = DDPMScheduler(100, beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction")
    DDPMPipeline(unet=network(0), scheduler=scheduler).save_pretrained(tmp_path / "v")
    model = load_model(str(tmp_path / "v"))
    pictures = np.random.default_rng(1).uniform(-1, 1, (2, 3, 8, 8)).astype(np.float32)
    found = simple_losses(model, pictures, LossConfig(timesteps=1, draws=1))
    from measure.training import shared_noises

    noise = shared_noises((3, 8, 8), LossConfig(timesteps=1, draws=1))
    clean, t = torch.from_numpy(pictures), torch.tensor([50, 50])
    a, b = scheduler.alphas_cumprod[50].sqrt(), (1 - scheduler.alphas_cumprod[50]).sqrt()
    with torch.no_grad():
        predicted = model.network(a * clean + b * noise, t).sample
    expected = (predicted - (a * noise - b * clean)).square().mean((1, 2, 3))
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_losses_alone_are_taken_as_they_are(own, tmp_path):
    for number, model in enumerate(sorted((own / "models").iterdir())):
        shutil.rmtree(model / "pipeline")
        np.save(model / "losses.npy", np.full(QUERIES, float(number)))
    made = truth_of_runs(own, tmp_path / "truth", LOSSES)
    assert made.losses[:, 0, 0].tolist() == [0, 1, 2]
    assert made.losses[0, 1, 0] == 3


def drop_members(own):
    (own / "models" / "0" / "members.npy").unlink()


def all_members(own):
    np.save(own / "models" / "0" / "members.npy", np.ones(WORKS, bool))


def row_that_isnt_there(own):
    np.save(own / "models" / "0" / "members.npy", np.array([0, WORKS]))


def row_twice(own):
    np.save(own / "models" / "0" / "members.npy", np.array([0, 0, 1]))


def members_of_floats(own):
    np.save(own / "models" / "0" / "members.npy", np.ones(WORKS))


def some_losses(own):
    np.save(own / "models" / "0" / "losses.npy", np.ones(QUERIES))


def no_model(own):
    shutil.rmtree(own / "models" / "0" / "pipeline")


def the_full_model_again(own):
    shutil.rmtree(own / "models" / "0" / "pipeline")
    shutil.copytree(own / "pipeline", own / "models" / "0" / "pipeline")


def one_model_twice(own):
    shutil.rmtree(own / "models" / "1" / "pipeline")
    shutil.copytree(own / "models" / "0" / "pipeline", own / "models" / "1" / "pipeline")


def too_few(own):
    shutil.rmtree(own / "models" / "1")


def no_models(own):
    shutil.rmtree(own / "models")


def pickled_members(own):
    np.save(own / "models" / "0" / "members.npy", np.array([{}], dtype=object), allow_pickle=True)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (drop_members, "has no members.npy"),
        (all_members, "names all of the works"),
        (row_that_isnt_there, "names rows from 0 to 6 of 6 works"),
        (row_twice, "names a work twice"),
        (members_of_floats, r"is float64 \(6,\); expected \(6,\) booleans"),
        (some_losses, "1 has none. Losses that were computed in different ways"),
        (no_model, "neither losses.npy nor pipeline/"),
        (the_full_model_again, "the same weights as the model of all works"),
        (one_model_twice, "1 has the same weights as .*0"),
        (too_few, "2 different subsets"),
        (no_models, "holds no models"),
        (pickled_members, "can't be read as a plain array"),
    ],
)
def test_what_is_wrong_is_said(own, tmp_path, spoil, told):
    spoil(own)
    with pytest.raises(SettingsError, match=told):
        truth_of_runs(own, tmp_path / "truth", LOSSES)


def test_another_loss_or_other_works_are_another_truth(own, tmp_path):
    truth_of_runs(own, tmp_path / "truth", LOSSES)
    with pytest.raises(SettingsError, match="another plan: losses was"):
        truth_of_runs(own, tmp_path / "truth", LossConfig(timesteps=2, draws=2))


def test_the_command_and_what_measures_with_it(own, tmp_path):
    runner, app = CliRunner(), build_app()
    command = ["evaluate", "truth", "--from", str(own), "--out", str(tmp_path / "truth"), "--json"]
    told = json.loads(runner.invoke(app, command).stdout)
    assert (told["works"], told["queries"], told["subsets"], told["models"]) == (WORKS, QUERIES, 3, 4)
    lds = ["evaluate", "lds", "--truth", str(tmp_path / "truth"), "--timesteps", "2", "--dimension", "64"]
    shown = runner.invoke(
        app, [*lds, "--method", "das", "--out", str(tmp_path / "lds-own.json")], env={"COLUMNS": "80"}
    )
    assert shown.exit_code == 0, shown.output
    assert all(len(line) <= 80 for line in shown.stdout.splitlines())
    assert "…" not in shown.stdout
    assert json.loads((tmp_path / "lds-own.json").read_text())["truth"]["training"] is None
    pages = runner.invoke(app, ["results", "write", str(tmp_path)])
    assert pages.exit_code == 0, pages.output
    both = runner.invoke(app, [*command, "--works-npz", "pictures.npz"])
    assert both.exit_code != 0
    assert "either --works-npz" in str(both.exception) + both.output
