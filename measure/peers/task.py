"""What every contender is given: (picture, timestep) pairs of one network, noised and with their targets."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from das.errors import SettingsError
from das.gradients import FeatureConfig, FeatureExtractor
from das.models import load_model

Work = Callable[[], Tensor | None]
"""Goes through all pairs once. Returns their sketched gradients (n, k) where they can be compared with das's."""


@dataclass(frozen=True)
class Pairs:
    """The pairs of one measurement.

    Attributes:
        extractor: das's engine on the network, with the sketch that contenders without one of their own use.
        x0: the pictures, (B, C, h, w), each at all timesteps of the extractor.
        noised: `x_t`, (n, C, h, w).
        t: (n,).
        target: what the network was trained to predict there, (n, C, h, w).
        batch_size: pairs in one pass.
        dimension: k, of everybody's sketch or projection.
        folder: empty; for what a library writes.
    """

    extractor: FeatureExtractor
    x0: Tensor
    noised: Tensor
    t: Tensor
    target: Tensor
    batch_size: int
    dimension: int
    folder: Path

    @property
    def network(self) -> nn.Module:
        """The network alone; called with (x_t, t)."""
        return self.extractor.model.network

    def batches(self) -> list[tuple[Tensor, Tensor, Tensor]]:
        """`x_t`, `t` and target of each pass."""
        split = (self.noised.split(self.batch_size), self.t.split(self.batch_size))
        return list(zip(*split, self.target.split(self.batch_size), strict=True))

    def losses(self, noised: Tensor, t: Tensor, target: Tensor) -> Tensor:
        """`mean((ε_θ - target)²)` of each pair, (B,)."""
        residual: Tensor = self.network(noised, t).sample - target
        return residual.square().flatten(1).mean(1)

    def loss_of_one(self, weights: Mapping[str, Tensor], noised: Tensor, t: Tensor, target: Tensor) -> Tensor:
        """The same of a single pair without the dimension of the batch, a function of weights: `torch.func`'s way."""
        output = torch.func.functional_call(
            self.network, dict(weights), (noised.unsqueeze(0), t.unsqueeze(0))
        )
        residual: Tensor = output.sample[0] - target
        return residual.square().mean()

    def plain(self) -> None:
        """A training pass: batched forward, mean loss, backward to all parameters."""
        for batch in self.batches():
            self.losses(*batch).mean().backward()
        self.network.zero_grad(set_to_none=True)


def pairs_of(
    model: str,
    folder: Path,
    *,
    images: int,
    timesteps: int,
    dimension: int,
    batch_size: int,
    probes: tuple[str, ...],
) -> Pairs:
    """Pairs of random pictures under a pipeline.

    Raises:
        SettingsError: the network takes prompts or latents, for which the other libraries have no loss.
    """
    loaded = load_model(model)
    if loaded.family != "ddpm":
        raise SettingsError(
            f"{model} is a {loaded.family}; side by side runs a model of pixels without prompts."
        )
    spaced = tuple(i * loaded.schedule.num_train_timesteps // timesteps for i in range(timesteps))
    extractor = FeatureExtractor(loaded, FeatureConfig(dimension, probes, spaced), batch_size=batch_size)
    x0 = torch.rand(images, *loaded.sample_shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    t = torch.tensor(spaced).repeat(images)
    x, noise = x0.repeat_interleave(timesteps, 0), extractor.noise[:, 0].repeat(images, 1, 1, 1)
    noised, target = loaded.schedule.add_noise(x, noise, t), loaded.schedule.target(x, noise, t)
    return Pairs(extractor, x0, noised, t, target, batch_size, dimension, folder)
