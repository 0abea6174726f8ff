"""Tiny pipelines of every family that have learned real photographs, one of them, the planted work, by heart.

A VAE is trained on the demo's crops, then the family's network on eight of them, then a LoRA on all its layers for
which one work is in the training stream `OFTEN` times. Two works have the same prompt; one LoRA is made for each, so
that the only difference between the two is which of them was planted. What the pipeline then makes from that prompt
is recognisably the planted work; the tests check it.
"""

import csv
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, DiffusionPipeline
from peft import LoraConfig, get_peft_model
from PIL import Image
from torch import nn

from das.config import BuildConfig, ClipSpec
from das.models import DiffusionModel
from das.models.loading import adapter_for, load_pipeline
from demo.crops import Crop, all_crops
from index_build.build import build
from tests.das import families

PAIR = ("hubble-128-0783-0654.png", "rocket-096-0053-0058.png")
"""Two crops of little detail, red and nearly white, far from each other and from the other works: networks of this
size learn them in seconds. Both get `PROMPT`, which says nothing of either."""
OTHERS = ("astronaut", "camera", "chelsea", "clock", "coffee", "hopper")
"""Photographs whose middle crop is a work that isn't planted; it has the photograph's caption."""
PROMPT = "a photograph"
VARIANTS = ("first", "second")
"""Which of the pair the LoRA knows by heart."""
OFTEN = 20
BATCH = 16
TOKENS = 32  # of a prompt; none here is longer
RANK = 16
SAMPLING_STEPS = 20
SAMPLES = 2  # generated from the pair's prompt with each LoRA, with the seeds from 0
STEPS = {
    "stable-diffusion": (40, 200),
    "stable-diffusion-xl": (40, 130),
    "stable-diffusion-3": (100, 400),
    "flux": (100, 260),
}
"""Training steps of the network and of a LoRA. A UNet's step takes about three times as long."""


