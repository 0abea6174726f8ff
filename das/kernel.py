"""The kernel: accumulate `K = Σ w φφᵀ`, damp it, factorise `H = K + λI = LLᵀ`, whiten, leverage.

Features are normalised timestep by timestep, `f_{i,t} = φ_{i,t}/‖φ_{i,t}‖` (TRAK and its kin take them plain,
`f_{i,t} = φ_{i,t}`), and averaged, `f̄_i = (1/T) Σ_t f_{i,t}`. Two forms of kernel (METHOD, sections 2 and 4):

- "block": `K = Σ_i w_i Σ_t f_{i,t} f_{i,t}ᵀ`, used by DAS-block;
- "mean": `K = Σ_i w_i f̄_i f̄_iᵀ`, the paper's (Eq. 17 and 18).

All sums and factors are float64.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from das.errors import SettingsError

SummedForm = Literal["block", "mean"]


def normalised(features: Tensor) -> Tensor:
    """`f_{i,t} = φ_{i,t}/‖φ_{i,t}‖` of features (B, T, k); a gradient that is zero stays zero."""
    norms = torch.linalg.vector_norm(features, dim=-1, keepdim=True)
    unit: Tensor = features / torch.where(norms > 0, norms, torch.ones_like(norms))
    return unit


def prepared(features: Tensor, *, normalise: bool) -> Tensor:
    """The features (B, T, k) as a feature set takes them: each timestep normalised (Eq. 17), or plain."""
    return normalised(features) if normalise else features


class KernelAccumulator:
    """Sums a kernel over works, a batch at a time."""

    def __init__(self, form: SummedForm, dimension: int) -> None:
        """Start at zero with a k × k float64 sum."""
        self.form = form
        self.matrix = torch.zeros(dimension, dimension, dtype=torch.float64)
        self.total_weight = 0.0

    def add(self, features: Tensor, weights: Tensor) -> None:
        """Add works with features (B, T, k), as `prepared`, trained on `weights` (B,) times each."""
        rows = features * weights.to(features).sqrt()[:, None, None]
        rows = rows.flatten(0, 1) if self.form == "block" else rows.mean(1)
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
        columns: Tensor = torch.linalg.solve_triangular(self.factor, features.to(self.factor).T, upper=False)
        return columns.T

    def solve(self, features: Tensor) -> Tensor:
        """`H⁻¹ f` for features (B, k), as (B, k) float64."""
        return torch.cholesky_solve(features.to(self.factor).T, self.factor).T


BLOCK_SHARE, ACTIVATION_SHARE, BLOCK_GROWTH = 0.27, 0.15, 0.45
MEAN_SHARE, SIGNED_SHARE = 0.18, 0.30
_FILLED = 0.9
USUAL_GAP = 0.048
"""Gap of the models that the shares were found on (decision 9)."""
GAP_FACTOR = 4.0


def effective_dimension_target(
    form: SummedForm,
    works: int,
    timesteps: int,
    dimension: int,
    *,
    signed: bool = False,
    activation: bool = False,
    gap: float | None = None,
) -> float:
    """The effective dimension `d_λ` that the damping is chosen for, without retraining (docs/method.md).

    `d* = ((c N)⁻² + (0.9 k)⁻²)^(-1/2)` with c = 0.27 T^0.45 for the block kernel of gradients, and 0.15 T^0.45 for
    that of activations, whose first directions all works share. For the kernel of averages c = 0.18, or 0.30 where
    its scores are used with their sign (TRAK and its kin). What the best λ had in common over probes, sketch
    dimensions and timesteps is not its size in units of the trace, which spans two decades, but that the kernel then
    resolves a fixed part of a direction per work, as far as the sketch has room.

    Args:
        works: N, different works; those with the same bytes and prompt count once.
        timesteps: T, rows a work has in the block kernel.
        dimension: k.
        signed: whether scores are linear in the inner products, not squared.
        activation: whether the features are activations, not gradients.
        gap: by what part the model's error on its works is smaller than on held-out pictures; None: not measured.
            The optimism of a training error is its effective degrees of freedom for each observation (Efron 2004),
            so c is taken in proportion to it, up to a factor of `GAP_FACTOR` each way (decision 22: fitted on four
            ground truths, and not confirmed by a fifth).
    """
    share = (ACTIVATION_SHARE if activation else BLOCK_SHARE) * timesteps**BLOCK_GROWTH
    if form == "mean":
        share = SIGNED_SHARE if signed else MEAN_SHARE
    if gap is not None:
        share *= min(max(gap / USUAL_GAP, 1 / GAP_FACTOR), GAP_FACTOR)
    return float(((share * works) ** -2 + (_FILLED * dimension) ** -2) ** -0.5)


def damping_for(eigenvalues: Tensor, target: float) -> float:
    """The λ with `tr K(K+λI)⁻¹ = target`, from the eigenvalues (k,) float64 of K.

    Where K has too few directions for the target, λ is as small as factorising in double precision allows.
    """
    values = eigenvalues.clamp_min(0)
    low, high = float(values.max()) * _LEAST, float(values.sum())
    if float((values / (values + low)).sum()) <= target:
        return low
    while float((values / (values + high)).sum()) > target:
        high *= 10
    for _ in range(_BISECTIONS):
        middle = (low * high) ** 0.5
        if float((values / (values + middle)).sum()) > target:
            low = middle
        else:
            high = middle
    return float((low * high) ** 0.5)


_LEAST = 1e-10
_BISECTIONS = 60


def damped_kernel(
    matrix: Tensor, total_weight: float, *, damping: float | None = None, target: float | None = None
) -> Kernel:
    """Damp and factorise a kernel sum (k, k) float64 over `total_weight` = `Σ w_i` rows.

    Args:
        damping: λ in units of `tr(K)/N`, N counting a work as often as it was trained on; or
        target: the effective dimension to choose λ for, see `effective_dimension_target`. One of both.

    Raises:
        SettingsError: the kernel is zero, or too ill-conditioned to factorise with this damping.
    """
    dimension = len(matrix)
    trace = float(matrix.trace())
    if not trace > 0 or total_weight <= 0:
        raise SettingsError("All gradients are zero: the attributed parameters have no effect on the output.")
    # Left and right halves of a product differ in the last bit; the factorisation wants exact symmetry.
    damped = (matrix + matrix.T) / 2
    if damping is not None:
        ridge = damping * trace / total_weight
    elif target is not None:
        ridge = damping_for(torch.linalg.eigvalsh(damped), target)
    else:
        raise ValueError("give damping or target")
    damped.diagonal().add_(ridge)
    factor, failed = torch.linalg.cholesky_ex(damped)
    if int(failed):
        relative = ridge * total_weight / trace
        raise SettingsError(
            f"The kernel can't be factorised with a damping of {relative:g}; "
            f"use a larger one, such as {relative * 10:g}."
        )
    inverse = torch.linalg.solve_triangular(factor, torch.eye(dimension, dtype=torch.float64), upper=False)
    effective = dimension - ridge * float(inverse.square().sum())
    return Kernel(factor, ridge, effective)
