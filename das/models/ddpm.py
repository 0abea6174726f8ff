"""Unconditional pixel-space diffusion: diffusers' `DDPMPipeline` (`UNet2DModel` with its scheduler)."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from das.errors import ModelError
from das.models import Conditioning
from das.models.identity import digest, settings
from das.models.lora.adapted import lora_scalings
from das.models.pictures import both_sides, coarseness, fit
from das.schedules import Schedule, VariancePreserving

SAMPLING_STEPS = 50


class DDPMModel:
    """A `DDPMPipeline` as the engine sees it; see `das.models.DiffusionModel`.

    The schedule is variance-preserving with the scheduler's `ᾱ` and `prediction_type`.
    """

    family = "ddpm"
    conditional = False
    network_name = "unet"
    parts: ClassVar[dict[str, str]] = {"unet": "UNet2DModel"}
    optional: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, network: nn.Module, scheduler: Any, *, device: str = "cpu") -> None:
        """Wrap a `UNet2DModel` and its scheduler.

        Raises:
            ModelError: class-conditional, or without an `alphas_cumprod` schedule, of an unknown target, or without
                the size of its pictures.
        """
        config: Any = network.config
        if getattr(config, "num_class_embeds", None) or getattr(config, "class_embed_type", None):
            raise ModelError(
                "This UNet2DModel is conditioned on classes (num_class_embeds or class_embed_type is set). "
                "Only unconditional models are supported."
            )
        self.schedule: Schedule = VariancePreserving.of(scheduler)
        height, width = both_sides(config.sample_size)
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
    def of(cls, pipeline: Any, *, device: str = "cpu") -> "DDPMModel":
        """The adapter of a loaded `DDPMPipeline` or `DDIMPipeline`; raises like the constructor."""
        return cls(pipeline.unet, pipeline.scheduler, device=device)

    @classmethod
    def resize(cls, pipeline: Any, height: int, width: int) -> None:
        """Let the pictures have this size in pixels; raises ModelError for one that the U-Net can't halve."""
        step = coarseness(pipeline.unet.config)
        if height % step or width % step:
            raise ModelError(
                f"A size of {width} × {height} can't be used: this model needs multiples of {step}."
            )
        pipeline.unet.register_to_config(sample_size=height if height == width else (height, width))

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
        description: list[Any] = [settings(self.network.config), settings(self._scheduler_config)]
        if scalings := lora_scalings(self.network):
            description.append(scalings)
        return {
            "family": self.family,
            "conditional": self.conditional,
            "class": type(self.network).__name__,
            "parameters": sum(p.numel() for p in self.network.parameters()),
            "sample_shape": list(self.sample_shape),
            "prediction_type": self.schedule.prediction_type,
            "num_train_timesteps": self.schedule.num_train_timesteps,
            "digest": digest(description, {"": self.network}),
        }

    def encode(self, pixels: Sequence[np.ndarray]) -> Tensor:
        """Pictures (H, W, 3) uint8 to `x_0` (B, C, h, w) in [-1, 1]: shorter side resized, centre cropped."""
        return torch.stack([fit(p, self.sample_shape) for p in pixels]).to(self.device, self.dtype)

    def condition(self, prompts: Sequence[str | None]) -> Conditioning:
        """Nothing: the model is unconditional, and what was said of a picture doesn't reach it."""
        return {}

    def predict(self, x_t: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        """`ε_θ(x_t, t)`, (B, C, h, w)."""
        output: Tensor = self.network(x_t, t, return_dict=False)[0]
        return output[:, : self.sample_shape[0]]

    @torch.no_grad()
    def generate(self, prompts: Sequence[str | None], seeds: Sequence[int]) -> list[np.ndarray]:
        """Pictures (H, W, 3) uint8 of these seeds by DDIM without added noise; there is nothing to be prompted."""
        from diffusers.schedulers.scheduling_ddim import DDIMScheduler

        scheduler = DDIMScheduler.from_config(self._scheduler_config)
        scheduler.set_timesteps(SAMPLING_STEPS)
        noise = [torch.randn(self.sample_shape, generator=torch.Generator().manual_seed(s)) for s in seeds]
        x = torch.stack(noise).to(self.device, self.dtype)
        for t in scheduler.timesteps:
            output = self.predict(x, t.to(self.device), {})
            x = scheduler.step(output, t, x, eta=0.0).prev_sample
        pixels = x.float().add(1).mul(127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy()
        return [np.repeat(one, 3, axis=2) if one.shape[2] == 1 else one for one in pixels]
