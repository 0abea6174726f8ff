"""Tiny real pipelines of every text-conditioned family, and LoRAs fine-tuned on real photographs.

The classes and the directories are those of the published models; only widths, depths and vocabularies are small.
Weights are random but seeded, so a test that mixes up two components or loads none notices.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLQwenImage,
    DDPMScheduler,
    DiffusionPipeline,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from torch import nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Tokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

from das import registry
from demo.crops import CROP, all_crops
from demo.photographs import PHOTOGRAPHS

SIDE = CROP  # pixels of a picture, 32
LATENT = 8  # of a latent: the VAE halves a picture twice
TOKENS = 77
WIDTH = 16  # of a text encoder


def captions() -> list[str]:
    """What is said of the demo's photographs."""
    return [photograph.caption for photograph in PHOTOGRAPHS]


def clip_tokenizer() -> CLIPTokenizer:
    """A byte-pair tokenizer that knows the words of the captions, and every other word by its letters."""
    letters = "abcdefghijklmnopqrstuvwxyz0123456789.,-!"
    tokens = [*letters, *(f"{letter}</w>" for letter in letters)]
    merges: list[tuple[str, str]] = []
    for word in dict.fromkeys(" ".join(captions()).split()):
        pieces = [*word[:-1], f"{word[-1]}</w>"]
        while len(pieces) > 1:
            pair = (pieces[0], pieces[1])
            pieces[:2] = ["".join(pair)]
            if pair not in merges:
                merges.append(pair)
                tokens.append("".join(pair))
    tokens = [*dict.fromkeys(tokens), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(
        vocab={token: number for number, token in enumerate(tokens)}, merges=merges, model_max_length=TOKENS
    )


def t5_tokenizer() -> T5Tokenizer:
    """A unigram tokenizer that knows the words of the captions, and every other word by its letters."""
    words = dict.fromkeys(" ".join(captions()).split())
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    pieces += [(f"▁{word}", -2.0) for word in words]
    pieces += [(letter, -8.0) for letter in "▁abcdefghijklmnopqrstuvwxyz"]
    return T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=TOKENS)


def clip_encoder(tokenizer: CLIPTokenizer, kind: type[nn.Module] = CLIPTextModel, width: int = WIDTH) -> Any:
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=32,
        projection_dim=width,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=TOKENS,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return _lively(kind(config))


def t5_encoder(tokenizer: T5Tokenizer, width: int) -> T5EncoderModel:
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=width,
        d_kv=8,
        d_ff=32,
        num_layers=2,
        num_heads=2,
        pad_token_id=0,
        eos_token_id=1,
    )
    return T5EncoderModel(config)


def vae(**changes: Any) -> AutoencoderKL:
    """A VAE whose scaling factor gives the photographs' latents a variance of 1, as published ones do."""
    options: dict[str, Any] = {
        "block_out_channels": (4, 8, 8),
        "down_block_types": ("DownEncoderBlock2D",) * 3,
        "up_block_types": ("UpDecoderBlock2D",) * 3,
        "latent_channels": 4,
        "norm_num_groups": 4,
        "sample_size": SIDE,
    }
    made = AutoencoderKL(**(options | changes)).eval()
    pictures = torch.from_numpy(np.stack(photographs(8)[0]))
    with torch.no_grad():
        mean = made.encode(pictures.permute(0, 3, 1, 2).float() / 127.5 - 1).latent_dist.mode()
    made.register_to_config(scaling_factor=float(1 / mean.std()))
    return made


def unet(**changes: Any) -> UNet2DConditionModel:
    options: dict[str, Any] = {
        "sample_size": LATENT,
        "block_out_channels": (8, 16),
        "layers_per_block": 1,
        "cross_attention_dim": WIDTH,
        "attention_head_dim": 4,
        "norm_num_groups": 4,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    }
    return UNet2DConditionModel(**(options | changes))


def _lively(module: nn.Module) -> nn.Module:
    """Larger weights than the classes' first ones, with which a text hardly changes what comes out."""
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, parameter.shape[-1] ** -0.5)
    return module


