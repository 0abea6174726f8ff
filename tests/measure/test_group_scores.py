"""How estimators rank groups: predictions, targets and figures, on a truth that is made and on small numbers."""

import dataclasses

import numpy as np
import pytest
import torch

from measure.group_scores import DEFAULT, GroupComparison, Target, _first_agrees, _ndcg, _reciprocal_ranks
from measure.groups import GroupPlan, GroupTruth, make_groups
from measure.methods import Variant
from measure.scores import Options, Study
from measure.source import Source
from measure.training import LossConfig, Recipe

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


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> GroupTruth:
    pictures = np.random.default_rng(0).integers(0, 256, size=(30, 8, 8, 1), dtype=np.uint8)
    made = make_groups(
        Source(pictures, np.zeros(30), None, None), tmp_path_factory.mktemp("groups") / "truth", PLAN
    )
    repeats = np.random.default_rng(1).integers(1, 4, size=len(made.works))
    return dataclasses.replace(made, repeats=repeats)


@pytest.fixture(scope="module")
def comparison(truth: GroupTruth) -> GroupComparison:
    options = Options((0, 300, 600), 64, feature_dtype="float32")
    control = dataclasses.replace(options, untrained=True)
    return GroupComparison(Study(truth, options), Study(truth, control))


def test_every_way_has_a_row_with_both_targets(comparison: GroupComparison):
    rows = comparison.rows()
    labels = [row["label"] for row in rows]
    assert len(set(labels)) == len(labels)
    skipped = [row["label"] for row in rows if "skipped" in row]
    assert skipped == ["clip-cosine, sum", "clip-cosine, largest"]
    for row in rows:
        if "skipped" in row:
            continue
        for name in ("loss", "loss_validation", "loss_generated", "prediction", "prediction_generated"):
            assert row[f"{name}_low"] <= row[name] <= row[f"{name}_high"]
            assert 0 <= row[f"{name}_top1"] <= row[f"{name}_mrr"] <= 100
            assert 0 <= row[f"{name}_ndcg3"] <= 100 + 1e-9
    by_label = {row["label"]: row for row in rows}
    default = by_label[f"{DEFAULT.label}, sum"]
    assert default["loss_lead"] == default["loss_lead_low"] == 0
    other = by_label["trak, sum"]
    assert other["loss_lead"] == pytest.approx(default["loss"] - other["loss"])
    assert any(label.startswith("untrained") for label in labels)


def test_the_sum_is_over_the_works_of_each_group(comparison: GroupComparison, truth: GroupTruth):
    scores = comparison.study.scores(DEFAULT)
    found = comparison._predicted(comparison.study, DEFAULT, "sum")
    largest = comparison._predicted(comparison.study, DEFAULT, "largest")
    mean = comparison._predicted(comparison.study, DEFAULT, "mean")
    for group in range(5):
        of_group = scores[:, truth.groups == group]
        np.testing.assert_allclose(found[:, group], of_group.sum(1))
        np.testing.assert_allclose(largest[:, group], of_group.max(1))
        np.testing.assert_allclose(mean[:, group], of_group.mean(1))


def test_the_rise_of_the_variance_is_that_of_the_kernel_without_the_group(
    comparison: GroupComparison, truth: GroupTruth
):
    """The kernel of averages: `qᵀ(H - Σ_G w f fᵀ)⁻¹q - qᵀH⁻¹q`, in units of the mean square."""
    variant = Variant("das-block", ("loss",), normalised=True)
    [spectrum] = comparison.study.spectra(variant)
    damping = spectrum.default_damping()
    kernel = torch.diag(spectrum.values + damping * spectrum.unit)
    found = comparison._variance_rises(variant)

    def variances(matrix: torch.Tensor) -> np.ndarray:
        return (spectrum.queries * torch.linalg.solve(matrix, spectrum.queries.T).T).sum(1).numpy()

    for group in range(5):
        rows = spectrum.works[torch.from_numpy(truth.groups == group)]
        weights = torch.from_numpy(truth.repeats[truth.groups == group]).to(rows)
        rise = variances(kernel - rows.T @ (rows * weights[:, None])) - variances(kernel)
        np.testing.assert_allclose(found[:, group], rise / spectrum.mean_square(damping), rtol=1e-6)


def test_the_reliability_of_a_target_is_that_of_its_halves():
    effects = np.random.default_rng(0).normal(size=(6, 4))
    same = Target("loss", effects, np.stack([effects, effects]))
    assert same.reliability(np.arange(4)) == pytest.approx((1, 1))
    assert Target("loss", effects, np.stack([effects, -effects])).reliability(np.arange(4))[1] == 0
    assert Target("loss", effects, None).reliability(np.arange(4)) == (None, None)
    half = Target("loss", effects, np.stack([effects, effects[[1, 0, 2, 3, 4, 5]]]))
    one, whole = half.reliability(np.array([0]))
    assert whole == pytest.approx((2 * one / (1 + one)) ** 0.5)


def test_first_places():
    effects = np.array([[3.0, 2, -1, 0], [0, 5, 0, 0]])
    predicted = np.array([[1.0, 9, 8, 0], [0, 2, 1, 0]])
    assert _first_agrees(predicted, effects).tolist() == [False, True]
    assert _reciprocal_ranks(predicted, effects).tolist() == [1 / 3, 1]
    discounts = 1 / np.log2([2, 3, 4])
    expected = (2 * discounts[0] + 0 * discounts[1] + 3 * discounts[2]) / (
        3 * discounts[0] + 2 * discounts[1]
    )
    assert _ndcg(predicted, effects) == pytest.approx([expected, 1])
    assert _ndcg(predicted, -np.abs(effects)).tolist() == [0, 0]
