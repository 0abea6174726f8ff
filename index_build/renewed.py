"""The numbers of an index whose works came or went: kernels, leverages and the rest, without rebuilding.

The factor L of a kernel and its λ are kept, so its sum is had as `K = LLᵀ - λI`. What came or went is added or taken
away, `K' = K ± Σ w_i Σ_t f_{i,t} f_{i,t}ᵀ`, with the same λ, and factorised anew. Stored features `w_i = L₀⁻¹f̄_i`
stay as they are, whitened by the factor L₀ of the build (decision 36). With `A = L₀ᵀH⁻¹L₀` a work's leverage is
`w_iᵀAw_i`; as the old one was computed from features that weren't rounded, only the difference is taken of stored
ones: `h_i' = h_i + w_iᵀ(A' - A)w_i`. The same goes for `‖H⁻¹f̄_i‖²`, with `A = L₀ᵀH⁻²L₀`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from das import registry
from das.config import BuildConfig, FeatureSet
from das.errors import BuildError, SettingsError
from das.index import AttributionIndex
from das.kernel import Kernel, SummedForm, damped_kernel
from das.manifest import KernelRecord
from index_build.gather import kernel_forms, sum_of

Key = tuple[str, SummedForm]
"""Name of a feature set, and a form."""

_BELOW_ZERO = 0.05
"""In units of λ: how far an eigenvalue may fall below 0 when works are taken out, by rounding alone."""


@dataclass
class RenewedKernel:
    """One kernel that a method reads, before and after; and what is summed up while the features go by."""

    name: str
    form: SummedForm
    whitening: Tensor
    """L₀ (k, k) float64."""
    former: Tensor
    """L (k, k) float64 of the index that was changed."""
    kernel: Kernel
    trace: float
    solves: bool
    """Whether a method asks for `‖H⁻¹f̄_i‖`."""
    leverage: list[np.ndarray] = field(default_factory=list)
    solved_norms: list[np.ndarray] = field(default_factory=list)
    stretched: float = 1.0
    """How much longer a work that came is in the stored features than in those whitened by the new factor."""

    def __post_init__(self) -> None:
        new, old = (
            torch.linalg.solve_triangular(factor, self.whitening, upper=False)
            for factor in (self.kernel.factor, self.former)
        )
        self._products = (new.T @ new - old.T @ old).float()
        # L'⁻¹L₀: from stored features to those that a build would store now.
        self.map = new
        self._solved_products = None
        if self.solves:
            new, old = (
                torch.linalg.solve_triangular(factor.T, one, upper=True)
                for factor, one in ((self.kernel.factor, new), (self.former, old))
            )
            self._solved_products = (new.T @ new - old.T @ old).float()

    def keep(
        self, stored: Tensor, leverage: np.ndarray, solved_norms: np.ndarray | None, most: np.ndarray
    ) -> None:
        """Renew the numbers of works that stay, from stored features (n, k) float32 and what they were.

        Args:
            most: (n,), what no leverage is above, see `most_leverage`: rounding mustn't take it there.
        """
        if self.form == "block":
            # Works that came in an earlier change are as much longer as they were.
            self._stretch(stored, (stored @ self.map.T.float()).square().sum(1))
        renewed = leverage + _quadratic(stored, self._products)
        self.leverage.append(np.clip(renewed, 0.0, most))
        if self._solved_products is not None and solved_norms is not None:
            squares = np.square(solved_norms) + _quadratic(stored, self._solved_products)
            self.solved_norms.append(np.sqrt(np.maximum(squares, 0.0)))

    def add(self, averages: Tensor, stored: Tensor) -> None:
        """Take the numbers of works that come, from `f̄` (n, k) and its whitened form (n, k) float64."""
        leverage = self.kernel.whiten(averages).square().sum(1)
        self.leverage.append(leverage.numpy())
        if self.solves:
            self.solved_norms.append(self.kernel.solve(averages).norm(dim=1).numpy())
        self._stretch(stored, leverage)

    def _stretch(self, stored: Tensor, whitened: Tensor) -> None:
        """Note how long stored features (n, k) are beside the squares (n,) of those by the new factor."""
        seen = whitened > 0
        if bool(seen.any()):
            longer = stored[seen].square().sum(1) / whitened[seen]
            self.stretched = max(self.stretched, float(longer.max().sqrt()))

    def growth(self, before: float) -> float:
        """By how much more than at the build, at most, rounding counts, where it was `before` in the parent.

        A stored feature's error e adds `⟨q, e⟩` to a product. The query `q = L₀ᵀH'⁻¹φ` is up to the root of the
        largest eigenvalue of `L₀ᵀH'⁻¹L₀` longer than with the kernel of the build, and e is as much longer as the
        feature is.
        """
        if self.form == "block":
            largest = torch.linalg.matrix_norm(self.map, 2)
            return max(1.0, float(largest)) * self.stretched
        # The kernel of the build isn't kept beside the block kernel's factor: step by step, an upper bound.
        step = torch.linalg.solve_triangular(self.kernel.factor, self.former, upper=False)
        return before * max(1.0, float(torch.linalg.matrix_norm(step, 2)))

    def mean_square(self, gram: Tensor, count: int) -> float:
        """Mean of `(f̄_jᵀH'⁻¹f̄_i)²` over pairs, from `Σ w_i w_iᵀ` (k, k) of the stored features."""
        return float((self.map @ gram @ self.map.T).square().sum()) / count**2


def most_leverage(norms: np.ndarray, damping: float, summed: np.ndarray) -> np.ndarray:
    """The bound `h_i ≤ ‖f̄_i‖² / (λ + c_i ‖f̄_i‖²)`, which keeps `1 - c_i h_i` above 0.

    Args:
        norms: `‖f̄_i‖`, (n,).
        summed: `c_i`, (n,): how often the kernel has `f̄_i f̄_iᵀ` in it at least, as `K ⪰ c_i f̄_i f̄_iᵀ`; the repeats of
            a work's content, times T in the block form.
    """
    squares = np.square(norms)
    found: np.ndarray = squares / (damping + summed * squares)
    return found


def renewed_kernels(
    index: AttributionIndex, sums: Mapping[str, np.ndarray], sign: int, trained: int
) -> dict[Key, RenewedKernel]:
    """Every kernel that a method reads, with the sums of what came (`sign` 1) or went (-1) in it.

    Args:
        sums: kernel sums (k, k) float64 over the works that came or went, as `Gatherer.run` gives them.
        trained: sum of the repeats afterwards.

    Raises:
        BuildError: what is taken away wasn't in the kernel, or nothing would be left in it.
    """
    manifest = index.manifest
    solved = {
        (kernel.features, kernel.form)
        for kernel in manifest.kernels
        if "solved_norms" in registry.method(kernel.method).needs
    }
    dampings = {(kernel.features, kernel.form): kernel.damping for kernel in manifest.kernels}
    found: dict[Key, RenewedKernel] = {}
    for features, form in read_forms(manifest.config):
        damping = dampings[features.name, form]
        assert damping is not None
        former = torch.from_numpy(index.factor(features.name, form))
        matrix = former @ former.T
        matrix.diagonal().sub_(damping)
        matrix += sign * torch.from_numpy(sum_of(dict(sums), features, form))
        matrix = (matrix + matrix.T) / 2
        trace = float(matrix.trace())
        if sign < 0 and float(torch.linalg.eigvalsh(matrix)[0]) < -_BELOW_ZERO * damping:
            raise BuildError(
                f"the works to remove don't come out of the kernel of {features.name} as they went in: their features"
                " aren't those that the index was built with. Build the index again."
            )
        try:
            kernel = damped_kernel(
                matrix, float(trained), damping=damping * trained / max(trace, damping * 1e-12)
            )
        except SettingsError as error:
            raise BuildError(
                f"the works that would be left have no kernel of {features.name}: {error}"
            ) from error
        found[features.name, form] = RenewedKernel(
            features.name,
            form,
            torch.from_numpy(index.whitening(features.name)),
            former,
            kernel,
            trace,
            (features.name, form) in solved,
        )
    return found


def read_forms(config: BuildConfig) -> list[tuple[FeatureSet, SummedForm]]:
    """The kernels that methods read; a block kernel that only whitens isn't one of them."""
    read = {(kernel.features, kernel.form) for kernel in config.kernels}
    return [(features, form) for features, form in kernel_forms(config) if (features.name, form) in read]


def renewed_records(
    records: Iterable[KernelRecord],
    kernels: Mapping[Key, RenewedKernel],
    grams: Mapping[str, Tensor],
    trained: int,
    count: int,
) -> tuple[KernelRecord, ...]:
    """What the manifest says of the kernels afterwards; λ is what it was."""
    found = []
    for record in records:
        if record.form == "none":
            found.append(record)
            continue
        renewed = kernels[record.features, record.form]
        found.append(
            record.model_copy(
                update={
                    "relative_damping": renewed.kernel.damping * trained / renewed.trace,
                    "trace": renewed.trace,
                    "effective_dimension": renewed.kernel.effective_dimension,
                    "mean_square": renewed.mean_square(grams[record.features], count),
                }
            )
        )
    return tuple(found)


def _quadratic(rows: Tensor, matrix: Tensor) -> np.ndarray:
    """`x_iᵀMx_i` of rows (n, k) float32, (n,) float64."""
    found: np.ndarray = ((rows @ matrix) * rows).double().sum(1).numpy()
    return found
