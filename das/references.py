"""What a picture is held against to tell whether this model made it: the model's own pictures, measured at build.

Every reference generation has a row of statistics (das.origin) as the model made it, and some also as
pictures arrive that were re-encoded on their way. A picture's distance from a set of references is Mahalanobis's; its
p-value is conformal, so that of the model's own pictures at most a part α is taken for another's, whatever the
distribution (Vovk, Gammerman and Shafer 2005). No torch in here.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from das.errors import IndexFormatError
from das.intervals import Noise, ShareNoise

AS_MADE = "as-made"
"""The references exactly as the model made them; the other sets are named by what was done to them."""

FEWEST = 100
"""Of fewer references the farthest isn't far: more than one in a hundred of the model's own would lie beyond it."""

MARGIN = 1.1
"""A picture so many times as far as the farthest reference isn't the model's own as it was made (decision 20)."""

RE_ENCODED_LEVEL = 0.05
"""With a p-value at or below it a picture isn't the model's own as it was re-encoded either."""

HELD_OUT_LEVEL = 0.03
"""With a p-value at or below it among the references, a picture looks like those the model was not shown."""

_SHRINKAGE = 0.1
_FOLDS = 10
_RIDGE = 1.0
_NEWTON_STEPS = 30
_STATISTICS = "statistics."
_TOP_SHARE = "top_share."
_HELD_OUT = "held_out"
_NOISE = "share_noise."


class ReferenceSet:
    """Statistics (n, d) of the model's pictures that arrived in one way, and how far a picture lies from them."""

    def __init__(self, statistics: np.ndarray) -> None:
        self._statistics = statistics.astype(np.float64)
        distances = [
            _Distance(np.delete(self._statistics, row, 0))(self._statistics[row : row + 1])[0]
            for row in range(len(statistics))
        ]
        # Each as far from the others as it would be if it were asked about.
        self._own = np.sort(np.array(distances))
        self._distance = _Distance(self._statistics)

    def p_values(self, statistics: np.ndarray) -> np.ndarray:
        """`(1 + #{references at least as far}) / (n + 1)` of pictures with these statistics (B, d): (B,)."""
        farther = len(self._own) - np.searchsorted(self._own, self._distance(statistics))
        found: np.ndarray = (1 + farther) / (len(self._own) + 1)
        return found

    def beyond(self, statistics: np.ndarray) -> np.ndarray:
        """Whether pictures with these statistics (B, d) are farther than all references, by `MARGIN`: (B,) bool."""
        found: np.ndarray = self._distance(statistics) > MARGIN**2 * self._own[-1]
        return found


class _Distance:
    """Mahalanobis's squared distance, each statistic in units of its spread, with a shrunk covariance."""

    def __init__(self, statistics: np.ndarray) -> None:
        self._mean, spread = statistics.mean(0), statistics.std(0)
        self._spread = np.where(spread > 0, spread, 1.0)
        values = (statistics - self._mean) / self._spread
        covariance = np.cov(values.T) + _SHRINKAGE * np.eye(values.shape[1])
        self._precision = np.linalg.inv(covariance)

    def __call__(self, statistics: np.ndarray) -> np.ndarray:
        values = (statistics - self._mean) / self._spread
        squared: np.ndarray = np.einsum("bi,ij,bj->b", values, self._precision, values)
        return squared


class HeldOutRule:
    """A logistic rule between the model's pictures (n, d) and held-out ones (m, d), as conformal p-values.

    Each reference has the log odds that it gets where it took no part in the fit, so the p-values hold like those of
    a distance.
    """

    def __init__(self, references: np.ndarray, held_out: np.ndarray) -> None:
        folds = np.arange(len(references)) % _FOLDS
        own = np.empty(len(references))
        for fold in range(_FOLDS):
            own[folds == fold] = _Logistic(references[folds != fold], held_out)(references[folds == fold])
        self._own = np.sort(own)
        self._rule = _Logistic(references, held_out)

    def p_values(self, statistics: np.ndarray) -> np.ndarray:
        """`(1 + #{references that look as much like held-out ones}) / (n + 1)` of statistics (B, d): (B,)."""
        as_much = len(self._own) - np.searchsorted(self._own, self._rule(statistics))
        found: np.ndarray = (1 + as_much) / (len(self._own) + 1)
        return found


class _Logistic:
    """Ridge logistic regression on standardised statistics, both classes of equal weight: log odds of the second."""

    def __init__(self, first: np.ndarray, second: np.ndarray) -> None:
        both = np.concatenate([first, second])
        self._mean, spread = both.mean(0), both.std(0)
        self._spread = np.where(spread > 0, spread, 1.0)
        values = self._design(both)
        second_class = np.repeat([0.0, 1.0], [len(first), len(second)])
        weights = np.repeat([0.5 / len(first), 0.5 / len(second)], [len(first), len(second)]) * len(both)
        ridge = np.full(values.shape[1], _RIDGE)
        ridge[0] = 1e-6
        self._coefficients = np.zeros(values.shape[1])
        for _ in range(_NEWTON_STEPS):
            odds = np.clip(values @ self._coefficients, -30, 30)
            probability = 1 / (1 + np.exp(-odds))
            slope = values.T @ (weights * (second_class - probability)) - ridge * self._coefficients
            curved = weights * probability * (1 - probability)
            curvature = (values * curved[:, None]).T @ values + np.diag(ridge)
            self._coefficients = self._coefficients + np.linalg.solve(curvature, slope)

    def __call__(self, statistics: np.ndarray) -> np.ndarray:
        found: np.ndarray = self._design(statistics) @ self._coefficients
        return found

    def _design(self, statistics: np.ndarray) -> np.ndarray:
        values = (statistics - self._mean) / self._spread
        return np.concatenate([np.ones((len(values), 1)), values, values**2], 1)