def make_stable_diffusion(path: Path, seed: int = 0, *, width: int = WIDTH) -> None:
    """Save a `StableDiffusionPipeline` of about 40,000 parameters, without a safety checker.

    Args:
        width: of its text: 768 as in version 1, 1024 as in version 2.
    """
    torch.manual_seed(seed)
    tokenizer = clip_tokenizer()
    StableDiffusionPipeline(
        vae=vae(),
        text_encoder=clip_encoder(tokenizer, width=width),
        tokenizer=tokenizer,
        unet=unet(cross_attention_dim=width),
        scheduler=DDPMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            clip_sample=False,
            steps_offset=1,
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(path)


def make_sdxl(path: Path, seed: int = 0) -> None:
    """Save a `StableDiffusionXLPipeline` with the scheduler that the published one carries."""
    torch.manual_seed(seed)
    tokenizer = clip_tokenizer()
    StableDiffusionXLPipeline(
        vae=vae(),
        text_encoder=clip_encoder(tokenizer),
        text_encoder_2=clip_encoder(tokenizer, CLIPTextModelWithProjection),
        tokenizer=tokenizer,
        tokenizer_2=clip_tokenizer(),
        unet=unet(
            cross_attention_dim=2 * WIDTH,
            addition_embed_type="text_time",
            addition_time_embed_dim=4,
            projection_class_embeddings_input_dim=6 * 4 + WIDTH,
            use_linear_projection=True,
        ),
        scheduler=EulerDiscreteScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", timestep_spacing="leading"
        ),
    ).save_pretrained(path)


def make_sd3(path: Path, seed: int = 0) -> None:
    """Save a `StableDiffusion3Pipeline` with the norms and double attention of 3.5 and the shift of both."""
    torch.manual_seed(seed)
    tokenizer, tokenizer_3 = clip_tokenizer(), t5_tokenizer()
    transformer = SD3Transformer2DModel(
        sample_size=LATENT,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=2 * WIDTH,
        caption_projection_dim=16,
        pooled_projection_dim=2 * WIDTH,
        pos_embed_max_size=LATENT,
        dual_attention_layers=(0,),
        qk_norm="rms_norm",
    )
    StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=vae(shift_factor=0.0609),
        text_encoder=clip_encoder(tokenizer, CLIPTextModelWithProjection),
        tokenizer=tokenizer,
        text_encoder_2=clip_encoder(tokenizer, CLIPTextModelWithProjection),
        tokenizer_2=clip_tokenizer(),
        text_encoder_3=t5_encoder(tokenizer_3, 2 * WIDTH),
        tokenizer_3=tokenizer_3,
    ).save_pretrained(path)


def make_flux(path: Path, seed: int = 0, *, guidance: bool = True, blocks: int = 1) -> None:
    """Save a `FluxPipeline` like FLUX.1-dev, or like FLUX.1-schnell without `guidance`.

    Args:
        blocks: how many double blocks, and how many single ones.
    """
    torch.manual_seed(seed)
    tokenizer, tokenizer_2 = clip_tokenizer(), t5_tokenizer()
    transformer = FluxTransformer2DModel(
        in_channels=16,
        num_layers=blocks,
        num_single_layers=blocks,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=2 * WIDTH,
        pooled_projection_dim=WIDTH,
        guidance_embeds=guidance,
        axes_dims_rope=(4, 4, 8),
    )
    FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=guidance),
        vae=vae(shift_factor=0.1159),
        text_encoder=clip_encoder(tokenizer),
        tokenizer=tokenizer,
        text_encoder_2=t5_encoder(tokenizer_2, 2 * WIDTH),
        tokenizer_2=tokenizer_2,
        transformer=transformer,
    ).save_pretrained(path)


def qwen_tokenizer() -> Qwen2Tokenizer:
    """Reads every word by its letters."""
    letters = [*map(chr, range(33, 127)), "Ġ", "Ċ"]
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    vocabulary = {token: number for number, token in enumerate([*letters, *special])}
    return Qwen2Tokenizer(vocab=vocabulary, merges=[], extra_special_tokens=special[1:])


