"""FLUX.1: diffusers' `FluxPipeline`, a transformer over packed latents trained by flow matching."""

from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from das.errors import ModelError
from das.models import Conditioning
from das.models.latent import LatentModel
from das.models.pictures import both_sides
from das.schedules import FlowMatching

T5_TOKENS = 512
"""As in diffusers' training scripts and pipeline; fewer where the tokenizer's own limit is lower."""

TRAINING_GUIDANCE = 1.0
"""FLUX.1-dev is also given the guidance scale it was distilled for. Fine-tuning sets it to 1, no guidance: what
diffusers' instructions for `train_dreambooth_lora_flux.py` do (its own default, 3.5, is that of sampling)."""

PATCH = 2  # latents to a side of one token


class FluxModel(LatentModel):
    """A `FluxPipeline`.

    The engine sees latents (C, h, w) as the VAE makes them; they are packed into 2 × 2 patches on the way to the
    network and unpacked behind it. Pictures have the size that the VAE's configuration gives, since the transformer
    takes any.
    """

    family = "flux"
    network_name = "transformer"
    parts: ClassVar[dict[str, str]] = {
        "vae": "AutoencoderKL",
        "text_encoder": "CLIPTextModel",
        "text_encoder_2": "T5EncoderModel",
        "tokenizer": "CLIPTokenizer",
        "tokenizer_2": "T5Tokenizer",
        "transformer": "FluxTransformer2DModel",
    }

    @classmethod
    def of(cls, pipeline: Any, *, device: str = "cpu") -> Self:
        """The adapter of a loaded pipeline.

        Raises:
            ModelError: the transformer takes more than latents, or the scheduler isn't one of flow matching.
        """
        config, channels = pipeline.transformer.config, pipeline.vae.config.latent_channels
        packed = channels * PATCH**2
        if (config.in_channels, config.out_channels or config.in_channels) != (packed, packed):
            raise ModelError(
                f"The transformer maps {config.in_channels} channels to "
                f"{config.out_channels or config.in_channels}, but packed latents have {packed}. Networks that are "
                "also given a mask or another picture (Fill, Canny, Depth) aren't supported."
            )
        step = pipeline.vae_scale_factor * PATCH
        height, width = (PATCH * (side // step) for side in both_sides(pipeline.vae.config.sample_size))
        return cls(pipeline, FlowMatching.of(pipeline.scheduler), (height, width), device)

    @classmethod
    def resize(cls, pipeline: Any, height: int, width: int) -> None:
        """Let the pictures have this size in pixels; raises ModelError for one that isn't whole patches."""
        step = pipeline.vae_scale_factor * PATCH
        if height % step or width % step:
            raise ModelError(
                f"A size of {width} × {height} can't be used: this model needs multiples of {step}."
            )
        pipeline.vae.register_to_config(sample_size=height if height == width else (height, width))

    def embed(self, prompt: str) -> dict[str, Tensor]:
        """Hidden states of T5, (tokens, width), and the pooled state of CLIP."""
        embeddings, pooled, _ = self._pipeline.encode_prompt(
            [prompt],
            device=self.device,
            max_sequence_length=self.most_tokens("tokenizer_2", self._pipeline.tokenizer_2),
        )
        return {"prompt_embeds": embeddings[0], "pooled": pooled[0]}

    def most_tokens(self, name: str, tokenizer: Any) -> int:
        """Those that CLIP takes; of T5 those of training."""
        most = super().most_tokens(name, tokenizer)
        return min(T5_TOKENS, most) if name == "tokenizer_2" else most

    def predict(self, x_t: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        """The transformer's velocity at `x_t`, (B, C, h, w)."""
        assert isinstance(self.schedule, FlowMatching)
        batch, channels, height, width = x_t.shape
        pipeline, text = self._pipeline, conditioning["prompt_embeds"]
        guidance = None
        if pipeline.transformer.config.guidance_embeds:
            guidance = torch.full((batch,), TRAINING_GUIDANCE, device=x_t.device, dtype=x_t.dtype)
        output: Tensor = self.network(
            pipeline._pack_latents(x_t.contiguous(), batch, channels, height, width),
            encoder_hidden_states=text,
            pooled_projections=conditioning["pooled"],
            # The transformer multiplies by 1000 itself.
            timestep=(self.schedule.network_time(t) / 1000).to(x_t.dtype),
            img_ids=pipeline._prepare_latent_image_ids(
                batch, height // PATCH, width // PATCH, x_t.device, x_t.dtype
            ),
            txt_ids=torch.zeros(text.shape[1], 3, device=x_t.device, dtype=x_t.dtype),
            guidance=guidance,
            return_dict=False,
        )[0]
        factor = pipeline.vae_scale_factor
        unpacked: Tensor = pipeline._unpack_latents(output, height * factor, width * factor, factor)
        return unpacked
