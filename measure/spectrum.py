"""One kernel for a whole grid of λ: decompose `K = V diag(s) Vᵀ` once, then `H⁻¹` is a division."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from das.config import FeatureType
from das.kernel import SummedForm, damping_for, effective_dimension_target

DAMPING_GRID = tuple(10.0 ** (half / 2) for half in range(-12, 3))
"""λ in units of tr(K)/N: half decades from 1e-6 to 10."""

# Directions below this part of the largest eigenvalue are rounding errors of the products.
_NEGLIGIBLE = 1e-12


@dataclass(frozen=True)
class Spectrum:
    """Works and queries in the eigenbasis of a kernel, all float64.

    Attributes:
        values: eigenvalues s, (r,).
        works: `Vᵀf̄_i`, (N, r). Exact: every `f̄_i` lies in the span of the kernel's rows.
        queries: `Vᵀf̄`, (Q, r). What of a query lies outside the span meets no work.
        query_norms: `‖f̄‖`, (Q,), outside the span included.
        total_weight: `Σ w_i`, works with their repeats.
        form, timesteps, dimension, activation: what the kernel is summed over, k, and whether its features are
            activations, for the rule that chooses λ.
    """

    values: Tensor
    works: Tensor
    queries: Tensor
    query_norms: np.ndarray
    form: SummedForm
    timesteps: int
    dimension: int
    total_weight: float
    activation: bool = False

    @classmethod
    def of(
        cls,
        works: Tensor,
        queries: Tensor,
        form: SummedForm,
        *,
        repeats: np.ndarray | None = None,
        activation: bool = False,
    ) -> "Spectrum":
        """Decompose the kernel of works (N, T, k), as prepared; queries (Q, T, k) or (Q, 1, k).

        Args:
            repeats: how often each work counts, (N,); once if left out.

        Where there are fewer rows than dimensions, their inner products are decomposed instead (the dual form).
        """
        means = works.mean(1).double()
        asked = queries.mean(1).double()
        counts = np.ones(len(works)) if repeats is None else repeats
        rows = works * torch.from_numpy(np.sqrt(counts)).to(works)[:, None, None]
        rows = rows.flatten(0, 1) if form == "block" else rows.mean(1)
        if len(rows) < rows.shape[1]:
            rows = rows.double()
            values, left = torch.linalg.eigh(rows @ rows.T)
            values, left = _above_negligible(values, left)
            basis = (rows.T @ left) / values.sqrt()
        else:
            # Summed in pieces: a product in single precision, then a float64 sum.
            kernel = torch.zeros(rows.shape[1], rows.shape[1], dtype=torch.float64)
            for piece in torch.split(rows, 1024):
                kernel += (piece.T @ piece).double()
            values, basis = _above_negligible(*torch.linalg.eigh((kernel + kernel.T) / 2))
        norms = torch.linalg.vector_norm(asked, dim=1).numpy()
        steps, dimension = works.shape[1:]
        total = float(counts.sum())
        return cls(values, means @ basis, asked @ basis, norms, form, steps, dimension, total, activation)

    @property
    def unit(self) -> float:
        """`tr(K)/N`, N counting every repeat: what a relative λ is multiplied with."""
        return float(self.values.sum()) / self.total_weight

    def default_damping(self, *, signed: bool = False) -> float:
        """The relative λ of the rule in das.kernel, which takes no retraining."""
        target = effective_dimension_target(
            self.form,
            len(self.works),
            self.timesteps,
            self.dimension,
            signed=signed,
            activation=self.activation,
        )
        return damping_for(self.values, target) / self.unit

    def products(self, damping: float, stored_as: FeatureType = "float32") -> np.ndarray:
        """`f̄ᵀH⁻¹f̄_i`, (Q, N) float64, for a relative λ.

        Args:
            stored_as: round the whitened works as an index does, here in the eigenbasis; float32 rounds nothing.
        """
        scale = (self.values + damping * self.unit).rsqrt()
        stored = rounded(self.works * scale, stored_as)
        return ((self.queries * scale) @ stored.T).numpy()

    def leverage(self, damping: float) -> np.ndarray:
        """`h_i = f̄_iᵀH⁻¹f̄_i`, (N,); T times that with the block kernel, which sums T features of a work."""
        leverage: Tensor = (self.works.square() / (self.values + damping * self.unit)).sum(1)
        return (self.timesteps if self.form == "block" else 1) * leverage.numpy()

    def solved_norms(self, damping: float) -> np.ndarray:
        """`‖H⁻¹f̄_i‖`, (N,)."""
        norms: Tensor = torch.linalg.vector_norm(self.works / (self.values + damping * self.unit), dim=1)
        return norms.numpy()

    def norms(self) -> np.ndarray:
        """`‖f̄_i‖`, (N,)."""
        norms: Tensor = torch.linalg.vector_norm(self.works, dim=1)
        return norms.numpy()

    def mean_square(self, damping: float) -> float:
        """Mean of `(f̄_iᵀH⁻¹f̄_j)²` over all pairs of works: the unit in which probes are added."""
        whitened = self.works * (self.values + damping * self.unit).rsqrt()
        small = whitened @ whitened.T if len(whitened) < whitened.shape[1] else whitened.T @ whitened
        return float(small.square().sum()) / len(self.works) ** 2


def rounded(values: Tensor, stored_as: FeatureType) -> Tensor:
    """Features (n, k) through the type that an index stores and back; half precision in units of their size."""
    if stored_as == "float32":
        return values
    if stored_as == "int8":
        scales = values.abs().amax(1, keepdim=True) / 127
        scales = torch.where(scales > 0, scales, torch.ones_like(scales))
        return (values / scales).round() * scales
    size = values.square().mean().sqrt().clamp_min(torch.finfo(torch.float64).tiny)
    return (values / size).half().double() * size


def _above_negligible(values: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
    kept = values > values.max() * _NEGLIGIBLE
    return values[kept], vectors[:, kept]
