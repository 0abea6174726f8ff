"""Adapters: one per model family, behind one small protocol.

The engine sees a model as a network, an image space, a noise schedule and a prediction target. What the family is,
how its directory is laid out and how an upload becomes `x_0` stays in the adapter.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["DiffusionModel", "load_model"]


class DiffusionModel(Protocol):
    """What the engine needs of a diffusion model."""

    family: str
    network: nn.Module
    sample_shape: tuple[int, int, int]
    num_train_timesteps: int

    @property
    def identity(self) -> dict[str, Any]:
        """Class, configuration and `digest` of the weights: what an index is bound to."""
        ...

    @property
    def device(self) -> torch.device:
        """Where the network's parameters are."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """The network's floating-point type."""
        ...

    def encode(self, pixels: Sequence[np.ndarray]) -> Tensor:
        """sRGB pictures, each (H, W, 3) uint8, to `x_0`: (B, C, h, w) in the model's own space."""
        ...

    def add_noise(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """The noised input `x_t` (B, C, h, w) at timesteps `t` (B,) int64."""
        ...

    def target(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """What the network was trained to predict at `x_t`: (B, C, h, w)."""
        ...

    def predict(self, x_t: Tensor, t: Tensor) -> Tensor:
        """The network's prediction `ε_θ(x_t, t)`: (B, C, h, w)."""
        ...


def load_model(path_or_id: str, *, device: str = "cpu") -> DiffusionModel:
    """Load a diffusion model from a pipeline directory or a hub id.

    Raises:
        ModelError: it is missing, damaged, or of a family that isn't supported.
    """
    from das.models.ddpm import DDPMModel

    return DDPMModel.load(path_or_id, device=device)
