"""The course of a training: which pictures, timesteps and noises each of its steps takes, and its learning rate.

A course is fixed by the recipe, the seed and the stream of works. The noises and timesteps depend on the seed alone:
models of different works with one seed share them, step by step, and what then differs between them is the works.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from measure.training import TRAIN_TIMESTEPS, Recipe, seed_of

Noise = Callable[[int], Tensor]
"""The noise of a step, (B, C, H, W) float32."""


@dataclass(frozen=True)
class Course:
    """What the S steps of one training take, in batches of B.

    Attributes:
        rows: (S, B) int64, places of the pictures.
        times: (S, B) int64, timesteps.
        rates: (S,) float64, learning rates.
        weights: (S, B) float32, of each picture's error in the loss; None: all 1.
        decays: (S,) float64, of the moving average of the weights; None: there is none.
    """

    rows: Tensor
    times: Tensor
    rates: Tensor
    weights: Tensor | None = None
    decays: Tensor | None = None

    def __len__(self) -> int:
        return len(self.rows)


def stream_of(rows: np.ndarray, repeats: np.ndarray | None = None) -> Tensor:
    """One epoch of a training: the rows (n,), each as often as `repeats` (N,) says of it; once if left out."""
    times = np.ones(len(rows), np.int64) if repeats is None else repeats[rows]
    return torch.from_numpy(np.repeat(rows, times))


def course_of(recipe: Recipe, stream: Tensor, *, seed: int, steps: int) -> Course:
    """The course over shuffled epochs of a stream (L,), laid end to end; timesteps are stratified over a batch."""
    batch = recipe.batch_size
    order = torch.Generator().manual_seed(seed_of(seed, "order"))
    epochs = -(-steps * batch // len(stream))
    rows = torch.cat([stream[torch.randperm(len(stream), generator=order)] for _ in range(epochs)])
    drawn = np.random.default_rng(seed_of(seed, "timesteps")).random((steps, batch))
    times = ((np.arange(batch) + drawn) / batch * TRAIN_TIMESTEPS).astype(np.int64)
    return Course(
        rows=rows[: steps * batch].reshape(steps, batch),
        times=torch.from_numpy(times).clamp(max=TRAIN_TIMESTEPS - 1),
        rates=torch.tensor([recipe.rate(step, steps) for step in range(steps)], dtype=torch.float64),
    )


def noise_of(shape: Sequence[int], *, seed: int) -> Noise:
    """Noises of batches of `shape` (B, C, H, W), each step's from a seed of its own."""

    def noise(step: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed_of(seed, "noise", step))
        return torch.randn(tuple(shape), generator=generator)

    return noise
