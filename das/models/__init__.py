"""Adapters: one per model family, behind one small protocol.

The engine sees a model as a network, an image space, a noise schedule and what conditions it. What the family is,
how its directory is laid out and how an upload becomes `x_0` stays in the adapter.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from das.schedules import Schedule

__all__ = ["Conditioning", "DiffusionModel", "load_model"]

Conditioning = Mapping[str, Tensor]
"""Tensors with the pictures in front (B, ...), by name; empty for an unconditional model."""


class DiffusionModel(Protocol):
    """What the engine needs of a diffusion model."""

    family: str
    network: nn.Module
    sample_shape: tuple[int, int, int]
    schedule: Schedule
    conditional: bool
    """Whether prompts reach the network."""

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

    def condition(self, prompts: Sequence[str | None]) -> Conditioning:
        """What the network is given besides `x_t` and t for pictures with these prompts; None is no prompt."""
        ...

    def predict(self, x_t: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        """The network's prediction at `x_t`: (B, C, h, w)."""
        ...


def load_model(path_or_id: str, *, lora: str | None = None, device: str = "cpu") -> DiffusionModel:
    """Load a diffusion model in single precision from a pipeline directory or a hub id.

    Args:
        path_or_id: of a pipeline as diffusers' `save_pretrained` writes it; its `model_index.json` names the family.
        lora: a LoRA on the network: see `das.models.lora.add_lora`.
        device: where the model computes.

    Raises:
        ModelError: it is missing, damaged, or of a family that isn't supported; or the LoRA isn't for it.
    """
    from das.models.loading import adapter_for, load_pipeline
    from das.models.lora import add_lora

    adapter = adapter_for(path_or_id)
    pipeline = load_pipeline(path_or_id, adapter)
    if lora is not None:
        add_lora(pipeline, adapter.network_name, lora)
    return adapter.of(pipeline, device=device)