@dataclass(frozen=True)
class References:
    """An index's reference generations.

    Attributes:
        statistics: by how they arrived, (n, d) float64; `AS_MADE` is always there.
        top_shares: by method, the share of the first work in each reference's answer with every work a candidate,
            (n,) float64.
        noise: by method, how uncertain its shares are (das.intervals).
        held_out: statistics of pictures that the model was not trained on, (m, d) float64; None: there are none.
    """

    statistics: Mapping[str, np.ndarray]
    top_shares: Mapping[str, np.ndarray]
    held_out: np.ndarray | None = None
    noise: Mapping[str, ShareNoise] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.statistics[AS_MADE])

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read `references.safetensors`; raises IndexFormatError where it isn't one."""
        try:
            tensors = load_file(path)
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise IndexFormatError(f"{path} is damaged: {error}") from error
        found = cls(
            {
                name.removeprefix(_STATISTICS): array
                for name, array in tensors.items()
                if name.startswith(_STATISTICS)
            },
            {
                name.removeprefix(_TOP_SHARE): array
                for name, array in tensors.items()
                if name.startswith(_TOP_SHARE)
            },
            tensors.get(_HELD_OUT),
            {
                name.removeprefix(_NOISE): _noise_of(array)
                for name, array in tensors.items()
                if name.startswith(_NOISE)
            },
        )
        measured = [*found.statistics.values(), *([] if found.held_out is None else [found.held_out])]
        widths = {array.shape[1:] for array in measured}
        if AS_MADE not in found.statistics or len(widths) != 1 or len(widths.pop()) != 1:
            raise IndexFormatError(f"{path} doesn't hold statistics of references; build the index again.")
        return found

    def write(self, path: Path) -> None:
        """Write `references.safetensors`."""
        named = {f"{_STATISTICS}{arrival}": array for arrival, array in self.statistics.items()}
        named |= {f"{_TOP_SHARE}{method}": array for method, array in self.top_shares.items()}
        named |= {f"{_NOISE}{method}": _numbers_of(noise) for method, noise in self.noise.items()}
        if self.held_out is not None:
            named[_HELD_OUT] = self.held_out
        save_file({name: np.ascontiguousarray(array, np.float64) for name, array in named.items()}, path)

    @cached_property
    def _sets(self) -> dict[str, ReferenceSet]:
        return {arrival: ReferenceSet(statistics) for arrival, statistics in self.statistics.items()}

    @cached_property
    def _held_out_rule(self) -> HeldOutRule | None:
        return None if self.held_out is None else HeldOutRule(self.statistics[AS_MADE], self.held_out)

    def in_model(self, statistics: np.ndarray) -> list[dict[str, object]]:
        """Whether the model made pictures with these statistics (B, d): for each verdict, p-values, references.

        `likely`: nothing speaks against it. `unsure`: as it is the model didn't make it (`ReferenceSet.beyond`, or
        it looks like the held-out pictures), but one of its pictures that was re-encoded might look so. `unlikely`:
        neither. A picture whose statistics aren't numbers is unlikely. `p_value_held_out` is None without held-out
        pictures.

        Raises:
            IndexFormatError: they are other statistics than the references'.
        """
        if statistics.shape[1:] != self.statistics[AS_MADE].shape[1:]:
            raise IndexFormatError(
                "the references were measured by another version of das; build the index again."
            )
        finite = np.isfinite(statistics).all(1)
        # Beyond the largest float's root a square would be infinite, and infinities could compare as equal.
        bounded = np.clip(np.where(finite[:, None], statistics, 0.0), -1e100, 1e100)
        by_arrival = {arrival: one.p_values(bounded) for arrival, one in self._sets.items()}
        beyond = self._sets[AS_MADE].beyond(bounded)
        as_made = by_arrival.pop(AS_MADE)
        re_encoded = np.max([as_made, *by_arrival.values()], axis=0)
        rule = self._held_out_rule
        unseen = np.ones(len(bounded)) if rule is None else rule.p_values(bounded)
        least = 1 / (len(self) + 1)
        as_made, re_encoded, unseen = (np.where(finite, p, least) for p in (as_made, re_encoded, unseen))
        strange = beyond | ~finite | (unseen <= (0.0 if rule is None else HELD_OUT_LEVEL))
        return [
            {
                "verdict": _verdict(bool(other), float(theirs)),
                "p_value": float(ours),
                "p_value_re_encoded": float(theirs),
                "p_value_held_out": None if rule is None else float(shown),
                "references": len(self),
            }
            for ours, theirs, shown, other in zip(as_made, re_encoded, unseen, strange, strict=True)
        ]

    def percentile(self, method: str, share: float) -> float | None:
        """How many percent of the references have a first work of a smaller share; None: not known of the method."""
        shares = self.top_shares.get(method)
        if shares is None or not len(shares) or not math.isfinite(share):
            return None
        return 100.0 * float(np.mean(shares < share))


def _numbers_of(noise: ShareNoise) -> np.ndarray:
    works, creators = noise.works, noise.creators
    return np.array([works.base, works.slope, creators.base, creators.slope, noise.reach])


def _noise_of(numbers: np.ndarray) -> ShareNoise:
    if numbers.shape != (5,):
        raise IndexFormatError(
            "the intervals were measured by another version of das; build the index again."
        )
    a, b, c, d, reach = (float(number) for number in numbers)
    return ShareNoise(Noise(a, b), Noise(c, d), reach)


def _verdict(strange: bool, re_encoded: float) -> str:
    if not strange:
        return "likely"
    return "unsure" if re_encoded > RE_ENCODED_LEVEL else "unlikely"
