"""Training of the demo's diffusion model: a small DDPM on the crops, on two processor cores (see `demo.course`)."""

import json
import platform
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from das import durable
from das.errors import DasError
from demo.course import COOLDOWN_SHARE, LARGEST_GRADIENT, DemoCourse, TrainConfig, new_scheduler
from demo.crops import CROP, all_crops, stream

if TYPE_CHECKING:
    import torch
    from torch import nn

# Chosen by measurement: the full-resolution levels cost most of the time and are narrow, the low-resolution ones
# hold most of the weights; one backward pass must stay near 4 ms per image on two cores.
CHANNELS = (16, 16, 48, 96)
# Threads, each with its share of a batch: steadier on a busy machine than two threads in every operation.
WORKERS = 2
CHECKPOINT_EVERY = 60.0  # seconds
CHECKPOINT = "checkpoint.pt"


class TrainingError(DasError):
    """Training can't start or go on."""


def new_network() -> "nn.Module":
    """The demo's U-Net, with fresh weights from torch's current seed."""
    from diffusers.models.unets.unet_2d import UNet2DModel

    network: nn.Module = UNet2DModel(
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
    return network


def crops_tensor() -> "torch.Tensor":
    """All works in model space: (N, 3, 32, 32) float32 in [-1, 1]."""
    return model_space(np.stack([crop.pixels for crop in all_crops()]))


def model_space(pixels: np.ndarray) -> "torch.Tensor":
    """Pictures (n, 32, 32, 3) uint8 as (n, 3, 32, 32) float32 in [-1, 1]."""
    import torch

    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div(127.5).sub(1.0).contiguous()


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
        self._course = DemoCourse(config, self._stream)
        self._pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="train")

    def run_step(self) -> None:
        """One step of AdamW on one batch, and of the moving average."""
        import torch

        config, step = self.config, self.step
        rows = self._course.rows(step)
        t, noise = self._course.times(step), self._course.noise(step)
        x_t = self.scheduler.add_noise(self._works[rows], noise, t)
        weights = self._course.weights(step, t)
        parameters = list(self.network.parameters())

        def part(index: "torch.Tensor") -> tuple[float, tuple["torch.Tensor", ...]]:
            error = (self.network(x_t[index], t[index]).sample - noise[index]).square().mean(dim=(1, 2, 3))
            loss = (weights[index] * error).sum() / len(rows)
            return float(loss.detach()), torch.autograd.grad(loss, parameters)

        parts = list(self._pool.map(part, torch.arange(len(rows)).chunk(WORKERS)))
        for number, parameter in enumerate(parameters):
            parameter.grad = sum((gradients[number] for _, gradients in parts[1:]), parts[0][1][number])
        torch.nn.utils.clip_grad_norm_(parameters, LARGEST_GRADIENT)
        for group in self.optimizer.param_groups:
            group["lr"] = config.rate(step)
        self.optimizer.step()
        self.step += 1
        decay = config.decay(self.step)
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
        durable.write_path(path, lambda partial: torch.save(state, partial))

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
        from diffusers.pipelines.ddpm.pipeline_ddpm import DDPMPipeline

        network: Any = new_network()
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
