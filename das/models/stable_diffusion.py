"""Stable Diffusion 1 and 2: diffusers' `StableDiffusionPipeline`, a UNet that attends to one text encoder."""

from typing import Any, ClassVar, Self

from torch import Tensor

from das.errors import ModelError
from das.models import Conditioning
from das.models.latent import LatentModel
from das.models.pictures import both_sides
from das.schedules import VariancePreserving


class StableDiffusionModel(LatentModel):
    """A `StableDiffusionPipeline`; a safety checker is neither needed nor used."""

    family = "stable-diffusion"
    network_name = "unet"
    parts: ClassVar[dict[str, str]] = {
        "vae": "AutoencoderKL",
        "text_encoder": "CLIPTextModel",
        "tokenizer": "CLIPTokenizer",
        "unet": "UNet2DConditionModel",
    }

    @classmethod
    def of(cls, pipeline: Any, *, device: str = "cpu") -> Self:
        """The adapter of a loaded pipeline.

        Raises:
            ModelError: the UNet takes more than latents and this family's conditioning, or the scheduler has no
                `ᾱ`.
        """
        check_unet(pipeline, addition=None)
        schedule = VariancePreserving.of(pipeline.scheduler)
        return cls(pipeline, schedule, both_sides(pipeline.unet.config.sample_size), device)

    @property
    def text_layers(self) -> int:
        """How many layers of the text encoder a prompt goes through."""
        layers: int = self._pipeline.text_encoder.config.num_hidden_layers
        return layers

    def embed(self, prompt: str) -> dict[str, Tensor]:
        """The last hidden states of the text encoder, (tokens, width)."""
        embeddings, _ = self._pipeline.encode_prompt([prompt], self.device, 1, False)
        return {"prompt_embeds": embeddings[0]}

    def predict(self, x_t: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        """The UNet's prediction at `x_t`, (B, C, h, w)."""
        output: Tensor = self.network(x_t, t, conditioning["prompt_embeds"], return_dict=False)[0]
        return output


# By the channels of the published ones.
_KINDS = {5: "a depth model", 7: "an upscaler", 8: "an InstructPix2Pix model", 9: "an inpainting model"}


def check_unet(pipeline: Any, addition: str | None) -> None:
    """Refuse a UNet that takes inputs besides latents, time, text and this `addition_embed_type`.

    Raises:
        ModelError: it does; the message names the setting.
    """
    config, channels = pipeline.unet.config, pipeline.vae.config.latent_channels
    if (config.in_channels, config.out_channels) != (channels, channels):
        raise ModelError(
            f"The UNet maps {config.in_channels} channels to {config.out_channels}, but the VAE's latents have "
            f"{channels}: {_KINDS.get(config.in_channels, 'a network of another kind')}. Networks that are also given"
            " a mask or another picture aren't supported."
        )
    unsupported = {
        "addition_embed_type": addition,
        "class_embed_type": None,
        "num_class_embeds": None,
        "encoder_hid_dim_type": None,
        "time_cond_proj_dim": None,  # the guidance scale that LCMs are distilled with
    }
    for name, expected in unsupported.items():
        if config.get(name) != expected:
            raise ModelError(
                f"The UNet's {name} is {config.get(name)!r}, expected {expected!r}: "
                "it is conditioned on something that a plain text-to-image model of this family isn't."
            )
