"""The small diffusion models that a ground truth takes: recipe, fresh networks, losses, samples."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from das.durable import write_directory
from das.errors import SettingsError
from das.prng import random_words, standard_normal
from das.schedules import VariancePreserving
from measure.adapters import add_new_lora, base_network

TRAIN_TIMESTEPS = 1000
GROUPS = 8  # of every group normalisation; each width must be a multiple
WARMUP_SHARE = 0.1  # of the steps, as in the cosine schedule of the paper's recipe
# Forward passes without gradients; larger batches no longer pay on a CPU.
EVALUATION_BATCH = 128
# On a GPU a batch of small pictures costs as long as one picture does.
GPU_EVALUATION_BATCH = 8192


@dataclass(frozen=True)
class Recipe:
    """How one model is trained: AdamW, linear warm-up over a tenth of the steps, then a cosine to zero.

    Attributes:
        steps: of a subset model; the full model takes `full_steps`, so that both see a work equally often.
        widths: channels of the U-Net's levels, from full resolution down.
        rank: of the LoRA that is trained on a base network, which stays as it is; None trains a network from scratch.
    """

    widths: tuple[int, ...] = (16, 32, 48)
    steps: int = 800
    full_steps: int = 1600
    batch_size: int = 32
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    rank: int | None = None

    def __post_init__(self) -> None:
        if not self.widths or any(width < 1 or width % GROUPS for width in self.widths):
            raise SettingsError(f"Widths must be multiples of {GROUPS}; got {list(self.widths)}.")
        for name in ("steps", "full_steps", "batch_size", "learning_rate"):
            if not getattr(self, name) > 0:
                raise SettingsError(f"{name} must be above 0, not {getattr(self, name)}.")

        if self.rank is not None and self.rank < 1:
            raise SettingsError(f"rank must be at least 1, not {self.rank}.")

    def rate(self, step: int, steps: int) -> float:
        """Learning rate of a step."""
        warm = max(1, round(WARMUP_SHARE * steps))
        if step < warm:
            return self.learning_rate * (step + 1) / warm
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def new_network(shape: Sequence[int], recipe: Recipe) -> nn.Module:
    """A U-Net for pictures (C, H, W), with fresh weights from torch's current seed.

    Raises:
        SettingsError: the picture can't be halved as often as there are levels.
    """
    from diffusers.models.unets.unet_2d import UNet2DModel

    channels, height, width = shape
    halvings = 2 ** (len(recipe.widths) - 1)
    if height % halvings or width % halvings:
        raise SettingsError(
            f"Pictures of {height} × {width} can't be halved for {len(recipe.widths)} levels; use fewer widths."
        )
    network: nn.Module = UNet2DModel(
        sample_size=(height, width) if height != width else height,
        in_channels=channels,
        out_channels=channels,
        layers_per_block=1,
        block_out_channels=recipe.widths,
        down_block_types=("DownBlock2D",) * len(recipe.widths),
        up_block_types=("UpBlock2D",) * len(recipe.widths),
        norm_num_groups=GROUPS,
        add_attention=False,
    )
    return network


def start_of(shape: Sequence[int], recipe: Recipe, base: Path | None) -> tuple[nn.Module, list[nn.Parameter]]:
    """The network that training starts from, from torch's current seed, and what of it is trained.

    Raises:
        SettingsError: a LoRA without a base, or a base without a LoRA.
    """
    if (recipe.rank is None) != (base is None):
        raise SettingsError("A LoRA needs a base network to be trained on, and a base a LoRA's rank.")
    if recipe.rank is None or base is None:
        network = new_network(shape, recipe)
        return network, list(network.parameters())
    network = base_network(base)
    return network, add_new_lora(network, recipe.rank)


def forget(network: nn.Module, seed: int) -> None:
    """Put a network back to before its training, in place: fresh weights, or under a LoRA a fresh LoRA.

    A control: what features of a network that has seen no work are worth.
    """
    lora = [(name, weights) for name, weights in network.named_parameters() if ".lora_" in name]
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed_of(seed, "untrained"))
        for name, weights in lora:
            if ".lora_A." in name:
                nn.init.kaiming_uniform_(weights, a=math.sqrt(5))
            else:
                nn.init.zeros_(weights)
        if not lora:
            for module in network.modules():
                reset = getattr(module, "reset_parameters", None)
                if reset is not None:
                    reset()


def new_scheduler() -> Any:
    """A DDPMScheduler: epsilon prediction over 1,000 linear steps, clipped samples."""
    from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

    return DDPMScheduler(
        num_train_timesteps=TRAIN_TIMESTEPS, beta_schedule="linear", prediction_type="epsilon"
    )


def save_pipeline(network: Any, path: Path) -> None:
    """A DDPMPipeline directory, there whole or not at all."""
    from diffusers.pipelines.ddpm.pipeline_ddpm import DDPMPipeline
    from diffusers.utils import logging

    # Its bars would run into our own lines.
    logging.disable_progress_bar()
    write_directory(path, DDPMPipeline(unet=network, scheduler=new_scheduler()).save_pretrained)


def seed_of(seed: int, *path: object) -> int:
    """A seed for one purpose, fixed by the run's seed and a path of labels."""
    label = "\n".join(["evaluation", *map(str, path)])
    return int(random_words(seed, label, 1)[0] >> 1)


