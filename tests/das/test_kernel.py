"""Kernel sums, damping, whitening and leverage against dense float64 algebra; DAS against real leave-one-out."""

import numpy as np
import pytest
import torch

from das.errors import SettingsError
from das.estimators import das_block_scores, das_scores, residual_weights
from das.kernel import (
    GAP_FACTOR,
    USUAL_GAP,
    KernelAccumulator,
    damped_kernel,
    damping_for,
    effective_dimension_target,
    normalised,
)


def features(works: int = 12, steps: int = 3, dimension: int = 5, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(works, steps, dimension, generator=generator, dtype=torch.float64)


def dense_kernel(phi: np.ndarray, weights: np.ndarray, form: str) -> np.ndarray:
    """K by its definition, one outer product at a time."""
    kernel = np.zeros((phi.shape[2], phi.shape[2]))
    for work, weight in zip(phi, weights, strict=True):
        units = [row / np.linalg.norm(row) for row in work]
        rows = units if form == "block" else [np.mean(units, axis=0)]
        kernel += weight * sum(np.outer(row, row) for row in rows)
    return kernel


@pytest.mark.parametrize("form", ["block", "mean"])
def test_the_sum_is_the_definition_whatever_the_batches(form):
    phi, weights = features(), torch.tensor([1.0, 40.0, 2.0] * 4)
    once, pieces = KernelAccumulator(form, 5), KernelAccumulator(form, 5)
    once.add(normalised(phi), weights)
    for start in (0, 5, 6):
        end = {0: 5, 5: 6, 6: 12}[start]
        pieces.add(normalised(phi[start:end]), weights[start:end])
    np.testing.assert_allclose(
        once.matrix.numpy(), dense_kernel(phi.numpy(), weights.numpy(), form), rtol=1e-12
    )
    torch.testing.assert_close(pieces.matrix, once.matrix, rtol=1e-12, atol=1e-12)
    assert once.total_weight == pieces.total_weight == 172.0


@pytest.mark.parametrize("form", ["block", "mean"])
def test_a_repeated_work_counts_like_so_many_rows(form):
    phi = features(3)
    weighted, rows = KernelAccumulator(form, 5), KernelAccumulator(form, 5)
    weighted.add(normalised(phi), torch.tensor([3.0, 1.0, 2.0]))
    rows.add(normalised(phi[[0, 0, 0, 1, 2, 2]]), torch.ones(6))
    torch.testing.assert_close(weighted.matrix, rows.matrix, rtol=1e-12, atol=1e-12)
    assert weighted.total_weight == rows.total_weight


def test_damping_is_relative_to_trace_over_weight_and_the_rest_follows():
    phi, weights = features(), torch.full((12,), 2.0)
    kernel = KernelAccumulator("block", 5)
    kernel.add(normalised(phi), weights)
    damped = damped_kernel(kernel.matrix, kernel.total_weight, damping=0.5)
    # Unit features: the trace is T for every row, so λ = 0.5 · 3.
    assert damped.damping == pytest.approx(1.5, rel=1e-12)
    dense = dense_kernel(phi.numpy(), weights.numpy(), "block")
    H = dense + 1.5 * np.eye(5)
    np.testing.assert_allclose((damped.factor @ damped.factor.T).numpy(), H, rtol=1e-10, atol=1e-12)
    assert damped.effective_dimension == pytest.approx(np.trace(dense @ np.linalg.inv(H)), rel=1e-10)
    mean = normalised(phi).mean(1).numpy()
    white = damped.whiten(normalised(phi).mean(1)).numpy()
    np.testing.assert_allclose(white @ white.T, mean @ np.linalg.inv(H) @ mean.T, rtol=1e-9, atol=1e-12)


def test_the_rule_resolves_a_part_of_a_direction_per_work_within_the_sketch():
    # Plenty of room: c N. Little room: 0.9 k.
    assert effective_dimension_target("mean", 1000, 10, 10**6) == pytest.approx(180, rel=1e-3)
    assert effective_dimension_target("block", 1000, 10, 10**6) == pytest.approx(270 * 10**0.45, rel=1e-3)
    assert effective_dimension_target("block", 10**7, 10, 1024) == pytest.approx(0.9 * 1024, rel=1e-3)
    activations = effective_dimension_target("block", 1000, 10, 10**6, activation=True)
    assert activations == pytest.approx(150 * 10**0.45, rel=1e-3)


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_the_rules_damping_follows_the_size_of_the_kernel(scale):
    values = torch.tensor([1.0, 0.3, 0.01, 0.0], dtype=torch.float64)
    assert damping_for(scale * values, 1.5) == pytest.approx(scale * damping_for(values, 1.5), rel=1e-9)


@pytest.mark.parametrize("target", [0.5, 2.0, 4.5])
def test_damping_reaches_the_effective_dimension_asked_for(target):
    kernel = KernelAccumulator("block", 5)
    kernel.add(normalised(features()), torch.ones(12))
    damped = damped_kernel(kernel.matrix, 12.0, target=target)
    assert damped.effective_dimension == pytest.approx(target, rel=1e-9)


def test_a_kernel_of_too_few_directions_for_the_target_is_still_factorised():
    kernel = KernelAccumulator("mean", 5)
    kernel.add(normalised(features(2)), torch.ones(2))
    damped = damped_kernel(kernel.matrix, 2.0, target=4.0)
    assert damped.effective_dimension == pytest.approx(2, rel=1e-6)
    assert torch.isfinite(damped.factor).all()


def test_normalisation_is_per_timestep_and_leaves_a_zero_gradient_zero():
    phi = features(2)
    phi[0, 1] = 0
    units = normalised(phi)
    lengths = torch.linalg.vector_norm(units, dim=-1)
    torch.testing.assert_close(lengths, torch.tensor([[1.0, 0.0, 1.0], [1.0, 1.0, 1.0]]).double())
    # Eq. 17: a timestep's size must not matter, only its direction.
    scaled = phi * torch.tensor([1.0, 1e4, 1e-4]).view(1, 3, 1)
    torch.testing.assert_close(normalised(scaled).mean(1), normalised(phi).mean(1))


def test_a_kernel_without_gradients_is_refused():
    with pytest.raises(SettingsError, match="All gradients are zero"):
        damped_kernel(torch.zeros(3, 3, dtype=torch.float64), 4.0, damping=0.1)


def test_a_damping_too_small_to_factorise_is_refused_with_a_remedy():
    row = torch.ones(1, 1, 40, dtype=torch.float64)
    kernel = KernelAccumulator("block", 40)
    kernel.add(row, torch.ones(1))
    with pytest.raises(SettingsError, match="use a larger one"):
        damped_kernel(kernel.matrix, 1.0, damping=1e-300)


def ridge(J: np.ndarray, y: np.ndarray, weights: np.ndarray, damping: float) -> np.ndarray:
    """Minimiser of `Σ w_i ‖J_i θ - y_i‖² + λ‖θ‖²` for J (N, d, p), y (N, d)."""
    p = J.shape[2]
    H = np.einsum("n,ndp,ndq->pq", weights, J, J) + damping * np.eye(p)
    return np.linalg.solve(H, np.einsum("n,ndp,nd->p", weights, J, y))


def test_das_is_exact_leave_one_out_on_a_model_linear_in_its_parameters():
    """Eq. 16 with one output: the squared change of the prediction after really refitting without work i."""
    random = np.random.default_rng(0)
    J, y, query = random.normal(size=(9, 1, 4)), random.normal(size=(9, 1)), random.normal(size=(2, 4))
    weights, damping = np.array([1.0, 1, 5, 1, 2, 1, 1, 1, 1]), 0.3
    fitted = ridge(J, y, weights, damping)
    H = np.einsum("n,nop,noq->pq", weights, J, J) + damping * np.eye(4)
    inverse = np.linalg.inv(H)
    residuals = (J @ fitted - y)[:, 0]
    products = query @ inverse @ J[:, 0].T
    leverage = np.einsum("np,pq,nq->n", J[:, 0], inverse, J[:, 0])
    scores = das_scores(products, leverage, residuals, weights, weights)
    for i in range(9):
        without = weights.copy()
        without[i] = 0  # leaving a work out removes all its repeats
        change = query @ (fitted - ridge(J, y, without, damping))
        # The score doesn't count them once more (docs/decisions/0018).
        np.testing.assert_allclose(scores[:, i] * weights[i] ** 2, change**2, rtol=1e-9)


def test_the_exact_step_with_all_outputs_is_leave_one_out():
    """METHOD, section 2: `H⁻¹ J_iᵀ (I - J_i H⁻¹ J_iᵀ)⁻¹ r_i` equals refitting without work i."""
    random = np.random.default_rng(1)
    J, y = random.normal(size=(7, 3, 5)), random.normal(size=(7, 3))
    fitted = ridge(J, y, np.ones(7), 0.2)
    inverse = np.linalg.inv(np.einsum("nop,noq->pq", J, J) + 0.2 * np.eye(5))
    for i in range(7):
        without = np.ones(7)
        without[i] = 0
        step = inverse @ J[i].T @ np.linalg.solve(np.eye(3) - J[i] @ inverse @ J[i].T, J[i] @ fitted - y[i])
        np.testing.assert_allclose(ridge(J, y, without, 0.2), fitted + step, rtol=1e-9)


def test_das_block_grows_with_the_repeats_to_the_power_of_three_fifths():
    products, repeats, none = np.array([[0.5, -2.0, 0.1]]), np.array([1, 32, 243]), np.zeros(3)
    np.testing.assert_allclose(das_block_scores(products, none, repeats, repeats), [[0.25, 32.0, 0.27]])


def test_das_block_but_for_the_power_is_the_rise_of_the_variance_when_a_work_is_left_out():
    """Of works whose features are alike at all timesteps, the largest repeat of which rules its direction."""
    random = np.random.default_rng(3)
    timesteps, repeats = 5, np.array([1, 1, 2, 40])
    works, query = random.normal(size=(4, 6)), random.normal(size=6)

    def variance(counts: np.ndarray) -> float:
        kernel = timesteps * (works.T * counts) @ works + 0.5 * np.eye(6)
        return float(query @ np.linalg.solve(kernel, query))

    inverse = np.linalg.inv(timesteps * (works.T * repeats) @ works + 0.5 * np.eye(6))
    leverage = timesteps * np.diag(works @ inverse @ works.T)
    assert (repeats * leverage)[3] > 0.9
    scores = das_block_scores((query @ inverse @ works.T)[None], leverage, repeats, repeats)[0]
    rises = [variance(repeats * (np.arange(4) != work)) - variance(repeats) for work in range(4)]
    np.testing.assert_allclose(timesteps * scores * repeats**0.4, rises, rtol=1e-9)


@pytest.mark.parametrize("with_residuals", [False, True])
def test_the_same_stream_gives_the_same_scores_as_repeats_or_as_copies(with_residuals):
    """One work 5 times, or as entries of 1, 1 and 3 times: together they score what the one scores."""
    whole, copies = np.array([5]), np.array([1, 1, 3])
    each = np.full(3, 0.7)

    def scores(products: np.ndarray, repeats: np.ndarray, content: np.ndarray) -> np.ndarray:
        same = np.ones(len(repeats))
        if not with_residuals:
            return das_block_scores(products, 0.1 * same, repeats, content)
        return das_scores(products, 0.1 * same, 1.3 * same, repeats, content)

    together = scores(each[:1][None], whole, whole)
    apart = scores(each[None], copies, np.full(3, 5))
    np.testing.assert_allclose(apart.sum(), together.sum())
    np.testing.assert_allclose(apart / apart.sum(), [[0.2, 0.2, 0.6]])


def test_residual_weights_are_dimensionless_and_grow_with_the_works_own_residual():
    rms = np.array([[0.1, 10.0], [0.2, 10.0], [0.3, 40.0]])
    once = np.ones(3)
    weights = residual_weights(rms, once)
    np.testing.assert_allclose(weights, [(0.5 + 0.5) / 2, (1 + 0.5) / 2, (1.5 + 2) / 2])
    np.testing.assert_allclose(residual_weights(rms * [1e-3, 1e3], once), weights)
    grown = rms.copy()
    grown[0] *= 2
    assert residual_weights(grown, once)[0] > weights[0]
    twice = residual_weights(rms, np.array([1, 2, 1]))
    np.testing.assert_allclose(twice, residual_weights(rms[[0, 1, 1, 2]], np.ones(4))[[0, 1, 3]])


def test_the_target_follows_how_well_the_model_knows_its_works() -> None:
    """In proportion to the gap, up to a factor each way; without one it is the rule's."""
    rule = effective_dimension_target("block", 1000, 10, 10**6)
    assert effective_dimension_target("block", 1000, 10, 10**6, gap=USUAL_GAP) == pytest.approx(rule)
    half = effective_dimension_target("block", 1000, 10, 10**6, gap=USUAL_GAP / 2)
    assert half == pytest.approx(rule / 2, rel=1e-3)
    for gap in (-0.3, 0.0, 1e-9):
        found = effective_dimension_target("block", 1000, 10, 10**6, gap=gap)
        assert found == pytest.approx(rule / GAP_FACTOR, rel=1e-3)
    assert effective_dimension_target("block", 1000, 10, 10**6, gap=0.9) == pytest.approx(
        GAP_FACTOR * rule, rel=1e-3
    )
