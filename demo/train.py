"""Training of the demo's diffusion model: a small DDPM on the crops, on two processor cores.

What it does, in full: AdamW with linear warm-up, a constant rate and a linear cool-down; an exponential
moving average of the weights, which is what is saved; no augmentation, since a flipped crop is no training work;
epsilon prediction over 1,000 linear steps. Three measures help a small model on a short budget:

- the loss is weighted by min(SNR, 5) / SNR (Hang et al., 2023, for epsilon prediction);
- timesteps are drawn, stratified over the batch, from a mixture that favours those where a picture takes shape;
- from step 2,510 on, timesteps with more noise than signal are weighted by 1 / sqrt(SNR). There the error of the
  noise is tiny and that of the picture large: without it the model can't tell a red start from a blue one, and
  all samples come out grey.

The planted works come 40 times per epoch (see `demo.crops`). Every step draws its noise from its own seed, so a
run that was interrupted and resumed sees the same numbers as one that was not.
"""

import json
import platform
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from das.errors import DasError
from demo.crops import CROP, all_crops, stream

if TYPE_CHECKING:
    import torch
    from diffusers import DDPMScheduler, UNet2DModel

# Chosen by measurement: the full-resolution levels cost most of the time and are narrow, the low-resolution ones
# hold most of the weights; one backward pass must stay near 4 ms per image on two cores.
CHANNELS = (16, 16, 48, 96)
TRAIN_TIMESTEPS = 1000
SNR_CLIP = 5.0
# The step from which the noisy timesteps count more: where the run that made the committed weights was when its
# first samples showed the need.
NOISY_WEIGHTS_FROM = 2510
# The part of the timesteps' mixture that is not uniform: its share, and its mean and spread in timesteps.
FOCUS_SHARE, FOCUS_MEAN, FOCUS_SD = 0.6, 300.0, 180.0
# Threads, each with its share of a batch: steadier on a busy machine than two threads in every operation.
WORKERS = 2
COOLDOWN_SHARE = 0.25  # of all steps
CHECKPOINT_EVERY = 60.0  # seconds
CHECKPOINT = "checkpoint.pt"


class TrainingError(DasError):
    """Training can't start or go on."""


@dataclass(frozen=True)
class TrainConfig:
    """What changes the weights; a checkpoint made with other values is refused."""

    steps: int = 6000
    seed: int = 20
    batch_size: int = 32
    learning_rate: float = 1.2e-3
    weight_decay: float = 1e-4
    warmup_steps: int = 150
    ema_decay: float = 0.998

    def rate(self, step: int) -> float:
        """Learning rate of a step: linear warm-up, constant, then linear to zero over the last part.

        So the weights before the cool-down don't depend on `steps`, which may be changed on resuming.
        """
        warm = (step + 1) / self.warmup_steps
        cool = (self.steps - step) / (self.steps * COOLDOWN_SHARE)
        return self.learning_rate * min(1.0, warm, cool)


def new_network() -> "UNet2DModel":
    """The demo's U-Net, with fresh weights from torch's current seed."""
    from diffusers import UNet2DModel

    return UNet2DModel(
        sample_size=CROP,
        in_channels=3,
        out_channels=3,
        layers_per_block=1,
        block_out_channels=CHANNELS,
        down_block_types=("DownBlock2D",) * len(CHANNELS),
        up_block_types=("UpBlock2D",) * len(CHANNELS),
        norm_num_groups=8,
        attention_head_dim=8,
    )


def new_scheduler() -> "DDPMScheduler":
    """Epsilon prediction over 1,000 linear steps."""
    from diffusers import DDPMScheduler

    return DDPMScheduler(
        num_train_timesteps=TRAIN_TIMESTEPS, beta_schedule="linear", prediction_type="epsilon"
    )


def crops_tensor() -> "torch.Tensor":
    """All works in model space: (N, 3, 32, 32) float32 in [-1, 1]."""
    import torch

    pixels = np.stack([crop.pixels for crop in all_crops()])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div(127.5).sub(1.0).contiguous()


def _timestep_quantiles() -> "torch.Tensor":
    """Cumulative density of the timesteps' mixture: (1000,) float64."""
    import torch

    t = torch.arange(TRAIN_TIMESTEPS, dtype=torch.float64)
    focus = torch.exp(-0.5 * ((t - FOCUS_MEAN) / FOCUS_SD) ** 2)
    density = (1 - FOCUS_SHARE) / TRAIN_TIMESTEPS + FOCUS_SHARE * focus / focus.sum()
    return density.cumsum(0)


