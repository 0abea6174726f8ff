"""Models of published sizes with random weights, with a LoRA on them: what a build of one takes, in time and memory.

Neither depends on what the weights are. The sizes are those of the published configurations.
"""

import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from das.errors import SettingsError
from das.index import AttributionIndex
from measure.report import versions

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
"""The matrices that the LoRA is on, as in the paper's."""

_POLL_S = 0.2
_TOKENS = 77
_VOCABULARY = 49408


def measure_build(
    family: str, folder: Path, *, works: int, size: int, rank: int, timesteps: int, device: str
) -> dict[str, Any]:
    """Build an index of a full-size model with a LoRA over `works` random pictures, and take its time and memory.

    Args:
        folder: where model, works and index are put; what is there already of an earlier run is used again.
        size: side of a picture, a multiple of 64.

    Returns:
        Parameters, seconds of each stage, seconds a work of the features alone, and the largest resident memory of
        the building process in bytes.

    Raises:
        SettingsError: the family isn't one of `SIZES`, or the build failed.
    """
    if family not in SIZES:
        raise SettingsError(f"{family} isn't one of the families with a full size here: {', '.join(SIZES)}.")
    if size % 64:
        raise SettingsError(f"The side of a picture must be a multiple of 64; {size} isn't.")
    model, lora, pictures = (
        folder / f"{family}-{size}",
        folder / f"{family}-lora-{rank}.safetensors",
        folder / "works",
    )
    if not (model / "model_index.json").is_file():
        _write_model(family, model, size)
    if not lora.is_file():
        _write_lora(model, lora, rank)
    _write_works(pictures, works, size)
    out = folder / f"index-{family}-{works}-{timesteps}"
    command = [sys.executable, "-c", "from das.cli import main; main()", "build", "--model", str(model)]
    command += ["--lora", str(lora), "--works", str(pictures), "--out", str(out), "--no-screening"]
    command += ["--references", "0", "--timesteps", str(timesteps), "--device", device, "--batch-size", "1"]
    began, load = time.monotonic(), os.getloadavg()[0]
    process = subprocess.Popen(command, stdout=sys.stderr)
    peak = _peak_memory(process)
    if process.returncode:
        raise SettingsError(f"The build ended with {process.returncode}.")
    manifest = AttributionIndex.open(out).manifest
    seconds = {name: round(value, 1) for name, value in manifest.build.seconds.items()}
    return {
        "family": family,
        "parameters": manifest.model.identity["parameters"],
        "attributed": manifest.model.attributed_parameters,
        "rank": rank,
        "works": works,
        "size": size,
        "timesteps": timesteps,
        "probes": list(manifest.config.probes),
        "dimension": manifest.features.dimension,
        "seconds": seconds,
        "total_s": round(time.monotonic() - began, 1),
        "s_per_work": round(seconds["gradients"] / works, 2),
        "peak_memory_bytes": peak,
        "device": device,
        "machine": {
            "processor": platform.machine(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "memory_bytes": psutil.virtual_memory().total,
            "load_average_before": round(load, 1),
        },
        "versions": versions(),
    }


def stable_diffusion(size: int) -> Any:
    """Stable Diffusion 1.5: a U-Net of 860 M parameters, for pictures of this size."""
    from diffusers import AutoencoderKL, DDPMScheduler, StableDiffusionPipeline, UNet2DConditionModel

    tokenizer = _tokenizer()
    return StableDiffusionPipeline(
        vae=AutoencoderKL(**_VAE, sample_size=size, scaling_factor=0.18215),
        text_encoder=_text_encoder(768, 12, 12, "quick_gelu"),
        tokenizer=tokenizer,
        unet=UNet2DConditionModel(sample_size=size // 8, cross_attention_dim=768, attention_head_dim=8),
        scheduler=DDPMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def stable_diffusion_xl(size: int) -> Any:
    """Stable Diffusion XL: a U-Net of 2.57 G parameters and two text encoders, for pictures of this size."""
    from diffusers import AutoencoderKL, DDPMScheduler, StableDiffusionXLPipeline, UNet2DConditionModel

    tokenizer = _tokenizer()
    unet = UNet2DConditionModel(
        sample_size=size // 8,
        block_out_channels=(320, 640, 1280),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2, 10),
        attention_head_dim=(5, 10, 20),
        cross_attention_dim=2048,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=2816,
        use_linear_projection=True,
    )
    return StableDiffusionXLPipeline(
        vae=AutoencoderKL(**_VAE, sample_size=size, scaling_factor=0.13025),
        text_encoder=_text_encoder(768, 12, 12, "quick_gelu"),
        text_encoder_2=_text_encoder(1280, 32, 20, "gelu", projected=True),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        unet=unet,
        scheduler=DDPMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012),
    )


SIZES: Mapping[str, Callable[[int], Any]] = {
    "stable-diffusion": stable_diffusion,
    "stable-diffusion-xl": stable_diffusion_xl,
}
"""By family: makes a pipeline of its published size, with random weights, for pictures of a side."""

_VAE: dict[str, Any] = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
}


