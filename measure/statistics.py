"""How good a variant's scores are: its figures over the halvings and draws of a ground truth's subsets."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from measure.lds import assess, ceiling, difference_interval, percentiles, predictions, resampled
from measure.methods import Variant
from measure.scores import Study
from measure.spectrum import DAMPING_GRID
from measure.truth import KINDS, GroundTruth, Subject

POINTS = 100.0  # correlations are told times 100, as in the paper
DIFFERENCE = ("difference", "difference_low", "difference_high")


@dataclass(frozen=True)
class Measured:
    """The figures of one variant.

    Attributes:
        figures: of its row; correlations times 100, λ in units of tr(K)/N.
        draws: each query's score over the bootstrap's draws of subsets, (R, Q).
    """

    figures: dict[str, Any]
    draws: np.ndarray


def measured(study: Study[GroundTruth], variant: Variant) -> Measured:
    """Score the variant with the default rule's λ and over the grid, and hold both against the ground truth.

    Raises:
        Skipped: something that it needs was not given.
    """
    truth = study.truth
    default = predictions(study.scores(variant), truth.members)
    grid = DAMPING_GRID if variant.damped else (None,)
    curve = np.stack([predictions(study.scores(variant, damping), truth.members) for damping in grid])
    figures: dict[str, Any] = {}
    if variant.damped:
        used = [spectrum.default_damping(signed=variant.signed) for spectrum in study.spectra(variant)]
        figures["damping"] = float(np.exp(np.mean(np.log(used))))
    draws = resampled(default, truth.mean_losses(), seed=study.options.seed)
    for suffix, queries in query_groups(truth):
        found = _figures(study, variant, queries, curve, default, draws)
        figures |= {f"{name}{suffix}": value for name, value in found.items()}
    return Measured(figures, draws)


def differences(truth: GroundTruth, found: Measured, other: Measured) -> dict[str, float]:
    """How far one variant's LDS lies above another's, with its interval, from the same draws of subsets."""
    figures: dict[str, float] = {}
    for suffix, queries in query_groups(truth):
        low, high = difference_interval(found.draws[:, queries], other.draws[:, queries])
        values = (found.figures[f"lds{suffix}"] - other.figures[f"lds{suffix}"], POINTS * low, POINTS * high)
        figures |= {f"{name}{suffix}": value for name, value in zip(DIFFERENCE, values, strict=True)}
    return figures


def no_differences(truth: GroundTruth) -> dict[str, None]:
    """The same figures where there is nothing to hold a variant against."""
    return dict.fromkeys(f"{name}{suffix}" for suffix, _ in query_groups(truth) for name in DIFFERENCE)


def query_groups(truth: Subject) -> list[tuple[str, np.ndarray]]:
    """Groups of queries by the ending of their figures: all, and each kind where there are both."""
    kinds = [kind for kind in KINDS if len(truth.queries_of(kind))]
    groups = [("", np.arange(len(truth.queries)))]
    if len(kinds) > 1:
        groups += [(f"_{kind}", truth.queries_of(kind)) for kind in kinds]
    return groups


def ceilings(losses: np.ndarray) -> dict[str, float | None]:
    """What real retrainings score, times 100: a second one, and about a perfect prediction of their mean.

    Args:
        losses: (M, S, Q), NaN where not run.
    """
    top = ceiling(losses)
    if top is None:
        return {"ceiling": None, "perfect": None}
    return {"ceiling": POINTS * top, "perfect": POINTS * max(top, 0.0) ** 0.5}


def _figures(
    study: Study[GroundTruth],
    variant: Variant,
    queries: np.ndarray,
    curve: np.ndarray,
    default: np.ndarray,
    draws: np.ndarray,
) -> dict[str, Any]:
    """The figures of some of the queries, of predictions (L, Q, M) and (Q, M) and of draws (R, Q)."""
    truth, options = study.truth, study.options
    quality = assess(
        curve[:, queries],
        default[queries],
        truth.mean_losses()[:, queries],
        splits=options.splits,
        seed=options.seed,
    )
    low, high = percentiles(draws[:, queries])
    found: dict[str, Any] = {
        "lds": POINTS * quality.lds,
        "low": POINTS * low,
        "high": POINTS * high,
        "oracle_lds": POINTS * quality.oracle,
        "chosen_lds": POINTS * quality.chosen,
        **ceilings(truth.losses[:, :, queries]),
    }
    if variant.damped:
        found["regret"] = POINTS * (quality.oracle - quality.lds)
        found["oracle_damping"] = DAMPING_GRID[quality.oracle_option]
        found["curve"] = [
            [damping, POINTS * float(y)] for damping, y in zip(DAMPING_GRID, quality.curve, strict=True)
        ]
    return found
