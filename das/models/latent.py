"""What the latent, text-conditioned families share: encoding pictures and prompts, and their identity."""

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn

from das.errors import ModelError
from das.models import Conditioning
from das.models.identity import digest, settings, tokenizer_settings
from das.models.lora.adapted import lora_scalings, without_lora
from das.models.pictures import coarseness, fit
from das.schedules import Schedule

PROMPT_CACHE_BYTES = 512 * 2**20
"""Works of a style repeat their prompt. FLUX's embedding of one takes 8 MB, Stable Diffusion's 0.2 MB."""


class PromptCache:
    """Embeddings by prompt, without the batch; the least recently used go when there are too many bytes."""

    def __init__(self, capacity: int = PROMPT_CACHE_BYTES) -> None:
        """Start empty; holds up to `capacity` bytes, or one embedding if that is larger."""
        self.capacity = capacity
        self.used = 0
        self._held: OrderedDict[str, dict[str, Tensor]] = OrderedDict()

    def get(self, prompt: str, make: Callable[[str], dict[str, Tensor]]) -> dict[str, Tensor]:
        """The embedding of `prompt`, made if it isn't held."""
        if prompt not in self._held:
            self._held[prompt] = made = make(prompt)
            self.used += _size(made)
            while self.used > self.capacity and len(self._held) > 1:
                self.used -= _size(self._held.popitem(last=False)[1])
        self._held.move_to_end(prompt)
        return self._held[prompt]


def _size(embedding: Mapping[str, Tensor]) -> int:
    return sum(values.numel() * values.element_size() for values in embedding.values())


