"""Output function: does a picture's change follow the change of the loss, or that of the predicted noise?

Models are trained again without random works, and the generated queries' seeds are generated again. Over all pairs of
model and query, the distance between old and new picture is correlated with the change of the query's loss and with
the change of the prediction on it. The second is what DAS measures (METHOD, section 6; paper: 0.257, 0.485).
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from das.errors import SettingsError
from das.evaluation.counterfactual import distance
from das.evaluation.lds import spearman
from das.evaluation.retraining import Retrainer
from das.evaluation.training import LossConfig, new_scheduler, seed_of
from das.prng import standard_normal
from das.schedules import VariancePreserving

Say = Callable[[str], None]


def output_function(
    retrainer: Retrainer,
    *,
    models: int,
    remove: int,
    losses: LossConfig,
    seed: int = 0,
    say: Say = lambda text: None,
) -> list[dict[str, Any]]:
    """A row for each output function, "loss" and "prediction": Pearson and Spearman correlations.

    Args:
        models: how many are trained again, each without `remove` other random works.

    Raises:
        SettingsError: too few models, or more removed than there are works.
    """
    works = len(retrainer.truth.works)
    if models < 1 or not 0 < remove < works:
        raise SettingsError(f"{models} models without {remove} of {works} works can't be trained.")
    places = retrainer.generated()
    before = retrainer.truth.queries[places]
    old = outputs(retrainer.full(), before, losses)
    noise = noises(before.shape[1:], losses)
    moved, loss_changes, output_changes = [], [], []
    for number in range(models):
        removed = np.random.default_rng(seed_of(seed, "output function", number)).permutation(works)[:remove]
        network = retrainer.without(removed)
        moved.append(distance(before, retrainer.regenerate(network).numpy()))
        new = outputs(network, before, losses)
        loss_changes.append(np.abs(simple(new, noise) - simple(old, noise)))
        output_changes.append(np.sqrt(np.square(new - old).mean((0, 2, 3, 4))))
        say(f"model {number + 1} of {models}: L2 {moved[-1].mean():.3f}")
    pictures = np.concatenate(moved)
    return [
        {
            "function": name,
            "pearson": float(np.corrcoef(pictures, changes)[0, 1]),
            "spearman": float(spearman(pictures, changes)),
            "models": models,
            "removed": remove,
            "pairs": len(pictures),
        }
        for name, changes in (
            ("loss", np.concatenate(loss_changes)),
            ("prediction", np.concatenate(output_changes)),
        )
    ]


def noises(shape: tuple[int, ...], config: LossConfig) -> np.ndarray:
    """The shared noise of every point, (P, C, H, W), as `simple_losses` draws it."""
    return np.stack(
        [standard_normal(config.seed, f"evaluation\nloss\n{t}\n{draw}", shape) for t, draw in config.points()]
    )


@torch.inference_mode()  # type: ignore[untyped-decorator]
def outputs(network: nn.Module, images: np.ndarray, config: LossConfig) -> np.ndarray:
    """Predictions on pictures (Q, C, H, W) at every point of a loss, (P, Q, C, H, W) float32."""
    device = next(network.parameters()).device
    schedule = VariancePreserving.of(new_scheduler())
    x0 = torch.from_numpy(images).to(device)
    found = []
    for (t, _), noise in zip(config.points(), noises(images.shape[1:], config), strict=True):
        times = torch.full((len(x0),), t, device=device)
        x_t = schedule.add_noise(x0, torch.from_numpy(noise).to(x0), times)
        found.append(network(x_t, times, return_dict=False)[0].cpu().numpy())
    return np.stack(found)


def simple(predicted: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """The Simple Loss of each query, (Q,), of predictions (P, Q, C, H, W) and noises (P, C, H, W)."""
    return np.asarray(np.square(predicted - noise[:, None]).mean((0, 2, 3, 4)))
