"""The kernel: accumulate `K = Σ w φφᵀ`, damp it, factorise `H = K + λI = LLᵀ`, whiten, leverage.

Features are normalised timestep by timestep, `f_{i,t} = φ_{i,t}/‖φ_{i,t}‖`, and averaged, `f̄_i = (1/T) Σ_t f_{i,t}`.
Two forms of kernel (METHOD, sections 2 and 4):

- "block": `K = Σ_i w_i Σ_t f_{i,t} f_{i,t}ᵀ`, used by DAS-block;
- "mean": `K = Σ_i w_i f̄_i f̄_iᵀ`, the paper's (Eq. 17 and 18).

All sums and factors are float64.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from das.errors import SettingsError

KernelForm = Literal["block", "mean"]


def normalised(features: Tensor) -> Tensor:
    """`f_{i,t} = φ_{i,t}/‖φ_{i,t}‖` of features (B, T, k); a gradient that is zero stays zero."""
    norms = torch.linalg.vector_norm(features, dim=-1, keepdim=True)
    return features / torch.where(norms > 0, norms, torch.ones_like(norms))


def averaged(features: Tensor) -> Tensor:
    """`f̄_i = (1/T) Σ_t φ_{i,t}/‖φ_{i,t}‖`, (B, k), of features (B, T, k) (Eq. 17)."""
    return normalised(features).mean(1)


class KernelAccumulator:
    """Sums a kernel over works, a batch at a time."""

    def __init__(self, form: KernelForm, dimension: int) -> None:
        """Start at zero with a k × k float64 sum."""
        self.form = form
        self.matrix = torch.zeros(dimension, dimension, dtype=torch.float64)
        self.total_weight = 0.0

    def add(self, features: Tensor, weights: Tensor) -> None:
        """Add works with features (B, T, k), not normalised, trained on `weights` (B,) times each."""
        if self.form == "block":
            rows = normalised(features)
            rows = rows * weights.to(rows).sqrt()[:, None, None]
            rows = rows.flatten(0, 1)
        else:
            rows = averaged(features)
            rows = rows * weights.to(rows).sqrt()[:, None]
        # The product runs in the features' own precision, which is much faster; the sum is float64.
        self.matrix += (rows.T @ rows).to("cpu", torch.float64)
        self.total_weight += float(weights.sum())


@dataclass(frozen=True)
class Kernel:
    """A damped kernel, factorised.

    Attributes:
        factor: L, lower triangular, (k, k) float64, with `LLᵀ = K + λI`.
        damping: λ itself, not relative.
        effective_dimension: `d_λ = tr K(K + λI)⁻¹`, between 0 and k.
    """

    factor: Tensor
    damping: float
    effective_dimension: float

    def whiten(self, features: Tensor) -> Tensor:
        """`L⁻¹ f` for features (B, k), as (B, k) float64: inner products of these are `fᵀH⁻¹f'`."""
        return torch.linalg.solve_triangular(self.factor, features.to(self.factor).T, upper=False).T

    def leverage(self, features: Tensor) -> Tensor:
        """`h_i = f_iᵀ H⁻¹ f_i` of features (B, k), (B,) float64."""
        return self.whiten(features).square().sum(1)


def relative_damping(dimension: int) -> float:
    """The default λ in units of `tr(K)/N`: 1e-2 at k = 4096, in proportion to k below and above.

    Chosen without retraining, from the block kernel's optimum at several k (docs/method.md).
    """
    return 1e-2 * dimension / 4096


def damped_kernel(matrix: Tensor, total_weight: float, damping: float | None = None) -> Kernel:
    """Damp and factorise a kernel sum (k, k) float64 over `total_weight` = `Σ w_i` rows.

    Args:
        damping: λ in units of `tr(K)/N`, N counting a work as often as it was trained on; None for the rule.

    Raises:
        SettingsError: the kernel is zero, or too ill-conditioned to factorise with this damping.
    """
    dimension = len(matrix)
    trace = float(matrix.trace())
    if not trace > 0 or total_weight <= 0:
        raise SettingsError("All gradients are zero: the attributed parameters have no effect on the output.")
    relative = relative_damping(dimension) if damping is None else damping
    ridge = relative * trace / total_weight
    # Left and right halves of a product differ in the last bit; the factorisation wants exact symmetry.
    damped = (matrix + matrix.T) / 2
    damped.diagonal().add_(ridge)
    factor, failed = torch.linalg.cholesky_ex(damped)
    if int(failed):
        raise SettingsError(
            f"The kernel can't be factorised with a damping of {relative:g}; "
            f"use a larger one, such as {relative * 10:g}."
        )
    inverse = torch.linalg.solve_triangular(factor, torch.eye(dimension, dtype=torch.float64), upper=False)
    effective = dimension - ridge * float(inverse.square().sum())
    return Kernel(factor, ridge, effective)
