"""A bare network in the place of a pipeline's own: EMA weights, a training run's checkpoint, a U-Net saved alone."""

import importlib
import json
from pathlib import Path
from typing import Any

from torch import nn

from das.errors import ModelError
from das.models.weights import weights_of
from das.sources import LARGEST_CONFIG_BYTES

# What a network takes and gives: what the other parts of the pipeline and its first layer have to agree about.
_INTERFACE = (
    "in_channels",
    "out_channels",
    "cross_attention_dim",
    "encoder_hid_dim",
    "encoder_hid_dim_type",
    "addition_embed_type",
    "projection_class_embeddings_input_dim",
    "joint_attention_dim",
    "pooled_projection_dim",
    "caption_channels",
)


def load_network(folder: Path, pipeline: str, name: str, library: str, class_name: str) -> nn.Module:
    """The network in `folder`, in single precision, for the place of the component `name` of a pipeline.

    Args:
        pipeline: the directory of the base, whose own network isn't loaded.
        library, class_name: of its own network.

    Raises:
        ModelError: it is of another class, takes or gives something else, or its files aren't whole.
    """
    from das.models.loading import loaded, told

    config = _config(folder)
    if config.get("_class_name") != class_name:
        raise ModelError(
            f"{folder} is a {config.get('_class_name')}, and the pipeline {pipeline} has a {class_name} as its"
            f" {name}; let --model name the pipeline that the network was trained from."
        )
    kind = getattr(importlib.import_module(library), class_name)
    ours = {**kind.load_config(pipeline, subfolder=name)}
    for setting in _INTERFACE:
        if (a := config.get(setting)) != (b := ours.get(setting)):
            raise ModelError(
                f"The network in {folder} doesn't fit the pipeline {pipeline}: its {setting} is {a!r}, and that of"
                f" the pipeline's own {name} is {b!r}. Let --model name the pipeline that it was trained from."
            )
    found = weights_of(folder, library, "network")
    try:
        return loaded(kind, str(folder), f"the network in {folder}", variant=found.variant)
    except ModelError:
        raise
    except Exception as error:
        said = told(error).partition(" If you want to")[0]
        raise ModelError(
            f"The network in {folder} can't be loaded: {said} Its weights and its config.json don't belong together."
        ) from error


def _config(folder: Path) -> dict[str, Any]:
    try:
        with (folder / "config.json").open("rb") as stream:
            config = json.loads(stream.read(LARGEST_CONFIG_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{folder / 'config.json'} can't be read: {error}.") from error
    if not isinstance(config, dict):
        raise ModelError(f"{folder / 'config.json'} isn't a configuration.")
    return config