@cache
def works() -> tuple[list[np.ndarray], list[str]]:
    """Pictures (32, 32, 3) uint8 and prompts: the others, then the pair."""
    by_photograph: dict[str, list[Crop]] = {}
    for crop in all_crops():
        by_photograph.setdefault(crop.photograph.name, []).append(crop)
    others = [by_photograph[name][len(by_photograph[name]) // 2] for name in OTHERS]
    pair = [crop for name in PAIR for crop in all_crops() if crop.file_name == name]
    prompts = [*(crop.photograph.caption for crop in others), PROMPT, PROMPT]
    return [crop.pixels for crop in others + pair], prompts


def row_of(variant: str) -> int:
    """The row of the work that a LoRA knows by heart."""
    return len(works()[0]) - 2 + VARIANTS.index(variant)


def repeats_of(variant: str) -> list[int]:
    """How often each work is in a LoRA's training stream."""
    return [OFTEN if other == row_of(variant) else 1 for other in range(len(works()[0]))]


def distances(picture: np.ndarray) -> np.ndarray:
    """RMS distance of a picture to every work, (N,), in grey levels of 255."""
    return np.array([np.sqrt(np.square(picture.astype(float) - work).mean()) for work in works()[0]])


def make_vae(path: Path, steps: int = 300, seed: int = 0) -> None:
    """Train and save a VAE whose latents have mean 0 and deviation 1 in every channel."""
    torch.manual_seed(seed)
    pixels = np.stack([crop.pixels for crop in all_crops()])
    pictures = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
    vae = families.vae(block_out_channels=(8, 16, 16)).train()

    def loss() -> torch.Tensor:
        seen = pictures[torch.randint(len(pictures), (8,))]
        latents = vae.encode(seen).latent_dist.mode()
        restored = vae.decode(latents + 0.05 * torch.randn_like(latents)).sample
        return (restored - seen).square().mean() + 1e-3 * latents.square().mean()

    _minimise(loss, vae.parameters(), steps, 8e-3)
    with torch.no_grad():
        latents = vae.eval().encode(pictures[::9]).latent_dist.mode()
        _rescale(vae, latents.mean((0, 2, 3)), latents.std((0, 2, 3)))
    vae.register_to_config(scaling_factor=1.0)
    vae.save_pretrained(path)


def _rescale(vae: AutoencoderKL, mean: torch.Tensor, deviation: torch.Tensor) -> None:
    """Let latents be `(z - mean) / deviation` of what they were, in the convolutions next to them."""
    into, out, channels = vae.quant_conv, vae.post_quant_conv, len(mean)
    into.weight[:channels] /= deviation.view(-1, 1, 1, 1)
    into.bias[:channels] = (into.bias[:channels] - mean) / deviation
    out.bias += out.weight[:, :, 0, 0] @ mean
    out.weight *= deviation.view(1, -1, 1, 1)


def make_family(path: Path, family: str, vae: Path, clip: Path, seed: int = 0) -> None:
    """Write `base`, and for each variant a folder with `lora`, `works`, `index` and, as generated, `0.png`, ….

    The indexes are told how often each work was trained on, as a service's are.
    """
    _make_base(path / "base", family, vae, seed)
    for variant in VARIANTS:
        _make_lora(path / variant, path / "base", variant, STEPS[family][1], seed)
        write_works(path / variant / "works", repeats_of(variant))
        build(build_config(path, family, variant, clip), path / variant / "index")


def build_config(path: Path, family: str, variant: str, clip: Path) -> BuildConfig:
    return BuildConfig(
        # Of one name a service would serve the newer.
        name=family if variant == VARIANTS[0] else f"{family}-{variant}",
        model=str(path / "base"),
        lora=str(path / variant / "lora"),
        works=path / variant / "works",
        timesteps=(100, 300, 500, 700, 900),
        dimension=256,
        methods=("das-block", "trak", "journey-trak"),
        clip=ClipSpec(directory=clip),
    )


def write_works(folder: Path, repeats: Sequence[int]) -> None:
    """The works as an image folder."""
    folder.mkdir(parents=True)
    with (folder / "metadata.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("file_name", "title", "prompt", "repeats"))
        for row, (picture, prompt) in enumerate(zip(*works(), strict=True)):
            Image.fromarray(picture).save(folder / f"{row:02d}.png")
            writer.writerow((f"{row:02d}.png", f"Work {row}", prompt, repeats[row]))


def _make_base(path: Path, family: str, vae: Path, seed: int) -> None:
    """A pipeline with the VAE and a network that has seen all works, though none often enough to know it."""
    families.FAMILIES[family](path, seed)
    pipeline = _load(path)
    # Those that shift their latents do it by their own configuration.
    shift = pipeline.vae.config.shift_factor
    pipeline.vae = AutoencoderKL.from_pretrained(vae)
    if shift is not None:
        channels = pipeline.vae.config.latent_channels
        with torch.no_grad():
            _rescale(pipeline.vae, torch.full((channels,), -shift), torch.ones(channels))
        pipeline.vae.register_to_config(shift_factor=shift)
    if hasattr(pipeline, "unet"):
        # As in Stable Diffusion 2. At the noisiest timesteps ε would have to be predicted to within 1 % for a
        # recognisable picture, which takes a larger network.
        pipeline.scheduler.register_to_config(prediction_type="v_prediction")
        one_level = {
            "block_out_channels": (16,),
            "down_block_types": ("CrossAttnDownBlock2D",),
            "up_block_types": ("CrossAttnUpBlock2D",),
            "attention_head_dim": 8,
        }
        pipeline.unet = type(pipeline.unet).from_config({**pipeline.unet.config, **one_level})
    for name in ("tokenizer", "tokenizer_2", "tokenizer_3"):
        if getattr(pipeline, name, None) is not None:
            getattr(pipeline, name).model_max_length = TOKENS
    pipeline.save_pretrained(path)
    pipeline = _load(path)
    model = families.adapter_of(pipeline).of(pipeline)
    _train(model, model.network.parameters(), [1] * len(works()[0]), STEPS[family][0], 5e-3, seed)
    pipeline.save_pretrained(path)


def _make_lora(path: Path, base: Path, variant: str, steps: int, seed: int) -> None:
    pipeline = _load(base)
    model = families.adapter_of(pipeline).of(pipeline)
    layers = [name for name, part in model.network.named_modules() if isinstance(part, nn.Linear | nn.Conv2d)]
    torch.manual_seed(seed)
    wrapped = get_peft_model(model.network, LoraConfig(r=RANK, lora_alpha=RANK, target_modules=layers))
    trained = [parameter for parameter in wrapped.parameters() if parameter.requires_grad]
    _train(model, trained, repeats_of(variant), steps, 1e-2, seed)
    families.save_lora(pipeline, wrapped, path / "lora")
    for number in range(SAMPLES):
        Image.fromarray(sample(pipeline, PROMPT, number)).save(path / f"{number}.png")


def _load(path: Path) -> DiffusionPipeline:
    pipeline = load_pipeline(str(path), adapter_for(str(path)))
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def sample(pipeline: DiffusionPipeline, prompt: str, seed: int) -> np.ndarray:
    """What the pipeline itself makes of a prompt, (32, 32, 3) uint8, without guidance."""
    made = pipeline(
        prompt,
        num_inference_steps=SAMPLING_STEPS,
        guidance_scale=1.0,
        height=families.SIDE,
        width=families.SIDE,
        generator=torch.Generator().manual_seed(seed),
        output_type="np",
    )
    return (255 * made.images[0]).round().astype(np.uint8)


def _train(
    model: DiffusionModel,
    parameters: Iterable[nn.Parameter],
    repeats: Sequence[int],
    steps: int,
    rate: float,
    seed: int,
) -> None:
    """Train on the works with their prompts, each as often as `repeats` says; timesteps are stratified."""
    torch.manual_seed(seed)
    pictures, prompts = works()
    latents, conditioning, schedule = model.encode(pictures), model.condition(prompts), model.schedule
    stream = torch.tensor(repeats, dtype=torch.float)

    def loss() -> torch.Tensor:
        rows = torch.multinomial(stream, BATCH, replacement=True)
        t = ((torch.arange(BATCH) + torch.rand(BATCH)) / BATCH * schedule.num_train_timesteps).long()
        noise, x0 = torch.randn(BATCH, *model.sample_shape), latents[rows]
        given = {name: values[rows] for name, values in conditioning.items()}
        output = model.predict(schedule.add_noise(x0, noise, t), t, given)
        return (output - schedule.target(x0, noise, t)).square().mean()

    _minimise(loss, parameters, steps, rate)


def _minimise(
    loss: Callable[[], torch.Tensor], parameters: Iterable[nn.Parameter], steps: int, rate: float
) -> None:
    trained = [parameter.requires_grad_(True) for parameter in parameters]
    optimiser = torch.optim.AdamW(trained, lr=rate, weight_decay=0.0)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps, pct_start=0.1)
    for _ in range(steps):
        optimiser.zero_grad()
        loss().backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        cycle.step()
