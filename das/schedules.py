"""Noise schedules: what `x_t` is made of, what the network predicts there, and the way back.

Every family's noised input is `x_t = a_t x_0 + b_t ε`. Variance-preserving diffusion has `a² + b² = 1`, flow matching
`a = 1 - σ`, `b = σ`. Timesteps are whole numbers below `num_train_timesteps`, larger for more noise.
"""

from typing import Any, Protocol

import torch
from torch import Tensor

from das.errors import ModelError

PREDICTION_TYPES = ("epsilon", "v_prediction", "sample")


class Schedule(Protocol):
    """The noise schedule and the prediction target of a model."""

    num_train_timesteps: int
    prediction_type: str

    def levels(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """`a_t` and `b_t` of timesteps (B,), each (B, 1, 1, 1) float64."""
        ...

    def add_noise(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """`x_t = a_t x_0 + b_t ε`, (B, C, h, w)."""
        ...

    def target(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """What the network was trained to predict at `x_t`, (B, C, h, w)."""
        ...

    def recover(self, x_t: Tensor, t: Tensor, output: Tensor) -> tuple[Tensor, Tensor]:
        """The clean picture `x̂_0` and the noise `ε̂` that the network's output at `x_t` stands for."""
        ...


class VariancePreserving:
    """`x_t = √ᾱ_t x_0 + √(1-ᾱ_t) ε`; the target is `ε`, `v = √ᾱ_t ε - √(1-ᾱ_t) x_0` or `x_0`."""

    def __init__(self, alphas_cumprod: Tensor, prediction_type: str) -> None:
        """Use `ᾱ` (T,) as given.

        Raises:
            ModelError: the prediction type is unknown.
        """
        if prediction_type not in PREDICTION_TYPES:
            raise ModelError(
                f"The scheduler's prediction_type is {prediction_type!r}; "
                f"supported are {', '.join(PREDICTION_TYPES)}."
            )
        self.prediction_type = prediction_type
        self.num_train_timesteps = len(alphas_cumprod)
        self._alphas_cumprod = alphas_cumprod.to(torch.float64)

    @classmethod
    def of(cls, scheduler: Any) -> "VariancePreserving":
        """The schedule of a diffusers scheduler.

        Raises:
            ModelError: it has no `alphas_cumprod`, or an unknown prediction type.
        """
        if not hasattr(scheduler, "alphas_cumprod"):
            raise ModelError(
                f"The scheduler {type(scheduler).__name__} has no noise schedule 'alphas_cumprod'. "
                "Use the scheduler that the model was trained with, for example DDPMScheduler."
            )
        return cls(scheduler.alphas_cumprod, scheduler.config.get("prediction_type", "epsilon"))

    def levels(self, t: Tensor) -> tuple[Tensor, Tensor]:
        alpha = self._alphas_cumprod.to(t.device)[t].reshape(-1, 1, 1, 1)
        return alpha.sqrt(), (1.0 - alpha).sqrt()

    def add_noise(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        a, b = self._like(x0, t)
        return a * x0 + b * noise

    def target(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        if self.prediction_type == "epsilon":
            return noise
        if self.prediction_type == "sample":
            return x0
        a, b = self._like(x0, t)
        return a * noise - b * x0

    def recover(self, x_t: Tensor, t: Tensor, output: Tensor) -> tuple[Tensor, Tensor]:
        a, b = self._like(x_t, t)
        if self.prediction_type == "epsilon":
            return (x_t - b * output) / a, output
        if self.prediction_type == "sample":
            return output, (x_t - a * output) / b
        return a * x_t - b * output, b * x_t + a * output

    def _like(self, values: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        a, b = self.levels(t)
        return a.to(values.dtype), b.to(values.dtype)
