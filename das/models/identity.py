"""What an index is bound to: a digest over everything in a model that decides the numbers."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

# They say who wrote a configuration and in which precision, not what it computes.
_CIRCUMSTANCES = frozenset({"transformers_version", "torch_dtype", "dtype", "architectures"})


def settings(config: Any) -> dict[str, Any]:
    """What a component's configuration says of its computation: of diffusers and of transformers components."""
    # transformers lists its defaults too, and new ones with every version; what differs from them is stable.
    values = config.to_diff_dict() if hasattr(config, "to_diff_dict") else dict(config)
    return {k: v for k, v in values.items() if not k.startswith("_") and k not in _CIRCUMSTANCES}


def tokenizer_settings(tokenizer: Any) -> dict[str, Any]:
    """What decides which tokens a prompt becomes, whichever implementation of the tokenizer reads it."""
    return {
        "vocabulary": sorted(tokenizer.get_vocab().items()),
        "length": tokenizer.model_max_length,
        "padding": [tokenizer.pad_token, tokenizer.padding_side],
    }


def digest(description: Any, modules: Mapping[str, nn.Module]) -> str:
    """SHA-256 over a description and the weights of modules, the same for any file format.

    Args:
        description: what JSON can say; values of other kinds count as their text.
        modules: by what stands before their parameters' names.
    """
    found = hashlib.sha256(json.dumps(description, sort_keys=True, default=str).encode())
    for part, module in sorted(modules.items()):
        for name, tensor in sorted(module.state_dict().items()):
            found.update(f"{part}{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            found.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()
