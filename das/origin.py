"""Statistics that tell a model's own pictures from others: what is left when the model takes a picture back to noise.

A picture that the model made came out of Gaussian noise by the probability-flow ODE, or has the distribution of
those that did; taken back by the same ODE (DDIM inversion, Song et al. 2021) it ends as Gaussian noise again. Other
pictures leave something of themselves in it. The numbers are held against those of the model's own pictures
(das.references), so neither the sampler nor its guidance need to be known, and few steps serve.
"""

import numpy as np
import torch
from torch import Tensor

from das.models import Conditioning, DiffusionModel
from das.trajectories import backwards

STEPS = 10
"""Forward passes that the statistics take (decision 20)."""

STATISTICS = 5 + STEPS
"""How many numbers a picture has."""

_LEAST = 1e-12


@torch.no_grad()
def origin_statistics(model: DiffusionModel, x0: Tensor, conditioning: Conditioning) -> np.ndarray:
    """Statistics of pictures x_0 (B, C, h, w) in the model's own space: (B, STATISTICS) float64.

    Of the noise z that a picture goes back to: logarithms of its mean square, of its fourth moment relative to the
    variance, and of the mean square of its channels' means; its correlation with itself one and two places aside.
    Then, for each step of the way, the logarithm of the RMS of `x̂_0 - x_0`, how far the model sees another picture
    than the one it came from.
    """
    noise, errors = backwards(model, x0, conditioning, STEPS)
    z = noise.double()
    means = z.mean((2, 3), keepdim=True)
    centred = z - means
    scale = centred.square().mean((1, 2, 3), keepdim=True).clamp_min(_LEAST).sqrt()
    unit = centred / scale
    columns = [
        z.square().mean((1, 2, 3)).clamp_min(_LEAST).log(),
        unit.pow(4).mean((1, 2, 3)).clamp_min(_LEAST).log(),
        means.square().mean((1, 2, 3)).add(1e-3).log(),
        _correlation(unit, 1),
        _correlation(unit, 2),
    ]
    told = torch.cat([torch.stack(columns, 1), errors.double().clamp_min(_LEAST).log()], 1)
    found: np.ndarray = told.cpu().numpy()
    return found


def _correlation(unit: Tensor, distance: int) -> Tensor:
    """Mean product of values `distance` apart, across and down, (B,); 0 where the picture is too small for it."""
    across = unit[..., distance:] * unit[..., :-distance]
    down = unit[..., distance:, :] * unit[..., :-distance, :]
    parts = [part.mean((1, 2, 3)) for part in (across, down) if part.numel()]
    return torch.stack(parts).mean(0) if parts else unit.new_zeros(len(unit))
