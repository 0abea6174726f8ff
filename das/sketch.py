"""Count sketch of gradients: p coordinates to k buckets with random signs, in O(p) and without a matrix.

Each coordinate of each parameter goes to one bucket with one sign, so `φ = Pᵀg` with a `P` (p × k) of one ±1 a
row. Then `E⟨φ, φ'⟩ = ⟨g, g'⟩` and `Var⟨φ, φ'⟩ ≤ (‖g‖²‖g'‖² + ⟨g, g'⟩²) / k` (Charikar et al. 2002; Weinberger
et al. 2009). METHOD, section 7.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from das.errors import SettingsError
from das.prng import random_words


class CountSketch:
    """A count sketch over named parameters; a pure function of `(seed, parameter name, shape)`.

    The buckets of a parameter depend on nothing else: neither on the other parameters, nor on their order, the
    batch, the device or the process. So the sketch is linear, and layers can be sketched one by one.
    """

    def __init__(
        self,
        dimension: int,
        seed: int,
        shapes: Mapping[str, tuple[int, ...]],
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """Prepare buckets and signs for parameters of `shapes`, kept on `device`: 8 bytes a coordinate.

        Raises:
            SettingsError: `dimension` is below 1 or beyond 2³¹.
        """
        if not 1 <= dimension < 2**31:
            raise SettingsError(f"The sketch's dimension must be between 1 and 2^31 - 1, not {dimension}.")
        self.dimension = dimension
        self.seed = seed
        self.device = torch.device(device)
        self.dtype = dtype
        self._tables = {name: self._table(name, shape) for name, shape in shapes.items()}

    def _table(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """Signed buckets (p,) int64 of one parameter: bucket b stands for +b, k + b for -b."""
        count = int(np.prod(shape, dtype=np.int64))
        words = random_words(self.seed, f"sketch\n{name}\n{tuple(shape)}", count)
        # The high 32 bits times k, shifted down, is uniform over the buckets without a modulo's bias.
        buckets = ((words >> np.uint64(32)) * np.uint64(self.dimension)) >> np.uint64(32)
        signed = buckets + np.uint64(self.dimension) * (words & np.uint64(1))
        return torch.from_numpy(signed.astype(np.int64)).to(self.device)

    def accumulator(self, batch: int) -> Tensor:
        """An empty sum for `batch` gradients, (batch, 2k): the buckets with sign + and, apart, those with sign -.

        Keeping the signs apart saves a pass over every gradient; `finish` takes the difference once.
        """
        return torch.zeros(batch, 2 * self.dimension, dtype=self.dtype, device=self.device)

    def add(self, accumulator: Tensor, name: str, gradient: Tensor) -> None:
        """Add `gradient` (B, *shape of parameter `name`) to the `accumulator` (B, 2k), in place."""
        flat = gradient.reshape(len(gradient), -1)
        accumulator.scatter_add_(1, self._tables[name].expand_as(flat), flat)

    def finish(self, accumulator: Tensor) -> Tensor:
        """The sketch `φ` (B, k) of what was added to the `accumulator` (B, 2k)."""
        return accumulator[:, : self.dimension] - accumulator[:, self.dimension :]

    def sketch(self, gradients: Mapping[str, Tensor]) -> Tensor:
        """The sketch (B, k) of whole gradients, given as (B, *shape) for each parameter name."""
        accumulator = self.accumulator(len(next(iter(gradients.values()))))
        for name, gradient in gradients.items():
            self.add(accumulator, name, gradient)
        return self.finish(accumulator)
