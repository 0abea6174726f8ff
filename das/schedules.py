"""Noise schedules: what `x_t` is made of, what the network predicts there, and the way back.

Every family's noised input is `x_t = a_t x_0 + b_t ε`. Variance-preserving diffusion has `a² + b² = 1`, flow matching
`a = 1 - σ`, `b = σ`. Timesteps are whole numbers below `num_train_timesteps`, larger for more noise.
"""

from typing import Any, Protocol

import torch
from torch import Tensor

from das.errors import ModelError

PREDICTION_TYPES = ("epsilon", "v_prediction", "sample")

_NO_SIGNAL = 1e-6
"""Largest last ᾱ of a schedule that ends in noise alone: some schedulers keep 2^-24. Stable Diffusion's is 5e-3."""


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
        self.num_train_timesteps = _some(len(alphas_cumprod))
        self._alphas_cumprod = alphas_cumprod.to(torch.float64)

    @classmethod
    def of(cls, scheduler: Any) -> "VariancePreserving":
        """The schedule of a diffusers scheduler.

        Raises:
            ModelError: it has no `alphas_cumprod`, an unknown prediction type, or `rescale_betas_zero_snr` in its
                configuration and not in its `alphas_cumprod`, as classes do that don't know the setting.
        """
        if not hasattr(scheduler, "alphas_cumprod"):
            raise ModelError(
                f"The scheduler {type(scheduler).__name__} has no noise schedule 'alphas_cumprod'. "
                "Use the scheduler that the model was trained with, for example DDPMScheduler."
            )
        schedule = cls(scheduler.alphas_cumprod, scheduler.config.get("prediction_type", "epsilon"))
        if scheduler.config.get("rescale_betas_zero_snr") and not schedule.ends_in_noise:
            raise ModelError(
                f"The scheduler {type(scheduler).__name__} doesn't know rescale_betas_zero_snr, which its"
                " configuration sets: its noise isn't that which the model was trained on. Use one that does, for"
                " example DDPMScheduler."
            )
        return schedule

    @property
    def ends_in_noise(self) -> bool:
        """Whether nothing of a picture is left at the last timestep: zero terminal SNR (Lin et al. 2024)."""
        return float(self._alphas_cumprod[-1]) <= _NO_SIGNAL

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


class FlowMatching:
    """`x_t = (1-σ_t) x_0 + σ_t ε` with the velocity `v = ε - x_0` as target (Lipman et al. 2023; Esser et al. 2024).

    Timestep t stands for the noise level `σ = s u / (1 + (s - 1) u)` at `u = (t + 1) / T`, where s is the scheduler's
    `shift`: the T levels that diffusers' training scripts draw from. With `use_dynamic_shifting` (FLUX.1-dev) the
    shift is applied in sampling only, and `σ = u`.
    """

    prediction_type = "flow"

    def __init__(self, sigmas: Tensor) -> None:
        """Use `σ` (T,), larger for more noise."""
        self.num_train_timesteps = _some(len(sigmas))
        self._sigmas = sigmas.to(torch.float64)

    @classmethod
    def of(cls, scheduler: Any) -> "FlowMatching":
        """The schedule of a diffusers scheduler for flow matching.

        Raises:
            ModelError: it isn't one.
        """
        if not type(scheduler).__name__.startswith("FlowMatch"):
            raise ModelError(
                f"The scheduler {type(scheduler).__name__} isn't one of flow matching. "
                "Use the scheduler that the model was trained with, FlowMatchEulerDiscreteScheduler."
            )
        config = scheduler.config
        steps = config.num_train_timesteps
        even = torch.arange(1, steps + 1, dtype=torch.float64) / steps
        shift = 1.0 if config.get("use_dynamic_shifting") else config.shift
        return cls(shift * even / (1 + (shift - 1) * even))

    def network_time(self, t: Tensor) -> Tensor:
        """What stands for timesteps (B,) at the network's input: `σ_t T`, (B,) float64."""
        return self._sigmas.to(t.device)[t] * self.num_train_timesteps

    def levels(self, t: Tensor) -> tuple[Tensor, Tensor]:
        sigma = self._sigmas.to(t.device)[t].reshape(-1, 1, 1, 1)
        return 1.0 - sigma, sigma

    def add_noise(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        sigma = self._sigma(x0, t)
        return (1.0 - sigma) * x0 + sigma * noise

    def target(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        return noise - x0

    def recover(self, x_t: Tensor, t: Tensor, output: Tensor) -> tuple[Tensor, Tensor]:
        sigma = self._sigma(x_t, t)
        return x_t - sigma * output, x_t + (1.0 - sigma) * output

    def _sigma(self, values: Tensor, t: Tensor) -> Tensor:
        return self.levels(t)[1].to(values.dtype)


def _some(steps: int) -> int:
    if steps < 1:
        raise ModelError("The scheduler has no timesteps; its num_train_timesteps should be from 1.")
    return steps
