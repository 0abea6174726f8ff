"""LoRAs as kohya's trainer writes them."""

from pathlib import Path

import torch
from safetensors.torch import save_file


def save_lora(file: Path, seed: int, *, text: bool = False, dora: bool = False, **header: str) -> Path:
    """A file as kohya's trainer writes it, on two layers of the network and one of the text encoder."""
    random = torch.Generator().manual_seed(seed)
    attention = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_"
    sizes = {f"{attention}q": (8, 8), f"{attention}v": (8, 8)}
    if text:
        sizes["lora_te_text_model_encoder_layers_1_mlp_fc1"] = (32, 16)
    tensors = {}
    for name, (rows, columns) in sizes.items():
        tensors[f"{name}.lora_down.weight"] = torch.randn(2, columns, generator=random)
        tensors[f"{name}.lora_up.weight"] = torch.randn(rows, 2, generator=random)
        tensors[f"{name}.alpha"] = torch.tensor(1.0)
        if dora:
            tensors[f"{name}.dora_scale"] = 0.5 + torch.rand(rows, 1, generator=random)
    save_file(tensors, file, metadata=header or None)
    return file
