"""Checkpoints in one file, by the names that the first code of Stable Diffusion gives its layers, from pipelines."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from tests.das import lora_names

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


_NORMS = (
    (r"single_transformer_blocks\.(\d+)\.attn\.norm_(q|k)\.weight", r"single_blocks.\1.norm.\2_norm.scale"),
    (r"transformer_blocks\.(\d+)\.attn\.norm_(q|k)\.weight", r"double_blocks.\1.img_attn.norm.\2_norm.scale"),
    (
        r"transformer_blocks\.(\d+)\.attn\.norm_added_(q|k)\.weight",
        r"double_blocks.\1.txt_attn.norm.\2_norm.scale",
    ),
)
_NORMS_OF_SD3 = (
    (r"transformer_blocks\.(\d+)\.(attn2?)\.norm_(q|k)\.weight", r"joint_blocks.\1.x_block.\2.ln_\3.weight"),
    (
        r"transformer_blocks\.(\d+)\.attn\.norm_added_(q|k)\.weight",
        r"joint_blocks.\1.context_block.attn.ln_\2.weight",
    ),
    (r"pos_embed\.pos_embed", "pos_embed"),
)


def original_transformer(network: nn.Module, blocks: int = lora_names.BLOCKS) -> dict[str, Tensor]:
    """The tensors of a FLUX transformer of so many blocks, or an SD3 one, by its first code's names."""
    flux = type(network).__name__.startswith("Flux")
    state = network.state_dict()
    found: dict[str, Tensor] = {}
    for name, paths in (lora_names.flux(blocks) if flux else lora_names.sd3()).items():
        for kind in ("weight", "bias"):
            parts = [state.pop(f"{path}.{kind}") for path in paths if f"{path}.{kind}" in state]
            if parts:
                whole = torch.cat(parts)
                found[f"{name}.{kind}"] = (
                    torch.cat(whole.chunk(2)[::-1]) if lora_names.swapped(name) else whole
                )
    for name, tensor in state.items():
        for pattern, place in _NORMS if flux else _NORMS_OF_SD3:
            if match := re.fullmatch(pattern, name):
                there = match.expand(place)
                found[there.replace(".q_norm", ".query_norm").replace(".k_norm", ".key_norm")] = tensor
                break
        else:
            raise AssertionError(f"{name} has no original name")
    return found


def open_clip(encoder: nn.Module, prefix: str) -> dict[str, Tensor]:
    """A CLIP text encoder by OpenCLIP's names, attention fused, as SD 2 and SDXL have theirs."""
    state = {name.removeprefix("text_model."): t for name, t in encoder.state_dict().items()}
    found = {
        "positional_embedding": state.pop("embeddings.position_embedding.weight"),
        "token_embedding.weight": state.pop("embeddings.token_embedding.weight"),
        "ln_final.weight": state.pop("final_layer_norm.weight"),
        "ln_final.bias": state.pop("final_layer_norm.bias"),
    }
    if "text_projection.weight" in state:
        found["text_projection"] = state.pop("text_projection.weight").T
    for name in list(state):
        if name.endswith((".q_proj.weight", ".q_proj.bias")):
            layer, _, kind = name.rpartition(".q_proj.")
            fused = torch.cat([state.pop(f"{layer}.{part}_proj.{kind}") for part in "qkv"])
            found[f"{_resblock(layer)}.in_proj_{kind}"] = fused
    return {f"{prefix}{name}": t for name, t in found.items()} | {
        f"{prefix}{_resblock(name)}": tensor for name, tensor in state.items()
    }


def _resblock(name: str) -> str:
    for ours, theirs in (
        ("encoder.layers.", "transformer.resblocks."),
        ("layer_norm1", "ln_1"),
        ("layer_norm2", "ln_2"),
        ("mlp.fc1", "mlp.c_fc"),
        ("mlp.fc2", "mlp.c_proj"),
        ("self_attn", "attn"),
    ):
        name = name.replace(ours, theirs)
    return name


def clip(encoder: nn.Module, prefix: str) -> dict[str, Tensor]:
    """A CLIP text encoder by the names of transformers, whose outer `text_model` stays."""
    found = {}
    for name, tensor in encoder.state_dict().items():
        outer = "" if name.startswith("text_projection") else "text_model."
        found[f"{prefix}{outer}{name.removeprefix('text_model.')}"] = tensor
    return found


def original_pipeline(pipeline: Any) -> dict[str, Tensor]:
    """Everything of a pipeline as the published single file of its family has it."""
    u_net = hasattr(pipeline, "unet")
    network = original_unet(pipeline.unet) if u_net else original_transformer(pipeline.transformer)
    return text_and_vae(pipeline) | {
        f"model.diffusion_model.{name}": tensor.clone().contiguous() for name, tensor in network.items()
    }


def text_and_vae(pipeline: Any) -> dict[str, Tensor]:
    """All but the network."""
    state = {f"vae.{name}": tensor for name, tensor in pipeline.vae.state_dict().items()}
    kind = type(pipeline).__name__
    if kind == "StableDiffusionPipeline":  # as version 2
        state |= open_clip(pipeline.text_encoder, "cond_stage_model.model.")
    elif kind == "StableDiffusionXLPipeline":
        state |= clip(pipeline.text_encoder, "conditioner.embedders.0.transformer.")
        state |= open_clip(pipeline.text_encoder_2, "conditioner.embedders.1.model.")
    else:
        state |= clip(pipeline.text_encoder, "text_encoders.clip_l.transformer.")
        t5 = pipeline.text_encoder_2 if kind == "FluxPipeline" else pipeline.text_encoder_3
        if kind == "StableDiffusion3Pipeline":
            state |= clip(pipeline.text_encoder_2, "text_encoders.clip_g.transformer.")
        state |= {f"text_encoders.t5xxl.transformer.{n}": t for n, t in t5.state_dict().items()}
    return {name: tensor.clone().contiguous() for name, tensor in state.items()}


def write(
    pipeline: Any, file: Path, *, text: bool = True, header: dict[str, str] | None = None, **more: Tensor
) -> None:
    """Write a Stable Diffusion checkpoint: the U-Net, the VAE by diffusers' names, and, if `text`, CLIP's encoder."""
    state = {f"model.diffusion_model.{name}": t for name, t in original_unet(pipeline.unet).items()}
    state |= {f"vae.{name}": tensor for name, tensor in pipeline.vae.state_dict().items()}
    if text:
        state |= {
            f"cond_stage_model.transformer.text_model.{name.removeprefix('text_model.')}": tensor
            for name, tensor in pipeline.text_encoder.state_dict().items()
        }
    state |= {"alphas_cumprod": torch.ones(3), **more}
    save_file({name: tensor.clone().contiguous() for name, tensor in state.items()}, file, metadata=header)
