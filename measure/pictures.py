"""Pictures in the shapes that those who look at them want: the model's space, bytes, CLIP embeddings."""

from collections.abc import Sequence

import numpy as np
import torch

from das.config import ClipSpec
from das.errors import SettingsError


def model_space(images: np.ndarray, size: int | None) -> np.ndarray:
    """Pictures as (n, C, H, W) float32 in [-1, 1], resized by averaging areas.

    Takes (n, H, W), (n, H, W, C) or (n, C, H, W) with 1 or 3 channels; uint8, or float in [-1, 1].

    Raises:
        SettingsError: floats outside [-1, 1], or another number of channels.
    """
    if images.ndim == 3:
        images = images[..., None]
    if images.shape[1] not in (1, 3) and images.shape[-1] in (1, 3):
        images = images.transpose(0, 3, 1, 2)
    if images.shape[1] not in (1, 3):
        raise SettingsError(f"Pictures of shape {images.shape[1:]} have neither 1 nor 3 channels.")
    values = torch.from_numpy(np.array(images, dtype=np.float32))
    if images.dtype == np.uint8:
        values = values / 127.5 - 1.0
    elif not np.isfinite(images).all() or np.abs(images).max() > 1.0:
        raise SettingsError("Pictures in floating point must lie within [-1, 1].")
    if size is not None:
        values = torch.nn.functional.interpolate(values, size=(size, size), mode="area")
    return values.clamp(-1, 1).numpy()


def as_pixels(images: np.ndarray) -> list[np.ndarray]:
    """Pictures (n, C, H, W) in [-1, 1] as (H, W, 3) uint8 each."""
    bytes_ = np.rint((np.clip(images, -1, 1) + 1) * 127.5).astype(np.uint8).transpose(0, 2, 3, 1)
    return [np.repeat(picture, 3 // picture.shape[2], axis=2) for picture in bytes_]


def clip_embeddings(spec: ClipSpec, pictures: Sequence[np.ndarray], device: str = "cpu") -> list[np.ndarray]:
    """Embeddings with their own norms, (n, e) each, of sets of pictures (n, C, H, W) in [-1, 1]."""
    from das.screening import Embedder

    embedder = Embedder.load(spec, device)
    found = []
    for images in pictures:
        vectors, norms = embedder.embed_with_norms(as_pixels(images))
        found.append(vectors * norms[:, None])
    return found
