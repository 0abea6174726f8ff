"""Making a ground truth: it goes on where it stopped, and doesn't depend on how many train at once."""

import json
import shutil
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest
import torch

from das.errors import SettingsError
from das.prng import standard_normal
from measure import training
from measure.fleet import train
from measure.pictures import model_space
from measure.plan import Plan
from measure.source import read_source
from measure.subsets import make_truth
from measure.training import (
    LossConfig,
    Recipe,
    losses_on,
    new_network,
    new_scheduler,
    sample,
)
from measure.truth import load_truth, read_arrays, write_arrays

RECIPE = Recipe(widths=(8, 16), steps=3, full_steps=6, batch_size=4)
PLAN = Plan(
    size=8,
    count=20,
    validation=3,
    generated=2,
    subsets=4,
    seeds=2,
    repeated=1,
    checkpoints=2,
    sampling_steps=3,
    recipe=RECIPE,
    losses=LossConfig(timesteps=2, draws=1),
)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    path = tmp_path_factory.mktemp("source") / "pictures.npz"
    pictures = np.random.default_rng(0).integers(0, 256, size=(30, 16, 16, 3), dtype=np.uint8)
    np.savez(path, images=pictures, labels=np.arange(30))
    return read_source(path)


@pytest.fixture(scope="module")
def made(source, tmp_path_factory):
    out = tmp_path_factory.mktemp("truth") / "truth"
    make_truth(source, out, PLAN)
    return out


def test_a_ground_truth_has_what_was_planned(made):
    truth = load_truth(made)
    assert truth.works.shape == (20, 3, 8, 8)
    assert truth.kinds.tolist() == ["validation"] * 3 + ["generated"] * 2
    assert (truth.members.sum(1) == 10).all()
    assert len({tuple(row) for row in truth.members}) == 4
    run = ~np.isnan(truth.losses).any(2)
    assert run.tolist() == [[True, True], [True, False], [True, False], [True, False]]
    assert np.array_equal(truth.mean_losses()[1], truth.losses[1, 0])
    assert truth.mean_losses()[0] == pytest.approx(truth.losses[0].mean(0))
    assert sorted(p.name for p in (made / "checkpoints").iterdir()) == ["step-000002", "step-000004"]
    labels = read_arrays(made / "works.npz")["labels"]
    assert not set(labels) & set(read_arrays(made / "queries.npz")["labels"])


def test_a_run_goes_on_where_it_stopped_and_gives_the_same(source, made, tmp_path):
    copy = tmp_path / "truth"
    shutil.copytree(made, copy)
    kept = copy / "runs" / "subset-0000-seed-0.npz"
    before = kept.stat().st_mtime_ns
    (copy / "runs" / "subset-0002-seed-0.npz").unlink()
    (copy / "runs" / "subset-0000-seed-1.npz").unlink()
    (copy / "subsets.npz").unlink()
    make_truth(source, copy, PLAN)
    assert np.array_equal(load_truth(copy).losses, load_truth(made).losses, equal_nan=True)
    assert kept.stat().st_mtime_ns == before


def test_a_finished_one_is_kept_without_the_pictures_of_the_source(source, made, tmp_path):
    copy, drawn = tmp_path / "truth", ("works.npz", "queries.npz")
    shutil.copytree(made, copy, ignore=shutil.ignore_patterns("runs", *drawn))
    make_truth(source, copy, PLAN)
    assert not (copy / "runs").exists()
    for name in drawn:
        assert (copy / name).read_bytes() == (made / name).read_bytes()


def test_several_at_once_give_the_same(source, made, tmp_path):
    copy = tmp_path / "truth"
    shutil.copytree(made, copy)
    shutil.rmtree(copy / "runs")
    (copy / "subsets.npz").unlink()
    make_truth(source, copy, PLAN, workers=2)
    assert np.allclose(load_truth(copy).losses, load_truth(made).losses, rtol=1e-5, equal_nan=True)


def test_a_killed_run_takes_its_workers_along_and_leaves_whole_files(tmp_path):
    pictures = np.random.default_rng(1).integers(0, 256, size=(24, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "pictures.npz", images=pictures)
    out = tmp_path / "truth"
    words = ["--works-npz", tmp_path / "pictures.npz", "--out", out, "--validation", 2, "--generated", 0]
    words += [
        "--subsets",
        40,
        "--repeated",
        0,
        "--steps",
        40,
        "--batch",
        8,
        "--width",
        "8,16",
        "--workers",
        2,
    ]
    main = "from das.cli import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", main, "evaluate", "truth", *map(str, words)], stderr=subprocess.DEVNULL
    )
    wait_until(lambda: len(list(out.glob("runs/*.npz"))) >= 2)
    workers = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(workers, timeout=30)
    assert workers
    assert not alive
    done = sorted(out.glob("runs/*.npz"))
    assert len(done) < 40
    for path in done:
        assert np.isfinite(read_arrays(path, ("losses",))["losses"]).all()


def wait_until(happened, seconds=120):
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_another_plan_is_refused(source, made):
    other = Plan(**{**PLAN.__dict__, "subsets": 5})
    with pytest.raises(SettingsError, match="subsets was 4, now 5"):
        make_truth(source, made, other)


