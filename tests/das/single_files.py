"""Checkpoints in one file, by the names that the first code of Stable Diffusion gives its layers, from pipelines."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}


def original_unet(network: nn.Module) -> dict[str, Tensor]:
    """A U-Net's tensors by the names of `input_blocks`, `middle_block` and `output_blocks`."""
    layers: int = network.config.layers_per_block  # type: ignore[union-attr,assignment]
    blocks = len(network.config.block_out_channels)  # type: ignore[union-attr,arg-type]
    places = {
        "time_embedding.linear_1": "time_embed.0",
        "time_embedding.linear_2": "time_embed.2",
        "add_embedding.linear_1": "label_emb.0.0",
        "add_embedding.linear_2": "label_emb.0.2",
        "conv_in": "input_blocks.0.0",
        "conv_norm_out": "out.0",
        "conv_out": "out.2",
        "mid_block.resnets.0": "middle_block.0",
        "mid_block.attentions.0": "middle_block.1",
        "mid_block.resnets.1": "middle_block.2",
    }
    state = network.state_dict()
    for i in range(blocks):
        for j in range(layers):
            places[f"down_blocks.{i}.resnets.{j}"] = f"input_blocks.{(layers + 1) * i + j + 1}.0"
            places[f"down_blocks.{i}.attentions.{j}"] = f"input_blocks.{(layers + 1) * i + j + 1}.1"
        places[f"down_blocks.{i}.downsamplers.0.conv"] = f"input_blocks.{(layers + 1) * (i + 1)}.0.op"
        attends = any(name.startswith(f"up_blocks.{i}.attentions") for name in state)
        for j in range(layers + 1):
            places[f"up_blocks.{i}.resnets.{j}"] = f"output_blocks.{(layers + 1) * i + j}.0"
            places[f"up_blocks.{i}.attentions.{j}"] = f"output_blocks.{(layers + 1) * i + j}.1"
        place = f"output_blocks.{(layers + 1) * i + layers}.{2 if attends else 1}"
        places[f"up_blocks.{i}.upsamplers.0"] = place
    return dict(_renamed(state, places))


def _renamed(state: dict[str, Tensor], places: dict[str, str]) -> Iterator[tuple[str, Tensor]]:
    for name, tensor in state.items():
        place = next(p for p in places if name.startswith(f"{p}."))
        rest = name.removeprefix(f"{place}.")
        if ".resnets." in f".{place}.":
            inner, _, kind = rest.rpartition(".")
            rest = f"{_RESNET[inner]}.{kind}"
        yield f"{places[place]}.{rest}", tensor


def write(pipeline: Any, file: Path, *, text: bool = True, **more: Tensor) -> None:
    """Write a Stable Diffusion checkpoint: the U-Net, the VAE by diffusers' names, and, if `text`, CLIP's encoder."""
    state = {f"model.diffusion_model.{name}": t for name, t in original_unet(pipeline.unet).items()}
    state |= {f"vae.{name}": tensor for name, tensor in pipeline.vae.state_dict().items()}
    if text:
        state |= {
            f"cond_stage_model.transformer.text_model.{name.removeprefix('text_model.')}": tensor
            for name, tensor in pipeline.text_encoder.state_dict().items()
        }
    state |= {"alphas_cumprod": torch.ones(3), **more}
    save_file({name: tensor.clone().contiguous() for name, tensor in state.items()}, file)