class LatentModel(ABC):
    """A pipeline of a VAE, text encoders and a network in the VAE's latent space; see `das.models.DiffusionModel`.

    Only the network is attributed. VAE, text encoders and tokenizers are used as they are, and are part of the
    identity. The network may be cast to another type after loading; what it is given follows.
    """

    conditional = True
    family: str
    network_name: ClassVar[str]
    parts: ClassVar[dict[str, str]]
    """The components that are used, by the class that each must have."""
    optional: ClassVar[frozenset[str]] = frozenset()
    """Those that a pipeline may leave out."""

    def __init__(self, pipeline: Any, schedule: Schedule, latent_size: tuple[int, int], device: str) -> None:
        """Wrap a loaded pipeline.

        Args:
            latent_size: height and width of a latent.

        Raises:
            ModelError: the VAE makes no pictures of three channels.
        """
        pictures, latents = self.channels(pipeline)
        if pictures != 3:
            raise ModelError(f"The VAE takes {pictures} channels; pictures have 3.")
        self.schedule = schedule
        self.sample_shape: tuple[int, int, int] = (latents, *latent_size)
        self._pipeline = pipeline.to(device)
        for module in self._modules().values():
            module.eval()
        self.network: nn.Module = getattr(pipeline, self.network_name)
        self._prompts = PromptCache()
        self._base_prompts = PromptCache()

    @classmethod
    @abstractmethod
    def of(cls, pipeline: Any, *, device: str = "cpu") -> Self:
        """The adapter of a loaded pipeline.

        Raises:
            ModelError: it is a variant of its family that isn't supported.
        """

    @classmethod
    def resize(cls, pipeline: Any, height: int, width: int) -> None:
        """Let the pipeline's pictures have this size in pixels, whatever its configuration says.

        Raises:
            ModelError: the VAE, or the network's patches, don't divide it.
        """
        network, factor = getattr(pipeline, cls.network_name), int(pipeline.vae_scale_factor)
        step = factor * coarseness(network.config)
        if height % step or width % step:
            raise ModelError(
                f"A size of {width} × {height} can't be used: this model needs multiples of {step}."
            )
        cls.set_latent_size(pipeline, height // factor, width // factor)

    @classmethod
    def set_latent_size(cls, pipeline: Any, height: int, width: int) -> None:
        """Note the size of a latent in the configuration where `of` reads it."""
        size = height if height == width else (height, width)
        getattr(pipeline, cls.network_name).register_to_config(sample_size=size)

    @classmethod
    def channels(cls, pipeline: Any) -> tuple[int, int]:
        """Of what the VAE takes and of a latent."""
        return pipeline.vae.config.in_channels, pipeline.vae.config.latent_channels

    def posterior_mean(self, values: Tensor) -> Tensor:
        """The mean (1, C, h, w) of the VAE's posterior at a picture (1, 3, H, W)."""
        mean: Tensor = self._pipeline.vae.encode(values).latent_dist.mode()
        return mean

    @abstractmethod
    def embed(self, prompt: str) -> dict[str, Tensor]:
        """What the network is given for one prompt, each tensor without the batch."""

    @abstractmethod
    def predict(self, x_t: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        """The network's prediction at `x_t`, (B, C, h, w)."""

    @property
    def device(self) -> torch.device:
        """Where the network's parameters are."""
        return next(self.network.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The network's floating-point type."""
        return next(self.network.parameters()).dtype

    @property
    def picture_size(self) -> tuple[int, int]:
        """Height and width in pixels of the pictures that the latents stand for."""
        factor = int(self._pipeline.vae_scale_factor)
        return self.sample_shape[1] * factor, self.sample_shape[2] * factor

    def _modules(self) -> dict[str, nn.Module]:
        """The components with weights that are used, by name."""
        found = {name: getattr(self._pipeline, name) for name in self.parts}
        return {name: part for name, part in found.items() if isinstance(part, nn.Module)}

    def _encoders(self) -> dict[str, nn.Module]:
        """The text encoders, by name."""
        return {name: part for name, part in self._modules().items() if name.startswith("text_encoder")}

    @contextmanager
    def as_base(self) -> Iterator[None]:
        """The model under its LoRAs, text encoders included, until the end of the block."""
        prompts = self._prompts
        if any(lora_scalings(part) for part in self._encoders().values()):
            self._prompts = self._base_prompts
        try:
            with without_lora(self.network, *self._encoders().values()):
                yield
        finally:
            self._prompts = prompts

    def _tokenizers(self) -> dict[str, Any]:
        found = {name: getattr(self._pipeline, name) for name in self.parts if name.startswith("tokenizer")}
        return {name: part for name, part in found.items() if part is not None}

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Class, configuration and a digest over every component, the same for any file format."""
        modules = self._modules()
        description = {
            "family": self.family,
            "sample_shape": list(self.sample_shape),
            "configs": {name: settings(module.config) for name, module in modules.items()},
            "scheduler": settings(self._pipeline.scheduler.config),
            "tokenizers": {name: tokenizer_settings(part) for name, part in self._tokenizers().items()},
            "lora": lora_scalings(self.network),
        }
        if text := {name: found for name, part in self._encoders().items() if (found := lora_scalings(part))}:
            description["lora_text"] = text
        return {
            "family": self.family,
            "conditional": self.conditional,
            "class": type(self.network).__name__,
            "parameters": sum(p.numel() for p in self.network.parameters()),
            "sample_shape": list(self.sample_shape),
            "prediction_type": self.schedule.prediction_type,
            "num_train_timesteps": self.schedule.num_train_timesteps,
            "digest": digest(description, {f"{name}.": module for name, module in modules.items()}),
        }

    @torch.no_grad()
    def encode(self, pixels: Sequence[np.ndarray]) -> Tensor:
        """Pictures (H, W, 3) uint8 to latents (B, C, h, w): shorter side resized, centre cropped, VAE.

        Training draws a latent from the VAE's posterior each time it sees a picture. Here it is the posterior's
        mean, so that a work's features are the same whenever they are computed; the posterior is narrow. Pictures
        are encoded one at a time: their latents don't depend on the company, and the VAE is what takes the memory.
        """
        vae = self._pipeline.vae
        latents = []
        for picture in pixels:
            values = fit(picture, (3, *self.picture_size))[None].to(self.device, vae.dtype)
            latents.append(self._scaled(self.posterior_mean(values)))
        return torch.cat(latents).to(self.device, self.dtype)

    def _scaled(self, latents: Tensor) -> Tensor:
        """Latents in the units that the network was trained in."""
        config = self._pipeline.vae.config
        mean, deviation = (getattr(config, f"latents_{name}", None) for name in ("mean", "std"))
        if mean is not None and deviation is not None:
            mean, deviation = (latents.new_tensor(v).view(1, -1, 1, 1) for v in (mean, deviation))
            return (latents - mean) * float(getattr(config, "scaling_factor", 1.0)) / deviation
        return (latents - (getattr(config, "shift_factor", None) or 0.0)) * float(config.scaling_factor)

    def condition(self, prompts: Sequence[str | None]) -> Conditioning:
        """The prompts' embeddings, batch first; None is the empty prompt, which training drops prompts to.

        Each different prompt is encoded once, alone, and then remembered.
        """
        found = [self._prompts.get(prompt or "", self._embed) for prompt in prompts]
        return {
            name: self.together([one[name] for one in found]).to(self.device, self.dtype) for name in found[0]
        }

    def cut_at(self, prompt: str) -> int | None:
        """How many tokens of a prompt's beginning reach the network, where not all do; None: all of them.

        Of several text encoders the one that takes most counts: what it is given reaches the network.
        """
        kept = 0
        for name, tokenizer in self._tokenizers().items():
            room = self.most_tokens(name, tokenizer) - tokenizer.num_special_tokens_to_add()
            # A token is a letter at least, but for the mark of T5's at the beginning.
            if prompt.isascii() and len(prompt) < room:
                return None
            if len(tokenizer(prompt, add_special_tokens=False).input_ids) <= room:
                return None
            kept = max(kept, room)
        return kept or None

    def most_tokens(self, name: str, tokenizer: Any) -> int:
        """How many tokens the text encoder of this tokenizer is given, those of beginning and end included."""
        return int(tokenizer.model_max_length)

    def together(self, embeddings: Sequence[Tensor]) -> Tensor:
        """One tensor of several prompts' embeddings, batch first; where a text encoder's differ in length, filled up
        with zeros."""
        return torch.stack(list(embeddings))

    def _embed(self, prompt: str) -> dict[str, Tensor]:
        with torch.no_grad():
            return {name: values.cpu() for name, values in self.embed(prompt).items()}

    def generate(self, prompts: Sequence[str | None], seeds: Sequence[int]) -> list[np.ndarray]:
        """Pictures (H, W, 3) uint8 of these prompts and seeds, made as the pipeline does it by itself."""
        height, width = self.picture_size
        self._pipeline.set_progress_bar_config(disable=True)
        return [
            np.asarray(
                self._pipeline(
                    prompt=prompt or "",
                    height=height,
                    width=width,
                    generator=torch.Generator().manual_seed(seed),
                ).images[0]
            )
            for prompt, seed in zip(prompts, seeds, strict=True)
        ]
