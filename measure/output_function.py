"""Output function: does a picture's change follow the change of the loss, or that of the predicted noise?

Models are trained again without random works, and the generated queries' seeds are generated again. Over all pairs of
model and query, the distance between old and new picture is correlated with the change of the query's loss and with
the change of the prediction on it. The second is what DAS measures (METHOD, section 6; paper: 0.257, 0.485).
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from das.errors import SettingsError
from measure.counterfactual import distance
from measure.lds import spearman
from measure.retraining import Retrainer
from measure.training import LossConfig, predictions_on, seed_of, shared_noises, simple_losses

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
    pictures = torch.from_numpy(before)
    old = predictions_on(retrainer.full(), pictures, losses).cpu()
    noises = shared_noises(before.shape[1:], losses)
    moved, loss_changes, output_changes = [], [], []
    for number in range(models):
        removed = np.random.default_rng(seed_of(seed, "output function", number)).permutation(works)[:remove]
        network = retrainer.without(removed)
        moved.append(distance(before, retrainer.regenerate(network).numpy()))
        new = predictions_on(network, pictures, losses).cpu()
        change = simple_losses(new, noises) - simple_losses(old, noises)
        loss_changes.append(change.abs().numpy())
        output_changes.append((new - old).square().mean((0, 2, 3, 4)).sqrt().numpy())
        say(f"model {number + 1} of {models}: L2 {moved[-1].mean():.3f}")
    distances = np.concatenate(moved)
    return [
        {
            "function": name,
            "pearson": float(np.corrcoef(distances, changes)[0, 1]),
            "spearman": float(spearman(distances, changes)),
            "models": models,
            "removed": remove,
            "pairs": len(distances),
        }
        for name, changes in (
            ("loss", np.concatenate(loss_changes)),
            ("prediction", np.concatenate(output_changes)),
        )
    ]
