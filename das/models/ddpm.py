"""Unconditional pixel-space diffusion: diffusers' `DDPMPipeline` (`UNet2DModel` with its scheduler)."""

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from das.errors import ModelError
from das.models import Conditioning
from das.schedules import Schedule, VariancePreserving


class DDPMModel:
    """A `DDPMPipeline` as the engine sees it; see `das.models.DiffusionModel`.

    The schedule is variance-preserving with the scheduler's `ᾱ` and `prediction_type`.
    """

    family = "ddpm"
    conditional = False

    def __init__(self, network: nn.Module, scheduler: Any, *, device: str = "cpu") -> None:
        """Wrap a `UNet2DModel` and its scheduler.

        Raises:
            ModelError: class-conditional, or without an `alphas_cumprod` schedule, or of an unknown target.
        """
        config = network.config
        if getattr(config, "num_class_embeds", None) or getattr(config, "class_embed_type", None):
            raise ModelError(
                "This UNet2DModel is conditioned on classes (num_class_embeds or class_embed_type is set). "
                "Only unconditional models are supported."
            )
        self.schedule: Schedule = VariancePreserving.of(scheduler)
        size = config.sample_size
        height, width = (size, size) if isinstance(size, int) else size
        channels = config.in_channels
        if channels not in (1, 3):
            raise ModelError(
                f"The network takes {channels} channels; pixel-space models have 1 (grey) or 3 (RGB)."
            )
        # Networks that also learn the variance put it in a second half of the output; that half is not attributed.
        if config.out_channels not in (channels, 2 * channels):
            raise ModelError(
                f"The network maps {channels} channels to {config.out_channels}; expected {channels}."
            )
        self.sample_shape: tuple[int, int, int] = (channels, height, width)
        self.network = network.to(device).eval()
        self._scheduler_config = dict(scheduler.config)

    @classmethod
    def load(cls, path_or_id: str, *, device: str = "cpu") -> "DDPMModel":
        """Load a `DDPMPipeline` directory, or a hub id, in single precision.

        Raises:
            ModelError: it can't be read, or isn't such a pipeline.
        """
        from diffusers import DDPMPipeline, UNet2DModel
        from diffusers.utils import logging

        # Its bar of loaded components would run into our own progress, or into JSON lines for machines.
        logging.disable_progress_bar()

        try:
            pipeline = DDPMPipeline.from_pretrained(path_or_id)
        except Exception as error:
            raise ModelError(
                f"No diffusion model could be loaded from {path_or_id!r}: {error} "
                "Give a DDPMPipeline directory (as save_pretrained writes it) or a hub id."
            ) from error
        if not isinstance(pipeline.unet, UNet2DModel):
            raise ModelError(
                f"{path_or_id!r} holds a {type(pipeline.unet).__name__}; a UNet2DModel was expected."
            )
        return cls(pipeline.unet.float(), pipeline.scheduler, device=device)

    @property
    def device(self) -> torch.device:
        """Where the network's parameters are."""
        return next(self.network.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The network's floating-point type."""
        return next(self.network.parameters()).dtype

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Class, configuration and a digest over configuration and weights, the same for any file format."""
        config = {k: v for k, v in dict(self.network.config).items() if not k.startswith("_")}
        schedule = {k: v for k, v in self._scheduler_config.items() if not k.startswith("_")}
        digest = hashlib.sha256(json.dumps([config, schedule], sort_keys=True, default=str).encode())
        for name, tensor in sorted(self.network.state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        return {
            "family": self.family,
            "class": type(self.network).__name__,
            "parameters": sum(p.numel() for p in self.network.parameters()),
            "sample_shape": list(self.sample_shape),
            "prediction_type": self.schedule.prediction_type,
            "num_train_timesteps": self.schedule.num_train_timesteps,
            "digest": digest.hexdigest(),
        }

    def encode(self, pixels: Sequence[np.ndarray]) -> Tensor:
        """Pictures (H, W, 3) uint8 to `x_0` (B, C, h, w) in [-1, 1]: shorter side resized, centre cropped."""
        return torch.stack([self._encode(p) for p in pixels]).to(self.device, self.dtype)

    def _encode(self, pixels: np.ndarray) -> Tensor:
        channels, height, width = self.sample_shape
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

    def condition(self, prompts: Sequence[str | None]) -> Conditioning:
        """Nothing: the model is unconditional, and what was said of a picture doesn't reach it."""
        return {}

    def predict(self, x_t: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        """`ε_θ(x_t, t)`, (B, C, h, w)."""
        output: Tensor = self.network(x_t, t, return_dict=False)[0]
        return output[:, : self.sample_shape[0]]
