"""Stable Diffusion 3 and 3.5: diffusers' `StableDiffusion3Pipeline`, a transformer trained by flow matching."""

from typing import Any, ClassVar, Self

from torch import Tensor

from das.errors import ModelError
from das.models import Conditioning
from das.models.latent import LatentModel
from das.models.pictures import both_sides
from das.schedules import FlowMatching

T5_TOKENS = 77
"""As in diffusers' training scripts and the paper (Esser et al. 2024); pipelines sample with up to 256."""


class StableDiffusion3Model(LatentModel):
    """A `StableDiffusion3Pipeline`, with or without its T5 encoder (which then counts as zeros)."""

    family = "stable-diffusion-3"
    network_name = "transformer"
    parts: ClassVar[dict[str, str]] = {
        "vae": "AutoencoderKL",
        "text_encoder": "CLIPTextModelWithProjection",
        "text_encoder_2": "CLIPTextModelWithProjection",
        "text_encoder_3": "T5EncoderModel",
        "tokenizer": "CLIPTokenizer",
        "tokenizer_2": "CLIPTokenizer",
        "tokenizer_3": "T5Tokenizer",
        "transformer": "SD3Transformer2DModel",
    }
    optional = frozenset({"text_encoder_3", "tokenizer_3"})

    @classmethod
    def of(cls, pipeline: Any, *, device: str = "cpu") -> Self:
        """The adapter of a loaded pipeline.

        Raises:
            ModelError: the transformer takes more than latents, or the scheduler isn't one of flow matching.
        """
        config, channels = pipeline.transformer.config, pipeline.vae.config.latent_channels
        if (config.in_channels, config.out_channels) != (channels, channels):
            raise ModelError(
                f"The transformer maps {config.in_channels} channels to {config.out_channels}, but the VAE's "
                f"latents have {channels}. Networks that are also given another picture aren't supported."
            )
        return cls(pipeline, FlowMatching.of(pipeline.scheduler), both_sides(config.sample_size), device)

    def embed(self, prompt: str) -> dict[str, Tensor]:
        """Hidden states of all text encoders, (tokens, width), and the pooled states of both CLIPs."""
        tokenizer = self._pipeline.tokenizer_3
        tokens = T5_TOKENS if tokenizer is None else self.most_tokens("tokenizer_3", tokenizer)
        embeddings, _, pooled, _ = self._pipeline.encode_prompt(
            [prompt],
            None,
            None,
            device=self.device,
            do_classifier_free_guidance=False,
            max_sequence_length=tokens,
        )
        return {"prompt_embeds": embeddings[0], "pooled": pooled[0]}

    def most_tokens(self, name: str, tokenizer: Any) -> int:
        """Those that CLIP takes; of T5 those of training."""
        most = super().most_tokens(name, tokenizer)
        return min(T5_TOKENS, most) if name == "tokenizer_3" else most

    def predict(self, x_t: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        """The transformer's velocity at `x_t`, (B, C, h, w)."""
        output: Tensor = self.network(
            x_t,
            encoder_hidden_states=conditioning["prompt_embeds"],
            pooled_projections=conditioning["pooled"],
            timestep=self._time(t).to(x_t.dtype),
            return_dict=False,
        )[0]
        return output

    def _time(self, t: Tensor) -> Tensor:
        assert isinstance(self.schedule, FlowMatching)
        return self.schedule.network_time(t)
