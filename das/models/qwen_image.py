"""Qwen-Image: diffusers' `QwenImagePipeline`, a transformer over packed latents and texts of any length."""

from collections.abc import Sequence
from typing import Any, ClassVar, Self

from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from das.errors import ModelError
from das.models import Conditioning
from das.models.latent import LatentModel
from das.models.pictures import both_sides
from das.schedules import FlowMatching

TOKENS = 512
"""As in diffusers' training scripts and pipeline; the template around a prompt isn't counted."""

PATCH = 2  # latents to a side of one token


class QwenImageModel(LatentModel):
    """A `QwenImagePipeline`.

    The engine sees latents (C, h, w); the VAE is one of video, which makes them as one frame, and the network takes
    them packed into 2 × 2 patches. A batch's texts are as long as the longest, with a mask of what is text: what
    the network predicts of a picture doesn't depend on its company. Pictures have the size of the pipeline's default,
    1024 pixels, or one that is chosen, since the transformer takes any.
    """

    family = "qwen-image"
    network_name = "transformer"
    parts: ClassVar[dict[str, str]] = {
        "vae": "AutoencoderKLQwenImage",
        "text_encoder": "Qwen2_5_VLForConditionalGeneration",
        "tokenizer": "Qwen2Tokenizer",
        "transformer": "QwenImageTransformer2DModel",
    }

    @classmethod
    def of(cls, pipeline: Any, *, device: str = "cpu") -> Self:
        """The adapter of a loaded pipeline.

        Raises:
            ModelError: the transformer takes more than latents and text, or the scheduler isn't of flow matching.
        """
        config, channels = pipeline.transformer.config, pipeline.vae.config.z_dim
        expected = (channels * PATCH**2, channels, PATCH)
        if (config.in_channels, config.out_channels, config.patch_size) != expected:
            raise ModelError(
                f"The transformer maps {config.in_channels} channels to {config.out_channels} in patches of"
                f" {config.patch_size}; latents packed in twos need {expected[0]}, {channels} and {PATCH}."
            )
        for name in ("guidance_embeds", "zero_cond_t", "use_additional_t_cond", "use_layer3d_rope"):
            if config.get(name):
                raise ModelError(
                    f"The transformer has {name}: networks that are also given another picture, layers or a guidance"
                    " scale (Edit, Layered) aren't supported."
                )
        size = pipeline.vae.config.get(
            "sample_size", pipeline.default_sample_size * pipeline.vae_scale_factor
        )
        step = pipeline.vae_scale_factor * PATCH
        height, width = (PATCH * (side // step) for side in both_sides(size))
        return cls(pipeline, FlowMatching.of(pipeline.scheduler), (height, width), device)

    @classmethod
    def set_latent_size(cls, pipeline: Any, height: int, width: int) -> None:
        """Note the size of the pictures with the VAE: the transformer's configuration has none."""
        height, width = (side * int(pipeline.vae_scale_factor) for side in (height, width))
        pipeline.vae.register_to_config(sample_size=height if height == width else (height, width))

    @classmethod
    def channels(cls, pipeline: Any) -> tuple[int, int]:
        """Of a picture and of a latent."""
        return pipeline.vae.config.input_channels, pipeline.vae.config.z_dim

    def posterior_mean(self, values: Tensor) -> Tensor:
        """The mean (1, C, h, w) of the VAE's posterior at a picture (1, 3, H, W), which is a video's one frame."""
        mean: Tensor = self._pipeline.vae.encode(values[:, :, None]).latent_dist.mode()[:, :, 0]
        return mean

    def embed(self, prompt: str) -> dict[str, Tensor]:
        """Hidden states of the prompt in its template, (tokens, width), and a mask of ones, (tokens,)."""
        states, _ = self._pipeline.encode_prompt(prompt, device=self.device, max_sequence_length=TOKENS)
        return {"prompt_embeds": states[0], "mask": states.new_ones(states.shape[1])}

    def most_tokens(self, name: str, tokenizer: Any) -> int:
        """Those of training, whatever the tokenizer can."""
        return TOKENS

    def together(self, embeddings: Sequence[Tensor]) -> Tensor:
        """Embeddings of several prompts, batch first, each filled up with zeros to the longest."""
        return pad_sequence(list(embeddings), batch_first=True)

    def predict(self, x_t: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        """The transformer's velocity at `x_t`, (B, C, h, w)."""
        assert isinstance(self.schedule, FlowMatching)
        batch, channels, height, width = x_t.shape
        pipeline = self._pipeline
        output: Tensor = self.network(
            pipeline._pack_latents(x_t.contiguous(), batch, channels, height, width),
            encoder_hidden_states=conditioning["prompt_embeds"],
            encoder_hidden_states_mask=conditioning["mask"] > 0,
            # The transformer multiplies by 1000 itself.
            timestep=(self.schedule.network_time(t) / 1000).to(x_t.dtype),
            img_shapes=[[(1, height // PATCH, width // PATCH)]] * batch,
            return_dict=False,
        )[0]
        factor = pipeline.vae_scale_factor
        unpacked: Tensor = pipeline._unpack_latents(output, height * factor, width * factor, factor)
        return unpacked[:, :, 0]
