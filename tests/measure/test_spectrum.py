"""The decomposed kernel against the library's factorised one."""

import numpy as np
import pytest
import torch

from das.kernel import KernelAccumulator, damped_kernel, effective_dimension_target, normalised
from measure.spectrum import Spectrum, rounded

K = 64


@pytest.fixture
def tensors():
    generator = torch.Generator().manual_seed(0)
    return (torch.randn(20, 3, K, generator=generator), torch.randn(4, 3, K, generator=generator))


@pytest.mark.parametrize("form", ["block", "mean"])
@pytest.mark.parametrize("dimension", [8, K])
@pytest.mark.parametrize("activation", [False, True])
def test_a_spectrum_gives_what_a_factorised_kernel_gives(tensors, form, dimension, activation):
    # 60 rows of 64 dimensions take the dual form, 60 of 8 the primal one; with averages 20 rows.
    works, queries = (normalised(values[..., :dimension]) for values in tensors)
    spectrum = Spectrum.of(works, queries, form, activation=activation)
    accumulator = KernelAccumulator(form, dimension)
    accumulator.add(works, torch.ones(20))
    kernel = damped_kernel(accumulator.matrix, 20.0, damping=0.1)
    means, asked = works.mean(1), queries.mean(1)
    expected = kernel.whiten(asked) @ kernel.whiten(means).T
    assert np.allclose(spectrum.products(0.1), expected, rtol=1e-3, atol=1e-6)
    leverage = (3 if form == "block" else 1) * kernel.whiten(means).square().sum(1)
    assert np.allclose(spectrum.leverage(0.1), leverage, rtol=1e-3)
    assert np.allclose(spectrum.solved_norms(0.1), kernel.solve(means).norm(dim=1), rtol=1e-3)
    assert np.allclose(spectrum.norms(), means.norm(dim=1), rtol=1e-4)
    among = kernel.whiten(means) @ kernel.whiten(means).T
    assert spectrum.mean_square(0.1) == pytest.approx(float(among.square().mean()), rel=1e-3)
    target = effective_dimension_target(form, 20, 3, dimension, activation=activation)
    by_rule = damped_kernel(accumulator.matrix, 20.0, target=target)
    assert spectrum.default_damping() * spectrum.unit == pytest.approx(by_rule.damping, rel=1e-3)


def test_half_precision_changes_products_a_little_and_never_underflows(tensors):
    spectrum = Spectrum.of(*tensors, "block")
    exact, half = spectrum.products(0.1), spectrum.products(0.1, "float16")
    assert not np.array_equal(exact, half)
    assert np.allclose(exact, half, atol=2e-3 * np.abs(exact).max())
    eight = spectrum.products(0.1, "int8")
    assert not np.array_equal(eight, half)
    assert np.allclose(exact, eight, atol=3e-2 * np.abs(exact).max())
    tiny = torch.full((2, 2), 1e-30, dtype=torch.float64)
    assert torch.allclose(rounded(tiny, "float16"), tiny, rtol=1e-3)