def test_a_foreign_directory_is_left_alone(source, tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(SettingsError, match="not empty"):
        make_truth(source, tmp_path, PLAN)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("works.npz", lambda a: {"images": a["images"][:, :, :4]}, "works have the shape"),
        ("works.npz", lambda a: {"pictures": a["images"]}, "has no array images"),
        ("works.npz", lambda a: {"images": a["images"] * 3}, "within"),
        ("queries.npz", lambda a: {**a, "kind": np.full(5, "drawn")}, "kind must name"),
        ("subsets.npz", lambda a: {**a, "members": a["members"].astype(int)}, "expected booleans"),
        ("subsets.npz", lambda a: {**a, "losses": a["losses"][:, :, :2]}, "losses has the shape"),
        ("subsets.npz", lambda a: {**a, "losses": a["losses"] * np.nan}, "0 subsets have losses"),
    ],
)
def test_what_is_wrong_with_a_ground_truth_is_said(made, tmp_path, name, change, message):
    copy = tmp_path / "truth"
    shutil.copytree(made, copy)
    write_arrays(copy / name, change(read_arrays(copy / name)))
    with pytest.raises(SettingsError, match=message) as caught:
        load_truth(copy)
    assert str(copy) in str(caught.value)


def test_missing_and_damaged_files_are_named(made, tmp_path):
    with pytest.raises(SettingsError, match="isn't a directory"):
        load_truth(tmp_path / "nothing")
    copy = tmp_path / "truth"
    shutil.copytree(made, copy)
    (copy / "subsets.npz").write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(SettingsError, match=r"subsets\.npz can't be read"):
        load_truth(copy)
    (copy / "subsets.npz").unlink()
    with pytest.raises(SettingsError, match=r"subsets\.npz is missing"):
        load_truth(copy)


def test_one_query_of_a_model_without_a_loss_is_refused(made, tmp_path):
    copy = tmp_path / "truth"
    shutil.copytree(made, copy)
    arrays = read_arrays(copy / "subsets.npz")
    arrays["losses"][0, 0, 1] = np.nan
    write_arrays(copy / "subsets.npz", arrays)
    with pytest.raises(SettingsError, match="NaN for all"):
        load_truth(copy)


def test_pictures_come_into_model_space_by_averaging_areas():
    picture = np.zeros((1, 4, 4, 3), np.uint8)
    picture[0, :2, :2] = 255
    found = model_space(picture, 2)
    assert found.shape == (1, 3, 2, 2)
    assert found[0, 0].tolist() == [[1, -1], [-1, -1]]
    assert model_space(np.zeros((2, 5, 5)), None).shape == (2, 1, 5, 5)
    with pytest.raises(SettingsError, match="channels"):
        model_space(np.zeros((1, 4, 4, 4)), None)
    with pytest.raises(SettingsError, match="within"):
        model_space(np.full((1, 4, 4, 3), 7.0), None)


def test_training_is_a_function_of_its_seed_and_learns():
    images = torch.from_numpy(model_space(np.tile(np.arange(8) * 30, (6, 8, 1)).astype(np.uint8), None))
    recipe = Recipe(widths=(8, 16), steps=60, batch_size=8)
    one, same = train(images, recipe, seed=1, steps=2), train(images, recipe, seed=1, steps=2)
    other = train(images, recipe, seed=2, steps=2)
    for a, b, c in zip(one.parameters(), same.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
        assert not torch.equal(a, c) or bool((a == a.flatten()[0]).all())
    config = LossConfig(timesteps=4, draws=1)
    before = losses_on(one, images, config)
    after = losses_on(train(images, recipe, seed=1), images, config)
    assert (after < 0.7 * before).all()


def test_training_leaves_the_callers_random_numbers_alone():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    train(torch.zeros(2, 1, 8, 8), RECIPE, seed=1, steps=1)
    assert torch.equal(torch.rand(1), expected)


def test_the_rate_warms_up_and_cools_down():
    recipe = Recipe(learning_rate=1.0)
    rates = [recipe.rate(step, 100) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == pytest.approx(1.0)
    assert rates.index(max(rates)) in (9, 10)
    assert rates[55] == pytest.approx(0.5, abs=0.01)
    assert 0 < rates[-1] < 0.001


@pytest.mark.parametrize("wrong", [{"widths": (12,)}, {"widths": ()}, {"steps": 0}, {"learning_rate": -1.0}])
def test_recipes_that_can_not_be_trained_are_refused(wrong):
    with pytest.raises(SettingsError):
        Recipe(**wrong)


def test_losses_are_a_loop_over_timesteps_noises_and_pictures(monkeypatch):
    torch.manual_seed(0)
    network = new_network((1, 8, 8), RECIPE).eval()
    images = torch.rand(5, 1, 8, 8) * 2 - 1
    config = LossConfig(timesteps=2, draws=2, seed=4)
    assert [t for t, _ in config.points()] == [250, 250, 750, 750]
    scheduler = new_scheduler()
    expected = torch.zeros(5)
    for t, draw in config.points():
        noise = torch.from_numpy(standard_normal(4, f"evaluation\nloss\n{t}\n{draw}", (1, 8, 8))).float()
        for place in range(5):
            x_t = scheduler.add_noise(images[place], noise, torch.tensor([t]))[None]
            with torch.no_grad():
                output = network(x_t.view(1, 1, 8, 8), t).sample[0]
            expected[place] += (output - noise).square().mean() / 4
    monkeypatch.setattr(training, "EVALUATION_BATCH", 2)
    assert torch.allclose(losses_on(network, images, config), expected, rtol=1e-4)


def test_a_generated_picture_does_not_depend_on_how_many_there_are():
    torch.manual_seed(0)
    network = new_network((1, 8, 8), RECIPE).eval()
    many = sample(network, new_scheduler(), (3, 1, 8, 8), seed=1, steps=4)
    few = sample(network, new_scheduler(), (1, 1, 8, 8), seed=1, steps=4)
    assert torch.allclose(many[:1], few, atol=1e-5)
    assert not torch.allclose(many[0], many[1], atol=1e-2)
    assert many.abs().max() <= 1


def test_the_plan_is_written_down(made):
    plan = json.loads((made / "plan.json").read_text())
    assert plan["recipe"]["widths"] == [8, 16]
    assert plan["subsets"] == 4