def _text_encoder(
    width: int, layers: int, heads: int, activation: str, *, projected: bool = False
) -> nn.Module:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=_VOCABULARY,
        hidden_size=width,
        intermediate_size=4 * width,
        projection_dim=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        hidden_act=activation,
        max_position_embeddings=_TOKENS,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    encoder: nn.Module = (CLIPTextModelWithProjection if projected else CLIPTextModel)(config)
    return encoder


def _tokenizer() -> Any:
    """Reads every word by its letters: what a word is doesn't change what a build takes."""
    from transformers import CLIPTokenizer

    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    tokens = [
        "<|pad|>",
        "<|startoftext|>",
        "<|endoftext|>",
        *letters,
        *(f"{letter}</w>" for letter in letters),
    ]
    return CLIPTokenizer(
        vocab={token: number for number, token in enumerate(tokens)}, merges=[], model_max_length=_TOKENS
    )


def _write_model(family: str, path: Path, size: int) -> None:
    # In a process of its own: what the allocator keeps of a model that was written would be missing to the build.
    writing = get_context("spawn").Process(target=_save, args=(family, path, size))
    writing.start()
    writing.join()
    if writing.exitcode:
        raise SettingsError(f"The model couldn't be written to {path} (exit code {writing.exitcode}).")


def _save(family: str, path: Path, size: int) -> None:
    SIZES[family](size).to(torch.float16).save_pretrained(path, safe_serialization=True)


def _write_lora(model: Path, path: Path, rank: int) -> None:
    from diffusers import UNet2DConditionModel

    config = UNet2DConditionModel.load_config(model / "unet")
    with torch.device("meta"):
        network = UNet2DConditionModel.from_config(config)
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for name, module in network.named_modules():
        if isinstance(module, nn.Linear) and name.endswith(ATTENTION):
            tensors[f"unet.{name}.lora_A.weight"] = (
                torch.randn(rank, module.in_features, generator=generator) / rank
            )
            up = torch.randn(module.out_features, rank, generator=generator)
            tensors[f"unet.{name}.lora_B.weight"] = up / rank
    save_file({name: tensor.half() for name, tensor in tensors.items()}, path)


def _write_works(folder: Path, count: int, size: int) -> None:
    generator = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        path.unlink()
    lines = ["file_name,prompt"]
    for number in range(count):
        pixels = generator.integers(0, 256, (size, size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:04d}.png")
        lines.append(f"{number:04d}.png,picture {number}")
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n")


def _peak_memory(process: subprocess.Popen[bytes]) -> int:
    """The largest resident memory of a process until it ends, in bytes."""
    watched, peak = psutil.Process(process.pid), 0
    while process.poll() is None:
        try:
            peak = max(peak, watched.memory_info().rss)
        except psutil.NoSuchProcess:
            break
        time.sleep(_POLL_S)
    process.wait()
    return peak
