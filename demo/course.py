"""What each step of the demo's training takes: works, timesteps, noise, weights of the loss, rate and average.

AdamW with linear warm-up, a constant rate and a linear cool-down; an exponential moving average of the weights,
which is what is saved; no augmentation, since a flipped crop is no training work; epsilon prediction over 1,000
linear steps.
Three measures help a small model on a short budget:

- the loss is weighted by min(SNR, 5) / SNR (Hang et al., 2023, for epsilon prediction);
- timesteps are drawn, stratified over the batch, from a mixture that favours those where a picture takes shape;
- from step 2,510 on, timesteps with more noise than signal are weighted by 1 / sqrt(SNR). There the error of the
  noise is tiny and that of the picture large: without it the model can't tell a red start from a blue one, and
  all samples come out grey.

The planted works come 40 times per epoch (see `demo.crops`). Every step draws its noise from its own seed, so a
run that was interrupted and resumed sees the same numbers as one that was not.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from demo.crops import CROP

if TYPE_CHECKING:
    import torch

TRAIN_TIMESTEPS = 1000
SNR_CLIP = 5.0
# The step from which the noisy timesteps count more: where the run that made the committed weights was when its
# first samples showed the need.
NOISY_WEIGHTS_FROM = 2510
# The part of the timesteps' mixture that is not uniform: its share, and its mean and spread in timesteps.
FOCUS_SHARE, FOCUS_MEAN, FOCUS_SD = 0.6, 300.0, 180.0
COOLDOWN_SHARE = 0.25  # of all steps
LARGEST_GRADIENT = 1.0  # norm to which a longer one is cut


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

    def decay(self, steps_done: int) -> float:
        """Of the moving average, after so many steps: the first ones are forgotten sooner."""
        return min(self.ema_decay, (1 + steps_done) / (10 + steps_done))


def new_scheduler() -> Any:
    """A DDPMScheduler: epsilon prediction over 1,000 linear steps."""
    from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

    return DDPMScheduler(
        num_train_timesteps=TRAIN_TIMESTEPS, beta_schedule="linear", prediction_type="epsilon"
    )


class DemoCourse:
    """The inputs of every step, a pure function of the configuration and the stream."""

    def __init__(
        self, config: TrainConfig, stream: "torch.Tensor", noisy_weights_from: int = NOISY_WEIGHTS_FROM
    ) -> None:
        """Over a stream (L,) of row numbers, see `demo.crops.stream`."""
        self._config = config
        self._stream = stream
        self.noisy_weights_from = noisy_weights_from
        self._quantiles = _timestep_quantiles()
        alphas = new_scheduler().alphas_cumprod
        snr = alphas / (1 - alphas)
        self._early_weights = snr.clamp(max=SNR_CLIP) / snr
        self._weights = snr.rsqrt().where(snr < 1, self._early_weights)

    def rows(self, step: int) -> "torch.Tensor":
        """Works of a step's batch (B,): consecutive positions in the epochs' shuffled streams, laid end to end."""
        import torch

        length, batch = len(self._stream), self._config.batch_size
        first, last = step * batch, (step + 1) * batch - 1
        epochs = torch.cat([self.epoch(epoch) for epoch in range(first // length, last // length + 1)])
        start = first % length
        return epochs[start : start + batch]

    @lru_cache(maxsize=2)  # noqa: B019  a course ends with its training
    def epoch(self, epoch: int) -> "torch.Tensor":
        """The stream in the order of an epoch, (L,)."""
        import torch

        generator = seeded(self._config.seed, 1, epoch)
        return self._stream[torch.randperm(len(self._stream), generator=generator)]

    def times(self, step: int) -> "torch.Tensor":
        """Timesteps of a step, (B,) int64; they depend on the seed alone."""
        return self._times(seeded(self._config.seed, 2, step))

    def noise(self, step: int) -> "torch.Tensor":
        """Noise of a step, (B, 3, 32, 32); it depends on the seed alone."""
        import torch

        generator = seeded(self._config.seed, 2, step)
        self._times(generator)  # drawn first, from the same generator
        return torch.randn((self._config.batch_size, 3, CROP, CROP), generator=generator)

    def _times(self, generator: "torch.Generator") -> "torch.Tensor":
        import torch

        batch = self._config.batch_size
        spread = (torch.arange(batch) + torch.rand(batch, generator=generator)) / batch
        t = torch.searchsorted(self._quantiles, spread.double()).clamp(max=TRAIN_TIMESTEPS - 1)
        return t[torch.randperm(batch, generator=generator)]

    def weights(self, step: int, times: "torch.Tensor") -> "torch.Tensor":
        """Of each picture's error in the loss, at a step: of the shape of `times`."""
        weights: torch.Tensor = self._early_weights if step < self.noisy_weights_from else self._weights
        return weights[times]


def _timestep_quantiles() -> "torch.Tensor":
    """Cumulative density of the timesteps' mixture: (1000,) float64."""
    import torch

    t = torch.arange(TRAIN_TIMESTEPS, dtype=torch.float64)
    focus = torch.exp(-0.5 * ((t - FOCUS_MEAN) / FOCUS_SD) ** 2)
    density = (1 - FOCUS_SHARE) / TRAIN_TIMESTEPS + FOCUS_SHARE * focus / focus.sum()
    return density.cumsum(0)


def seeded(*numbers: int) -> "torch.Generator":
    """A generator whose seed is a pure function of the numbers."""
    import torch

    seed = int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))
    return torch.Generator().manual_seed(seed)