def make_qwen_image(path: Path, seed: int = 0) -> None:
    """Save a `QwenImagePipeline` with a VAE of video, which halves a picture twice."""
    torch.manual_seed(seed)
    tokenizer = qwen_tokenizer()
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": WIDTH,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 512,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10_000.0},
    }
    sight = {
        "depth": 1,
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_heads": 2,
        "out_hidden_size": WIDTH,
        "fullatt_block_indexes": [0],
    }
    markers = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    config = Qwen2_5_VLConfig(
        text_config=text, vision_config=sight, **{name: number for number, name in enumerate(markers)}
    )
    autoencoder = AutoencoderKLQwenImage(
        base_dim=4,
        z_dim=4,
        dim_mult=[1, 2, 2],
        num_res_blocks=1,
        temperal_downsample=[False, True],
        latents_mean=[0.01, -0.02, 0.03, 0.0],
        latents_std=[0.2, 0.15, 0.1, 0.25],
    )
    autoencoder.register_to_config(sample_size=SIDE)
    transformer = QwenImageTransformer2DModel(
        in_channels=16,
        out_channels=4,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        axes_dims_rope=(4, 4, 8),
    )
    QwenImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(
            use_dynamic_shifting=True, base_shift=0.5, max_shift=0.9, shift_terminal=0.02
        ),
        vae=autoencoder,
        text_encoder=_lively(Qwen2_5_VLForConditionalGeneration(config)),
        tokenizer=tokenizer,
        transformer=transformer,
    ).save_pretrained(path)


FAMILIES = {
    "stable-diffusion": make_stable_diffusion,
    "stable-diffusion-xl": make_sdxl,
    "stable-diffusion-3": make_sd3,
    "flux": make_flux,
}
"""How to make a pipeline of each family."""


def photographs(count: int = 24) -> tuple[list[np.ndarray], list[str]]:
    """Real pictures (32, 32, 3) uint8, spread over the demo's photographs, and what is said of them."""
    crops = all_crops()
    chosen = [crops[number * len(crops) // count] for number in range(count)]
    return [crop.pixels for crop in chosen], [crop.caption for crop in chosen]


ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
"""The layers that diffusers' training scripts put a LoRA on, in every family."""


def finetune_lora(
    pipeline: DiffusionPipeline,
    pictures: Sequence[np.ndarray],
    prompts: Sequence[str],
    repeats: Sequence[int],
    steps: int,
    seed: int,
    *,
    layers: Sequence[str] = ATTENTION,
    rank: int = 2,
    alpha: int = 4,
    prompt_dropout: float = 0.0,
) -> PeftModel:
    """Train a LoRA on the pipeline's network, in place; the pipeline generates with it afterwards.

    Args:
        repeats: how often each picture is in the training stream.
        layers: ends of the names of the layers that get one.
        prompt_dropout: part of the examples that are trained on without their prompt.

    Returns:
        The network's peft wrapper; `save_lora` and its own `save_pretrained` write the LoRA.
    """
    torch.manual_seed(seed)
    model = adapter_of(pipeline).of(pipeline)
    wrapped = get_peft_model(
        model.network, LoraConfig(r=rank, lora_alpha=alpha, target_modules=list(layers), lora_dropout=0.0)
    )
    trained = [parameter for parameter in wrapped.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=1e-2)
    latents, schedule = model.encode(pictures), model.schedule
    stream = torch.tensor(repeats, dtype=torch.float)
    for _ in range(steps):
        rows = torch.multinomial(stream, 8, replacement=True)
        t = torch.randint(schedule.num_train_timesteps, (8,))
        noise = torch.randn(8, *model.sample_shape)
        dropped = torch.rand(8) < prompt_dropout
        given = [None if drop else prompts[row] for row, drop in zip(rows.tolist(), dropped, strict=True)]
        x0 = latents[rows]
        output = model.predict(schedule.add_noise(x0, noise, t), t, model.condition(given))
        loss = (output - schedule.target(x0, noise, t)).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return wrapped


def adapter_of(pipeline: DiffusionPipeline) -> Any:
    """The adapter class that `load_model` chooses for a directory of such a pipeline."""
    family = registry.family(type(pipeline).__name__)
    assert family is not None
    return registry.resolve(family.adapter, family.name, None)


def save_lora(pipeline: DiffusionPipeline, wrapped: PeftModel, path: Path) -> None:
    """Write `pytorch_lora_weights.safetensors` as the training scripts do, with the LoRA's settings beside it."""
    part = adapter_of(pipeline).network_name
    state = {
        name.removeprefix("base_model.model."): tensor.detach().clone()
        for name, tensor in get_peft_model_state_dict(wrapped).items()
    }
    pipeline.save_lora_weights(
        path,
        **{
            f"{part}_lora_layers": state,
            f"{part}_lora_adapter_metadata": wrapped.peft_config["default"].to_dict(),
        },
    )