class Trainer:
    """Network, moving average, optimiser and the number of steps done."""

    def __init__(self, config: TrainConfig) -> None:
        import torch

        torch.manual_seed(config.seed)
        self.config = config
        self.network = new_network()
        self.ema = {name: value.clone() for name, value in self.network.state_dict().items()}
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        self.scheduler = new_scheduler()
        self.step = 0
        self.seconds = 0.0
        self.loss = float("nan")  # moving average of the weighted loss
        self._works = crops_tensor()
        self._stream = torch.from_numpy(stream())
        self._quantiles = _timestep_quantiles()
        alphas = self.scheduler.alphas_cumprod
        snr = alphas / (1 - alphas)
        self._early_weights = snr.clamp(max=SNR_CLIP) / snr
        self._weights = torch.where(snr < 1, snr.rsqrt(), self._early_weights)
        self._pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="train")

    def _rows_of(self, step: int) -> "torch.Tensor":
        """Works of a step's batch: consecutive positions in the epochs' shuffled streams, laid end to end."""
        import torch

        length = len(self._stream)
        position = torch.arange(self.config.batch_size) + step * self.config.batch_size
        rows = torch.empty_like(position)
        for epoch in torch.unique(position // length).tolist():
            shuffled = self._stream[torch.randperm(length, generator=_seeded(self.config.seed, 1, epoch))]
            here = position // length == epoch
            rows[here] = shuffled[position[here] % length]
        return rows

    def run_step(self) -> None:
        """One step of AdamW on one batch, and of the moving average."""
        import torch

        config, step = self.config, self.step
        generator = _seeded(config.seed, 2, step)
        rows = self._rows_of(step)
        spread = (torch.arange(len(rows)) + torch.rand(len(rows), generator=generator)) / len(rows)
        t = torch.searchsorted(self._quantiles, spread.double()).clamp(max=TRAIN_TIMESTEPS - 1)
        t = t[torch.randperm(len(t), generator=generator)]
        noise = torch.randn((len(rows), 3, CROP, CROP), generator=generator)
        x_t = self.scheduler.add_noise(self._works[rows], noise, t)
        weights = (self._early_weights if step < NOISY_WEIGHTS_FROM else self._weights)[t]
        parameters = list(self.network.parameters())

        def part(index: "torch.Tensor") -> tuple[float, tuple["torch.Tensor", ...]]:
            error = (self.network(x_t[index], t[index]).sample - noise[index]).square().mean(dim=(1, 2, 3))
            loss = (weights[index] * error).sum() / len(rows)
            return float(loss.detach()), torch.autograd.grad(loss, parameters)

        parts = list(self._pool.map(part, torch.arange(len(rows)).chunk(WORKERS)))
        for number, parameter in enumerate(parameters):
            parameter.grad = sum((gradients[number] for _, gradients in parts[1:]), parts[0][1][number])
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        for group in self.optimizer.param_groups:
            group["lr"] = config.rate(step)
        self.optimizer.step()
        self.step += 1
        decay = min(config.ema_decay, (1 + self.step) / (10 + self.step))
        for name, value in self.network.state_dict().items():
            self.ema[name].lerp_(value, 1 - decay)
        loss = sum(value for value, _ in parts)
        self.loss = loss if step == 0 else 0.99 * self.loss + 0.01 * loss

    def save_checkpoint(self, path: Path) -> None:
        """Write all that a later run needs to go on; the file appears whole or not at all."""
        import torch

        state = {
            "config": asdict(self.config),
            "network": self.network.state_dict(),
            "ema": self.ema,
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "loss": self.loss,
        }
        partial = path.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(path)

    def resume(self, path: Path) -> None:
        """Go on from a checkpoint.

        Raises `TrainingError` if it was made with another configuration; `steps` may differ if the cool-down has
        begun in neither.
        """
        import torch

        state: dict[str, Any] = torch.load(path, weights_only=True)
        ours = asdict(self.config)
        other = {name: value for name, value in state["config"].items() if ours.get(name) != value}
        cooldown = (1 - COOLDOWN_SHARE) * min(ours["steps"], state["config"]["steps"])
        if state["step"] <= cooldown:
            other.pop("steps", None)
        if other:
            raise TrainingError(
                f"{path} was made with {other}, this run has { {name: ours.get(name) for name in other} }: "
                f"give the same options to resume, or another --out to start anew"
            )
        self.network.load_state_dict(state["network"])
        self.ema = state["ema"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.seconds, self.loss = state["step"], state["seconds"], state["loss"]

    def export(self, out: Path) -> None:
        """Write the averaged weights as a `DDPMPipeline` directory, with `train.json` beside them.

        The weights are stored in half precision to keep the repository small; loading turns them into float32
        without further loss, so every user of the directory computes with the same numbers.
        """
        from diffusers import DDPMPipeline

        network = new_network()
        network.load_state_dict(self.ema)
        DDPMPipeline(network.half(), self.scheduler).save_pretrained(out)
        record = {
            **asdict(self.config),
            "steps_done": self.step,
            "seconds": round(self.seconds, 1),
            "weighted_loss": round(self.loss, 5),
            "works": len(all_crops()),
            "stream_length": len(self._stream),
            "parameters": sum(parameter.numel() for parameter in network.parameters()),
            "python": platform.python_version(),
            "machine": f"{platform.machine()}, {WORKERS} threads",
            "versions": {name: version(name) for name in ("torch", "diffusers", "pillow", "numpy")},
        }
        (out / "train.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def _seeded(*numbers: int) -> "torch.Generator":
    """A generator whose seed is a pure function of the numbers."""
    import torch

    seed = int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))
    return torch.Generator().manual_seed(seed)


def train(config: TrainConfig, out: Path, report: Callable[[Trainer], None] = lambda _: None) -> Trainer:
    """Train, or go on from `out/checkpoint.pt`, to `config.steps`; write `out/pipeline`.

    `report` is called after every step.
    """
    import torch

    torch.set_num_threads(1)  # the two halves of a batch are computed side by side instead
    out.mkdir(parents=True, exist_ok=True)
    checkpoint = out / CHECKPOINT
    trainer = Trainer(config)
    if checkpoint.is_file():
        trainer.resume(checkpoint)
    saved = time.monotonic()
    while trainer.step < config.steps:
        start = time.monotonic()
        trainer.run_step()
        trainer.seconds += time.monotonic() - start
        report(trainer)
        if time.monotonic() - saved > CHECKPOINT_EVERY:
            trainer.save_checkpoint(checkpoint)
            saved = time.monotonic()
    trainer.save_checkpoint(checkpoint)
    trainer.export(out / "pipeline")
    return trainer
