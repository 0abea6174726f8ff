"""Probes: the direction `v` in output space that turns the Jacobian into one gradient `J_t(x)ᵀ v`.

Every gradient method is this object with another `v` (METHOD, section 1): the loss gradient of TRAK, the squared
output of D-TRAK, the mean output of the released DAS. A probe is a constant to the backward pass. One probe has no
direction: `activation` is the gradient of virtual readouts of the hidden states (`das.activations`).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from das import registry
from das.prng import standard_normal


@dataclass(frozen=True)
class Point:
    """What a probe may look at: a batch of noised images of one or several timesteps.

    Attributes:
        output: `ε_θ(x_t, t)`, (B, C, H, W).
        target: what the model was trained to predict there, same shape.
        seed: the seed of the index, for probes that draw a shared direction.
    """

    output: Tensor
    target: Tensor
    seed: int


Direction = Callable[[Point], Tensor]


def mean(point: Point) -> Tensor:
    """Gradient of `mean(ε_θ)`: the scalarised output of the paper's experiments."""
    return torch.full_like(point.output, 1.0 / point.output[0].numel())


def loss(point: Point) -> Tensor:
    """Gradient of the training loss `mean((ε_θ - target)²)`, as in TRAK."""
    return (point.output - point.target) * (2.0 / point.output[0].numel())


def square(point: Point) -> Tensor:
    """Gradient of `mean(ε_θ²)`, as in D-TRAK."""
    return point.output * (2.0 / point.output[0].numel())


def random(point: Point) -> Tensor:
    """One direction `v ~ N(0, I_d)` shared by every image and timestep: an unbiased slice of all d outputs."""
    shape = tuple(point.output.shape[1:])
    shared = torch.from_numpy(standard_normal(point.seed, f"probe random\n{shape}", shape))
    return shared.to(point.output).expand_as(point.output)


def direction_of(name: str) -> Direction:
    """The direction of the probe called `name`, das's own or an extension's.

    Raises:
        SettingsError: there is none of that name; the message lists them.
        ExtensionError: its extension can't be loaded.
    """
    reference = registry.probe(name).direction
    found: Direction = registry.resolve(
        reference, f"The probe {name!r}", registry.extension_of("probe", name)
    )
    return found
