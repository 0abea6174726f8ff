"""The way of a generation from noise to picture: for Journey TRAK (METHOD, section 3), and for das.origin.

At every sampling step the model's clean prediction `x̂_0` is what the gradient is taken at. The way is walked
deterministically (DDIM, η = 0, without guidance): from the noise of the generation's own seed, or backwards from the
finished picture. One step is `x_s = a_s x̂_0 + b_s ε̂` in every family, flow matching included.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from das.models import Conditioning, DiffusionModel

STEPS = 50
"""Evenly spaced steps of a trajectory, besides the timesteps that are asked for."""


def invert(model: DiffusionModel, x0: Tensor, conditioning: Conditioning, timesteps: Sequence[int]) -> Tensor:
    """The clean predictions at `timesteps` on the way from pictures back to their noise (DDIM inversion).

    Args:
        x0: (B, C, h, w) in the model's own space.
        timesteps: T of them, in any order.

    Returns:
        `x̂_0⁽ᵗ⁾`, (B, T, C, h, w).
    """
    grid = _grid(model, timesteps)
    # The picture itself lies just before the first timestep.
    return _walk(model, x0.to(model.device, model.dtype), conditioning, grid, timesteps)


def regenerate(
    model: DiffusionModel, seeds: Sequence[int], conditioning: Conditioning, timesteps: Sequence[int]
) -> Tensor:
    """The clean predictions at `timesteps` on the way from the noise of `seeds` to the pictures.

    The noise of a seed is `torch.randn` with a CPU generator of that seed, as diffusers' pipelines draw it for a
    batch of one.

    Returns:
        `x̂_0⁽ᵗ⁾`, (B, T, C, h, w).
    """
    noise = [
        torch.randn(1, *model.sample_shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds
    ]
    grid = _grid(model, timesteps)[::-1]
    start = torch.cat(noise).to(model.device, model.dtype)
    return _walk(model, start, conditioning, grid, timesteps)


@torch.no_grad()
def backwards(
    model: DiffusionModel, x0: Tensor, conditioning: Conditioning, steps: int
) -> tuple[Tensor, Tensor]:
    """Take pictures back to noise in a few steps (DDIM inversion), and say how well they are recognised on the way.

    Args:
        x0: (B, C, h, w) in the model's own space.
        steps: S, evenly spaced from timestep 0; one forward pass each.

    Returns:
        The noise, (B, C, h, w), and the RMS of `x̂_0 - x_0` at each step, (B, S).
    """
    x0 = x0.to(model.device, model.dtype)
    whole = model.schedule.num_train_timesteps
    grid = [step * whole // steps for step in range(steps)]
    noise, errors = x0, []
    for _, clean, following in _steps(model, x0, conditioning, [*grid, whole - 1]):
        errors.append((clean - x0).float().flatten(1).square().mean(1).sqrt())
        noise = following
    return noise, torch.stack(errors, 1)


def _grid(model: DiffusionModel, timesteps: Sequence[int]) -> list[int]:
    """The steps of a trajectory, least noise first."""
    whole = model.schedule.num_train_timesteps
    return sorted({*timesteps, *(step * whole // STEPS for step in range(STEPS)), whole - 1})


@torch.no_grad()
def _walk(
    model: DiffusionModel, x: Tensor, conditioning: Conditioning, grid: list[int], timesteps: Sequence[int]
) -> Tensor:
    # A step beyond the last, from where nothing is wanted but the prediction there.
    walked = _steps(model, x, conditioning, [*grid, grid[-1]])
    predictions = {step: clean for step, clean, _ in walked if step in timesteps}
    return torch.stack([predictions[step] for step in timesteps], 1)


def _steps(
    model: DiffusionModel, x: Tensor, conditioning: Conditioning, grid: list[int]
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Walk along `grid`: for each step but the last, the step, `x̂_0` there, and what comes of it at the next."""
    for step, following in pairwise(grid):
        t, after = (torch.full((len(x),), place, device=model.device) for place in (step, following))
        clean, noise = model.schedule.recover(x, t, model.predict(x, t, conditioning))
        a, b = (level.to(x.dtype) for level in model.schedule.levels(after))
        x = a * clean + b * noise
        yield step, clean, x


def trajectories(
    model: DiffusionModel,
    x0: Tensor,
    conditioning: Conditioning,
    seeds: Sequence[int | None],
    timesteps: Sequence[int],
) -> Tensor:
    """The clean predictions on each generation's way, (B, T, C, h, w): by its seed, or inverted where that is None.

    Args:
        x0: the generations, (B, C, h, w).
    """
    found = x0.new_empty(len(x0), len(timesteps), *x0.shape[1:])
    for seeded in (False, True):
        places = [place for place, seed in enumerate(seeds) if (seed is not None) is seeded]
        if not places:
            continue
        given = {name: values[places] for name, values in conditioning.items()}
        if seeded:
            chosen = [seed for seed in seeds if seed is not None]
            found[places] = regenerate(model, chosen, given, timesteps)
        else:
            found[places] = invert(model, x0[places], given, timesteps)
    return found
