"""From an upload's pixels to what a model's first layer takes."""

import numpy as np
import torch
from PIL import Image
from torch import Tensor


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
