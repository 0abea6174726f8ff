"""Adapters: one per model family, behind one small protocol.

The engine sees a model as a network, an image space, a noise schedule and what conditions it. What the family is,
how its directory is laid out and how an upload becomes `x_0` stays in the adapter.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Protocol, Self

import numpy as np
import torch
from torch import Tensor, nn

from das import registry
from das.errors import ModelError
from das.loras import Loras, choices
from das.schedules import Schedule
from das.sources import ModelSource, check_source

__all__ = [
    "Adapter",
    "Conditioning",
    "DiffusionModel",
    "Generating",
    "Resizable",
    "equally_long",
    "load_model",
]

Conditioning = Mapping[str, Tensor]
"""Tensors with the pictures in front (B, ...), by name; empty for an unconditional model. Where texts differ in
length, a batch's are as long as the longest, filled up with zeros, and one of the tensors is a mask."""


def equally_long(first: Conditioning, second: Conditioning) -> tuple[Conditioning, Conditioning]:
    """Two conditionings of as many pictures, the shorter texts (B, tokens, ...) with zeros up to the longer."""

    def filled(values: Tensor, other: Tensor) -> Tensor:
        missing = other.shape[1] - values.shape[1] if values.dim() > 1 else 0
        if missing <= 0:
            return values
        return torch.cat([values, values.new_zeros(len(values), missing, *values.shape[2:])], 1)

    return (
        {name: filled(values, second[name]) for name, values in first.items()},
        {name: filled(values, first[name]) for name, values in second.items()},
    )


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


class Generating(Protocol):
    """A model that can be let make pictures; an extension's may lack it, and then needs a folder of references."""

    def generate(self, prompts: Sequence[str | None], seeds: Sequence[int]) -> list[np.ndarray]:
        """Pictures (H, W, 3) uint8 sRGB of these prompts and seeds, as the model's users would make them."""
        ...


class Adapter(DiffusionModel, Protocol):
    """A `DiffusionModel` that a pipeline of its family is made into."""

    network_name: str
    """The pipeline's component that is attributed, such as `unet`."""
    parts: ClassVar[dict[str, str]]
    """The components that are used, with the class of each in diffusers or transformers; tokenizers count by name."""
    optional: ClassVar[frozenset[str]]
    """Those of them that a pipeline may lack."""

    @classmethod
    def of(cls, pipeline: Any, *, device: str = "cpu") -> Self:
        """The adapter of a loaded pipeline; raises ModelError for one that it can't serve."""
        ...


class Resizable(Protocol):
    """An adapter whose pictures may have another size than the pipeline's configuration says (`--size`)."""

    @classmethod
    def resize(cls, pipeline: Any, height: int, width: int) -> None:
        """Let the pipeline's pictures have this size in pixels, before `of`; raises ModelError for one that can't."""
        ...


def load_model(
    source: ModelSource | str,
    *,
    lora: Loras = None,
    device: str = "cpu",
    tell: Callable[[str], None] = lambda _: None,
) -> DiffusionModel:
    """Load a diffusion model in single precision.

    Args:
        source: a pipeline directory as diffusers' `save_pretrained` writes it, or a hub id; its `model_index.json`
            names the family. A `das.sources.ModelSource` says more: a single file, another network, a size.
        lora: one LoRA on it or several, with weights: see `das.models.lora`.
        device: where the model computes.
        tell: told in sentences which files were read, where that isn't plain.

    Raises:
        ModelError: it is missing, damaged, or of a family that isn't supported; or the LoRA isn't for it.
    """
    from das.models.loading import adapter_for, family_of, load_pipeline, told
    from das.models.lora import add_loras

    source = check_source(source if isinstance(source, ModelSource) else ModelSource(source))
    family, adapter = family_of(source.pipeline), adapter_for(source.pipeline)
    pipeline = load_pipeline(source, adapter, tell)
    if chosen := choices(lora):
        add_loras(pipeline, adapter.network_name, chosen)
    try:
        with registry.blamed("family", family.name):
            if source.size is not None:
                _resize(adapter, pipeline, source.size)
            return adapter.of(pipeline, device=device)
    except (TypeError, ValueError, AttributeError, LookupError, ArithmeticError) as error:
        # A configuration that diffusers took and that says nothing that can be computed with.
        raise ModelError(
            f"{source.pipeline!r} has a configuration that can't be used: {told(error)} Compare its config.json files"
            " with those it was trained with."
        ) from error


def _resize(adapter: type[Adapter], pipeline: Any, size: tuple[int, int]) -> None:
    resize = getattr(adapter, "resize", None)
    if resize is None:
        raise ModelError(
            f"The size of a {type(pipeline).__name__}'s pictures can't be chosen; leave --size out."
        )
    resize(pipeline, *size)
