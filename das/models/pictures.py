"""From an upload's pixels to what a model's first layer takes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from das.errors import ModelError


def fit(pixels: np.ndarray, shape: tuple[int, int, int]) -> Tensor:
    """A picture (H, W, 3) uint8 as (C, h, w) float64 in [-1, 1]: shorter side resized, centre cropped.

    Args:
        shape: C, h and w; grey for one channel.
    """
    channels, height, width = shape
    image = Image.fromarray(pixels)
    if channels == 1:
        image = image.convert("L")
    if image.size != (width, height):
        scale = max(width / image.width, height / image.height)
        size = (max(width, round(image.width * scale)), max(height, round(image.height * scale)))
        image = image.resize(size, Image.Resampling.LANCZOS)
        left, top = (image.width - width) // 2, (image.height - height) // 2
        image = image.crop((left, top, left + width, top + height))
    values = torch.from_numpy(np.array(image, dtype=np.uint8).reshape(height, width, channels))
    return values.permute(2, 0, 1).double() / 127.5 - 1.0


def coarseness(config: Any) -> int:
    """What a network's input has to be a multiple of: its patches, or what its blocks halve the picture to."""
    patch, blocks = getattr(config, "patch_size", None), getattr(config, "block_out_channels", None)
    if isinstance(patch, int) and patch > 0:
        return patch
    return int(2 ** (len(blocks) - 1)) if blocks else 1


def both_sides(size: int | Sequence[int] | None) -> tuple[int, int]:
    """Height and width of a network's `sample_size`, which its configuration gives as one number or as two.

    Raises:
        ModelError: it gives none, as diffusers allows, or something else.
    """
    if size is None:
        raise ModelError(
            "The network's configuration has no sample_size, so the size of its pictures isn't known; give the size"
            " that it was trained with, in pixels, as --size."
        )
    sides = [size, size] if isinstance(size, int) else size
    if not isinstance(sides, Sequence) or len(sides) != 2 or not all(type(s) is int and s > 0 for s in sides):
        raise ModelError(
            f"The network's configuration has the sample_size {size!r}; it should be a whole number of pixels (or"
            " latents) from 1, or two of them."
        )
    return sides[0], sides[1]
