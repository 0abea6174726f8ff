"""Training of the small diffusion models that a ground truth takes: recipe, one training run, losses, samples."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from das.errors import SettingsError
from das.evaluation.adapters import add_new_lora, base_network
from das.prng import random_words, standard_normal
from das.schedules import VariancePreserving

if TYPE_CHECKING:
    from diffusers import DDPMScheduler, UNet2DModel

TRAIN_TIMESTEPS = 1000
GROUPS = 8  # of every group normalisation; each width must be a multiple
WARMUP_SHARE = 0.1  # of the steps, as in the cosine schedule of the paper's recipe
# Forward passes without gradients; larger batches no longer pay on a CPU.
EVALUATION_BATCH = 128


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


def new_network(shape: Sequence[int], recipe: Recipe) -> "UNet2DModel":
    """A U-Net for pictures (C, H, W), with fresh weights from torch's current seed.

    Raises:
        SettingsError: the picture can't be halved as often as there are levels.
    """
    from diffusers import UNet2DModel

    channels, height, width = shape
    halvings = 2 ** (len(recipe.widths) - 1)
    if height % halvings or width % halvings:
        raise SettingsError(
            f"Pictures of {height} × {width} can't be halved for {len(recipe.widths)} levels; use fewer widths."
        )
    return UNet2DModel(
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


def start_of(
    shape: Sequence[int], recipe: Recipe, base: Path | None
) -> "tuple[UNet2DModel, list[nn.Parameter]]":
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
                if hasattr(module, "reset_parameters"):
                    module.reset_parameters()


def new_scheduler() -> "DDPMScheduler":
    """Epsilon prediction over 1,000 linear steps, clipped samples."""
    from diffusers import DDPMScheduler

    return DDPMScheduler(
        num_train_timesteps=TRAIN_TIMESTEPS, beta_schedule="linear", prediction_type="epsilon"
    )


def seed_of(seed: int, *path: object) -> int:
    """A seed for one purpose, fixed by the run's seed and a path of labels."""
    label = "\n".join(["evaluation", *map(str, path)])
    return int(random_words(seed, label, 1)[0] >> 1)


def train(
    images: Tensor,
    recipe: Recipe,
    *,
    seed: int,
    steps: int | None = None,
    device: str = "cpu",
    base: Path | None = None,
    report: Callable[[int, nn.Module], None] | None = None,
) -> "UNet2DModel":
    """Train a fresh network, or a fresh LoRA on a base, on pictures (n, C, H, W) in [-1, 1].

    A pure function of its arguments on one machine.

    Works come in shuffled epochs laid end to end; timesteps are stratified over the batch. The weights at the start
    and the noises depend on `seed` alone, so that models of different subsets with one seed share them: what then
    differs between them is the works.

    Args:
        base: the pipeline whose network the LoRA of a recipe with a rank is put on.
        report: called after every step with the number of steps done and the network.
    """
    steps = recipe.steps if steps is None else steps
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(seed, "weights"))
        network, trained = start_of(images.shape[1:], recipe, base)
        network = network.to(device).train()
    generator = torch.Generator().manual_seed(seed_of(seed, "batches"))
    optimizer = torch.optim.AdamW(trained, lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    schedule = VariancePreserving.of(new_scheduler())
    images = images.to(device)
    order = torch.empty(0, dtype=torch.int64)
    batch = recipe.batch_size
    for step in range(steps):
        while len(order) < batch:
            order = torch.cat([order, torch.randperm(len(images), generator=generator)])
        rows, order = order[:batch].to(device), order[batch:]
        strata = (torch.arange(batch) + torch.rand(batch, generator=generator)) / batch
        t = (strata * TRAIN_TIMESTEPS).long().clamp(max=TRAIN_TIMESTEPS - 1).to(device)
        noise = torch.randn((batch, *images.shape[1:]), generator=generator).to(device)
        for group in optimizer.param_groups:
            group["lr"] = recipe.rate(step, steps)
        output = network(schedule.add_noise(images[rows], noise, t), t, return_dict=False)[0]
        loss = (output - noise).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if report is not None:
            report(step + 1, network)
    return network.eval()


@dataclass(frozen=True)
class LossConfig:
    """What a query's loss is averaged over: evenly spaced timesteps, and noises that all models and queries share."""

    timesteps: int = 25
    draws: int = 2
    seed: int = 0

    def points(self) -> list[tuple[int, int]]:
        """The pairs of timestep and draw: 50 timesteps are 10, 30, …, 990."""
        times = [(2 * i + 1) * TRAIN_TIMESTEPS // (2 * self.timesteps) for i in range(self.timesteps)]
        return [(t, draw) for t in times for draw in range(self.draws)]


@torch.inference_mode()  # type: ignore[untyped-decorator]
def simple_losses(network: nn.Module, images: Tensor, config: LossConfig) -> Tensor:
    """The Simple Loss of pictures (Q, C, H, W), mean over pixels, timesteps and noises: (Q,) float32 on the CPU."""
    device = next(network.parameters()).device
    schedule = VariancePreserving.of(new_scheduler())
    images = images.to(device)
    total = torch.zeros(len(images), dtype=torch.float64, device=device)
    for t, draw in config.points():
        shared = standard_normal(config.seed, f"evaluation\nloss\n{t}\n{draw}", tuple(images.shape[1:]))
        noise = torch.from_numpy(shared).to(images)
        for start in range(0, len(images), EVALUATION_BATCH):
            part = images[start : start + EVALUATION_BATCH]
            times = torch.full((len(part),), t, device=device)
            output = network(schedule.add_noise(part, noise, times), times, return_dict=False)[0]
            total[start : start + len(part)] += (output - noise).double().square().flatten(1).mean(1)
    return (total / len(config.points())).float().cpu()


@torch.inference_mode()  # type: ignore[untyped-decorator]
def sample(network: nn.Module, scheduler: Any, shape: Sequence[int], *, seed: int, steps: int) -> Tensor:
    """Generate pictures of `shape` (n, C, H, W) by DDIM without added noise: fixed by the weights and `seed`.

    Picture i starts from the same noise whatever n is.
    """
    from diffusers import DDIMScheduler

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
