"""Putting LoRAs on a pipeline's network and text encoders, completely or not at all.

diffusers and peft skip what doesn't fit and warn. An index of the base model would then pass for one of the LoRA, so
here every tensor of a file finds its place, with the scale that the file gives it, or the file is refused with the
reason.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any
from weakref import WeakKeyDictionary

from torch import nn

from das.loras import LoraChoice, adapter_names
from das.models import DiffusionModel
from das.models.lora.adapted import without_lora
from das.models.lora.loading import Components, Loaded, put_on

__all__ = ["Loaded", "add_loras", "as_base", "loras_of", "without_lora"]

_LOADED: WeakKeyDictionary[nn.Module, tuple[Loaded, ...]] = WeakKeyDictionary()


def add_loras(pipeline: Any, network_name: str, loras: Sequence[LoraChoice]) -> tuple[Loaded, ...]:
    """Put LoRAs on the pipeline's network and text encoders, in place; their outputs add up.

    Args:
        network_name: the pipeline's component that is attributed, such as "unet".
        loras: each a safetensors file of any of the namings in docs/loras.md, a directory with one, a peft adapter's
            directory (`adapter_config.json`, `adapter_model.safetensors`), or a hub id of either;
            `owner/name/file.safetensors` is a file of a hub repository.

    Returns:
        What was loaded of each.

    Raises:
        ModelError: there is no such LoRA, or something of it can't be put on this pipeline.
    """
    names = adapter_names(len(loras))
    components = Components(pipeline, network_name)
    for module in components.modules.values():
        module.requires_grad_(
            False
        )  # as while the LoRA was trained: kernels, and so last digits, depend on it
    loaded = tuple(put_on(components, choice, name) for choice, name in zip(loras, names, strict=True))
    for module in components.modules.values():
        module.float().eval()
    _LOADED[components.network] = loaded
    return loaded


def loras_of(network: nn.Module) -> tuple[Loaded, ...]:
    """What `add_loras` put on a network."""
    return _LOADED.get(network, ())


def as_base(model: DiffusionModel) -> AbstractContextManager[None]:
    """The model as its base alone until the end of the block: its LoRAs count for nothing, nor do those on the text.

    Conditioning has to be asked for inside.
    """
    own = getattr(model, "as_base", None)
    return without_lora(model.network) if own is None else own()
