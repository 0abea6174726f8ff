"""Ground truths of groups: the groups, the models without each, and the effects that are read from them."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from das.errors import DasError, SettingsError
from das.models import load_model
from measure.grouping import grouped
from measure.groups import GroupPlan, GroupTruth, load_groups, make_groups
from measure.source import Source
from measure.training import LossConfig, Recipe, losses_on
from measure.truth import read_arrays, write_arrays

PLAN = GroupPlan(
    count=24,
    validation=3,
    generated=2,
    alike=3,
    mixed=2,
    seeds=2,
    sampling_steps=3,
    recipe=Recipe(widths=(8, 16), steps=6, full_steps=6, batch_size=4, learning_rate=1e-2),
    losses=LossConfig(timesteps=2, draws=1),
)


def source() -> Source:
    pictures = np.random.default_rng(0).integers(0, 256, size=(30, 8, 8, 1), dtype=np.uint8)
    return Source(pictures, np.zeros(30), None, None)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> GroupTruth:
    return make_groups(source(), tmp_path_factory.mktemp("groups") / "truth", PLAN)


def test_every_work_is_in_one_group_and_those_alike_are_together():
    random = np.random.default_rng(3)
    centres = random.normal(size=(4, 1, 4, 4)) * 5
    works = np.concatenate([centre + random.normal(size=(30, 1, 4, 4)) * 0.1 for centre in centres])
    groups = grouped(works.astype(np.float32), alike=4, mixed=2, seed=1)
    sizes = np.bincount(groups)
    assert len(sizes) == 6
    assert sizes[4:].sum() == 40
    assert sizes[4:].min() >= 3
    true = np.repeat(np.arange(4), 30)
    for group in range(4):
        assert len(set(true[groups == group])) == 1
    assert all(len(set(true[groups == group])) > 1 for group in (4, 5))
    assert np.array_equal(groups, grouped(works.astype(np.float32), alike=4, mixed=2, seed=1))


def test_the_effects_are_differences_to_the_models_that_lack_nothing(made: GroupTruth):
    groups = made.groups.max() + 1
    assert made.without.tolist() == [[False] * groups, *np.eye(groups, dtype=bool).tolist()]
    expected = made.losses[1:] - made.losses[:1]
    np.testing.assert_allclose(made.loss_effects(), expected, atol=1e-6)
    assert np.abs(expected).max() > 1e-3


def test_what_moved_is_the_mean_product_of_the_changes_of_two_seeds(made: GroupTruth):
    def predictions(name: str, seed: int) -> np.ndarray:
        return read_arrays(made.directory / "runs" / f"without-{name}-seed-{seed}.npz")["predictions"]

    changes = [predictions("001", seed).astype(float) - predictions("none", seed) for seed in (0, 1)]
    expected = [[(a * b).mean((0, 2, 3, 4)) for b in changes] for a in changes]
    np.testing.assert_allclose(made.moved[2], expected, rtol=1e-3, atol=1e-7)
    np.testing.assert_allclose(made.prediction_effects()[1], expected[0][1], rtol=1e-3, atol=1e-7)
    assert (made.moved[0] == 0).all()


def test_the_attributed_model_is_the_first_that_lacks_nothing(made: GroupTruth):
    network = load_model(str(made.pipeline)).network
    losses = losses_on(network, torch.from_numpy(made.queries), PLAN.losses).numpy()
    np.testing.assert_allclose(losses, made.losses[0, 0], rtol=1e-4)


def test_it_goes_on_where_it_was_and_with_several_processes(made: GroupTruth, tmp_path: Path):
    said: list[str] = []
    (made.directory / "groups.npz").unlink()
    make_groups(source(), made.directory, PLAN, say=said.append)
    assert said == ["0 of 12 models to train"]
    (made.directory / "groups.npz").unlink()
    lost = made.directory / "runs" / "without-002-seed-1.npz"
    before = read_arrays(lost)["losses"]
    lost.unlink()
    make_groups(source(), made.directory, PLAN, workers=2)
    np.testing.assert_allclose(read_arrays(lost)["losses"], before, rtol=1e-5)


def test_a_finished_one_is_kept_without_the_pictures_of_the_source(made: GroupTruth, tmp_path: Path):
    copy, drawn = tmp_path / "truth", ("works.npz", "queries.npz")
    shutil.copytree(made.directory, copy, ignore=shutil.ignore_patterns("runs", *drawn))
    make_groups(source(), copy, PLAN)
    assert not (copy / "runs").exists()
    for name in drawn:
        assert (copy / name).read_bytes() == (made.directory / name).read_bytes()


def test_effects_of_models_that_lack_several_groups_are_fitted(tmp_path: Path):
    without = np.array([[0, 0, 0], [1, 1, 0], [0, 1, 1], [1, 0, 1]], bool)
    effects = np.array([[1.0, 2], [3, -1], [0.5, 0.25]])
    losses = (5 + without @ effects)[:, None].astype(np.float32)
    truth = GroupTruth(tmp_path, *(np.zeros(2) for _ in range(5)), without, losses, np.zeros((4, 1, 1, 2)))
    np.testing.assert_allclose(truth.loss_effects()[:, 0], effects, atol=1e-5)
    assert np.isnan(truth.prediction_effects()).all()


def test_a_wrong_file_is_refused_with_what_is_wrong(made: GroupTruth, tmp_path: Path):
    copy = Path(shutil.copytree(made.directory, tmp_path / "copy"))
    arrays = read_arrays(copy / "groups.npz")
    for name, value, message in (
        ("without", ~arrays["without"], "first all False"),
        ("losses", arrays["losses"][:, :, :2], "don't fit"),
        ("moved", arrays["moved"][:, :1], "don't fit"),
    ):
        write_arrays(copy / "groups.npz", arrays | {name: value})
        with pytest.raises(SettingsError, match=message):
            load_groups(copy)
    with pytest.raises(SettingsError, match="isn't a directory"):
        load_groups(tmp_path / "nowhere")
    with pytest.raises(SettingsError, match="two groups"):
        GroupPlan(alike=1, mixed=0)
    with pytest.raises(SettingsError, match="another plan"):
        make_groups(source(), made.directory, GroupPlan(**{**vars(PLAN), "alike": 2}))


def test_a_model_that_diverges_is_named(made: GroupTruth, tmp_path: Path):
    recipe = Recipe(widths=(8, 16), steps=3, full_steps=3, batch_size=4, learning_rate=1e30)
    plan = GroupPlan(**{**vars(PLAN), "recipe": recipe, "generated": 0})
    with pytest.raises(DasError, match="without-none-seed-0 diverged"):
        make_groups(source(), tmp_path / "truth", plan)
