"""Stable Diffusion XL: diffusers' `StableDiffusionXLPipeline`, a UNet given two text encoders and a size."""

from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from das.models import Conditioning
from das.models.latent import LatentModel
from das.models.pictures import both_sides
from das.models.stable_diffusion import check_unet
from das.schedules import VariancePreserving


class StableDiffusionXLModel(LatentModel):
    """A `StableDiffusionXLPipeline` (the base model, not the refiner)."""

    family = "stable-diffusion-xl"
    network_name = "unet"
    parts: ClassVar[dict[str, str]] = {
        "vae": "AutoencoderKL",
        "text_encoder": "CLIPTextModel",
        "text_encoder_2": "CLIPTextModelWithProjection",
        "tokenizer": "CLIPTokenizer",
        "tokenizer_2": "CLIPTokenizer",
        "unet": "UNet2DConditionModel",
    }

    @classmethod
    def of(cls, pipeline: Any, *, device: str = "cpu") -> Self:
        """The adapter of a loaded pipeline.

        Raises:
            ModelError: the UNet takes more than latents and this family's conditioning, or the scheduler has no
                `ᾱ`.
        """
        check_unet(pipeline, addition="text_time")
        schedule = VariancePreserving.of(pipeline.scheduler)
        return cls(pipeline, schedule, both_sides(pipeline.unet.config.sample_size), device)

    def embed(self, prompt: str) -> dict[str, Tensor]:
        """Hidden states of both text encoders (tokens, width), the second's pooled state, and the size, (6,).

        The size is that of a whole picture: original and target size are the model's own, cropped at (0, 0).
        The empty prompt is encoded like any other, as in training; only the pipeline's sampling may replace it
        with zeros (`force_zeros_for_empty_prompt`).
        """
        embeddings, _, pooled, _ = self._pipeline.encode_prompt(
            [prompt], device=self.device, num_images_per_prompt=1, do_classifier_free_guidance=False
        )
        height, width = self.picture_size
        time_ids = torch.tensor([height, width, 0, 0, height, width], dtype=embeddings.dtype)
        return {"prompt_embeds": embeddings[0], "pooled": pooled[0], "time_ids": time_ids}

    def predict(self, x_t: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        """The UNet's prediction at `x_t`, (B, C, h, w)."""
        added = {"text_embeds": conditioning["pooled"], "time_ids": conditioning["time_ids"]}
        output: Tensor = self.network(
            x_t, t, conditioning["prompt_embeds"], added_cond_kwargs=added, return_dict=False
        )[0]
        return output