@dataclass(frozen=True)
class LossConfig:
    """What a query's loss is averaged over: evenly spaced timesteps, and noises that all models and queries share."""

    timesteps: int = 25
    draws: int = 2
    seed: int = 0

    def points(self, train_timesteps: int = TRAIN_TIMESTEPS) -> list[tuple[int, int]]:
        """The pairs of timestep and draw, of a schedule of so many: 50 timesteps of 1,000 are 10, 30, …, 990."""
        times = [(2 * i + 1) * train_timesteps // (2 * self.timesteps) for i in range(self.timesteps)]
        return [(t, draw) for t in times for draw in range(self.draws)]


def shared_noises(shape: Sequence[int], config: LossConfig) -> Tensor:
    """The noise of every point, the same for all models and queries: (P, C, H, W) float32."""
    drawn = [
        standard_normal(config.seed, f"evaluation\nloss\n{t}\n{draw}", tuple(shape))
        for t, draw in config.points()
    ]
    return torch.from_numpy(np.stack(drawn)).float()


@torch.inference_mode()
def predictions_on(network: nn.Module, images: Tensor, config: LossConfig) -> Tensor:
    """What a network predicts on pictures (Q, C, H, W) at every point of a loss: (P, Q, C, H, W) float32, there."""
    device = next(network.parameters()).device
    schedule = VariancePreserving.of(new_scheduler())
    images = images.to(device)
    times = torch.tensor([t for t, _ in config.points()], device=device)
    noises = shared_noises(images.shape[1:], config).to(device)
    batch = EVALUATION_BATCH if device.type == "cpu" else GPU_EVALUATION_BATCH
    pairs = torch.cartesian_prod(torch.arange(len(times)), torch.arange(len(images))).to(device)
    found = []
    for point, query in (part.unbind(1) for part in pairs.split(batch)):
        x_t = schedule.add_noise(images[query], noises[point], times[point])
        found.append(network(x_t, times[point], return_dict=False)[0])
    predicted: Tensor = torch.cat(found).unflatten(0, (len(times), len(images)))
    return predicted


def simple_losses(predicted: Tensor, noises: Tensor) -> Tensor:
    """The Simple Loss of each query, mean over pixels, timesteps and noises: (Q,) float32 on the CPU.

    Args:
        predicted: (P, Q, C, H, W), see `predictions_on`.
        noises: (P, C, H, W), see `shared_noises`.
    """
    errors = (predicted - noises[:, None].to(predicted)).square().flatten(2).mean(2, dtype=torch.float64)
    return errors.mean(0).float().cpu()


def losses_on(network: nn.Module, images: Tensor, config: LossConfig) -> Tensor:
    """The Simple Loss of a network on pictures (Q, C, H, W): (Q,) float32 on the CPU."""
    return simple_losses(predictions_on(network, images, config), shared_noises(images.shape[1:], config))


@torch.inference_mode()
def sample(network: nn.Module, scheduler: Any, shape: Sequence[int], *, seed: int, steps: int) -> Tensor:
    """Generate pictures of `shape` (n, C, H, W) by DDIM without added noise: fixed by the weights and `seed`.

    Picture i starts from the same noise whatever n is.
    """
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler

    device = next(network.parameters()).device
    ddim = DDIMScheduler.from_config(scheduler.config)
    ddim.set_timesteps(steps)
    start = [standard_normal(seed, f"evaluation\nsample\n{i}", tuple(shape[1:])) for i in range(shape[0])]
    finished = []
    for first in range(0, shape[0], EVALUATION_BATCH):
        x = torch.stack([torch.from_numpy(noise) for noise in start[first : first + EVALUATION_BATCH]])
        x = x.to(device, torch.float32)
        for t in ddim.timesteps:
            output = network(x, t.to(device), return_dict=False)[0]
            x = ddim.step(output, t, x, eta=0.0).prev_sample
        finished.append(x.clamp(-1, 1).cpu())
    return torch.cat(finished)
