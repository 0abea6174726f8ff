"""Which group a picture owes most to: what estimators say, held against models trained without each group.

A row predicts a number for each group and query, and is held against two targets: how much the query's loss rises
without the group, and how far the prediction on it moves (Eq. 9, what DAS itself estimates).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch

from das.methods import ACTIVATION, PAPER_PROBE
from measure.groups import GroupTruth
from measure.lds import CONFIDENCE, RESAMPLES, spearman
from measure.methods import Variant
from measure.scores import Skipped, Study
from measure.statistics import POINTS, query_groups

DEFAULT = Variant("das-block", ("loss", ACTIVATION), normalised=True)
NDCG_PLACES = 3
SUMMED, MEAN, LARGEST, EXACT = "sum", "mean", "largest", "variance"


def _largest(scores: np.ndarray, member: np.ndarray) -> np.ndarray:
    return np.stack([scores[:, member[:, group] > 0].max(1) for group in range(member.shape[1])], 1)


_SUMMED_AS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    SUMMED: lambda scores, member: scores @ member,
    MEAN: lambda scores, member: scores @ (member / member.sum(0)),
    LARGEST: _largest,
}
"""From scores (Q, N) and memberships (N, G) to predictions (Q, G)."""


@dataclass(frozen=True)
class Target:
    """What leaving out a group changes.

    Attributes:
        effects: (G, Q), larger for more influence.
        halves: the same from each half of the seeds, (2, G, Q); None where one seed was run.
    """

    name: str
    effects: np.ndarray
    halves: np.ndarray | None

    def reliability(self, queries: np.ndarray) -> tuple[float, float] | tuple[None, None]:
        """Rank correlation of one half of the seeds with the other, and of all with the truth they estimate.

        The second, which a perfect prediction would score, is the square root of the whole's reliability by Spearman
        and Brown, `2r / (1 + r)`.
        """
        if self.halves is None:
            return None, None
        one, other = (half[:, queries].T for half in self.halves)
        half = float(spearman(one, other).mean())
        whole = max(0.0, 2 * half / (1 + half)) if half > -1 else 0.0
        return half, whole**0.5


@dataclass(frozen=True)
class GroupComparison:
    """Rows of one study of a ground truth of groups.

    Attributes:
        untrained: the same with features of the network before its training, as a control.
    """

    study: Study[GroupTruth]
    untrained: Study[GroupTruth] | None = None

    def rows(self) -> list[dict[str, Any]]:
        """A row for each way to predict, each held against the default's sum."""
        found: list[dict[str, Any]] = []
        reference = self._predicted(self.study, DEFAULT, SUMMED)
        for label, predict in self._ways():
            try:
                predicted = predict()
            except Skipped as reason:
                found.append({"label": label, "skipped": str(reason)})
                continue
            row: dict[str, Any] = {"label": label}
            for target in self.targets:
                row |= self._figures(target, predicted, reference)
            found.append(row)
        return found

    @cached_property
    def targets(self) -> tuple[Target, ...]:
        """The change of the loss, and of the prediction."""
        truth = self.study.truth
        by_seed = truth.loss_effects().transpose(1, 0, 2)
        middle = len(by_seed) // 2
        halves = np.stack([by_seed[:middle].mean(0), by_seed[middle:].mean(0)]) if middle else None
        found = [Target("loss", by_seed.mean(0), halves)]
        moved = truth.prediction_effects()
        if np.isfinite(moved).all():
            parts = (slice(None, middle), slice(middle, None))
            both = np.stack([truth.prediction_effects(part) for part in parts]) if middle > 1 else None
            found.append(Target("prediction", moved, both))
        return tuple(found)

    def _ways(self) -> Iterator[tuple[str, Callable[[], np.ndarray]]]:
        study, truth = self.study, self.study.truth
        random = np.random.default_rng(study.options.seed)
        groups, queries = truth.without.shape[1], len(truth.queries)
        yield "random", lambda: random.random((queries, groups))
        yield "size of the group", lambda: np.tile(truth.repeats @ self._member, (queries, 1))
        plain = [Variant("pixel-cosine"), Variant("clip-cosine")]
        plain += [
            Variant("gradient-cosine", ("loss",)),
            Variant("trak", ("loss",)),
            Variant("d-trak", ("square",)),
        ]
        plain.append(Variant("das", (PAPER_PROBE,), normalised=True))
        for variant in plain:
            for how in (SUMMED, LARGEST) if variant.estimator.compares else (SUMMED,):
                yield f"{variant.label}, {how}", partial(self._predicted, study, variant, how)
        for probes in (("loss",), (ACTIVATION,), (PAPER_PROBE,), ("random",)):
            variant = Variant("das-block", probes, normalised=True)
            yield f"{variant.label}, {SUMMED}", partial(self._predicted, study, variant, SUMMED)
        for how in _SUMMED_AS:
            yield f"{DEFAULT.label}, {how}", partial(self._predicted, study, DEFAULT, how)
        yield f"{DEFAULT.label}, {EXACT}", partial(self._variance_rises, DEFAULT)
        economical = Variant("das-block", (ACTIVATION,), normalised=True, preset="economical")
        if economical in study.variants():
            yield f"{economical.label}, {SUMMED}", partial(self._predicted, study, economical, SUMMED)
        if self.untrained is not None:
            yield (
                f"untrained: {DEFAULT.label}, {SUMMED}",
                partial(self._predicted, self.untrained, DEFAULT, SUMMED),
            )

    @cached_property
    def _member(self) -> np.ndarray:
        """(N, G), 1 where a work is of a group."""
        every: np.ndarray = np.eye(self.study.truth.without.shape[1])
        return np.take(every, self.study.truth.groups, axis=0)

    def _predicted(self, study: Study[GroupTruth], variant: Variant, how: str) -> np.ndarray:
        """(Q, G)."""
        return np.asarray(_SUMMED_AS[how](study.scores(variant), self._member))

    def _variance_rises(self, variant: Variant) -> np.ndarray:
        """`aᵀ(I - W_G W_Gᵀ)⁻¹a`, a = W_G q: the exact rise of the predictive variance when a group goes, (Q, G).

        W_G are the group's whitened averages, each times `√w_i`; the block kernel's rows of single timesteps would be
        another, and no better, reading.
        """
        truth = self.study.truth
        total = np.zeros((len(truth.queries), self._member.shape[1]))
        for spectrum in self.study.spectra(variant):
            damping = spectrum.default_damping()
            scale = (spectrum.values + damping * spectrum.unit).rsqrt()
            works = spectrum.works * scale * torch.from_numpy(np.sqrt(truth.repeats))[:, None]
            queries = spectrum.queries * scale
            for group in range(total.shape[1]):
                rows = works[torch.from_numpy(truth.groups == group)]
                along = rows @ queries.T
                kept = torch.eye(len(rows), dtype=rows.dtype) - rows @ rows.T
                rises = (along * torch.linalg.solve(kept, along)).sum(0)
                total[:, group] += rises.numpy() / spectrum.mean_square(damping)
        return total

    def _figures(self, target: Target, predicted: np.ndarray, reference: np.ndarray) -> dict[str, Any]:
        """Of each kind of queries: rank correlation over groups, first places, and the difference to the default."""
        found: dict[str, Any] = {}
        effects = target.effects.T
        correlation = spearman(predicted, effects)
        lead = spearman(reference, effects) - correlation
        for suffix, places in query_groups(self.study.truth):
            name = f"{target.name}{suffix}"
            low, high = _interval(correlation[places], self.study.options.seed)
            lead_low, lead_high = _interval(lead[places], self.study.options.seed)
            half, perfect = target.reliability(places)
            found |= {
                f"{name}": POINTS * float(correlation[places].mean()),
                f"{name}_low": low,
                f"{name}_high": high,
                f"{name}_lead": POINTS * float(lead[places].mean()),
                f"{name}_lead_low": lead_low,
                f"{name}_lead_high": lead_high,
                f"{name}_top1": POINTS * float(_first_agrees(predicted, effects)[places].mean()),
                f"{name}_mrr": POINTS * float(_reciprocal_ranks(predicted, effects)[places].mean()),
                f"{name}_ndcg3": POINTS * float(_ndcg(predicted, effects)[places].mean()),
                f"{name}_half": None if half is None else POINTS * half,
                f"{name}_perfect": None if perfect is None else POINTS * perfect,
            }
            if target.halves is not None:
                one, other = target.halves[:, :, places].transpose(0, 2, 1)
                found[f"{name}_half_top1"] = POINTS * float(_first_agrees(one, other).mean())
        return found


def _interval(values: np.ndarray, seed: int) -> tuple[float, float]:
    """95 % of the mean of some queries' values, times 100, by bootstrap over the queries."""
    drawn = np.random.default_rng(seed).integers(len(values), size=(RESAMPLES, len(values)))
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(values[drawn].mean(1), [tail, 1 - tail])
    return POINTS * float(low), POINTS * float(high)


def _first_agrees(predicted: np.ndarray, effects: np.ndarray) -> np.ndarray:
    """Whether the group predicted first (Q, G) is the one with the largest effect, (Q,)."""
    return np.asarray(predicted.argmax(1) == effects.argmax(1))


def _reciprocal_ranks(predicted: np.ndarray, effects: np.ndarray) -> np.ndarray:
    """1 over the predicted rank of the group with the largest effect, (Q,)."""
    right = np.take_along_axis(predicted, effects.argmax(1)[:, None], 1)
    return np.asarray(1 / (1 + (predicted > right).sum(1)))


def _ndcg(predicted: np.ndarray, effects: np.ndarray) -> np.ndarray:
    """Discounted gain of the first three groups over that of the best three, effects below 0 counting 0: (Q,)."""
    gains = np.maximum(effects, 0)
    discounts = 1 / np.log2(np.arange(2, 2 + NDCG_PLACES))

    def gain(order: np.ndarray) -> np.ndarray:
        return np.asarray((np.take_along_axis(gains, order[:, :NDCG_PLACES], 1) * discounts).sum(1))

    best = gain(np.argsort(-gains, axis=1))
    found = gain(np.argsort(-predicted, axis=1))
    quotients: np.ndarray = np.divide(found, best, out=np.zeros_like(best), where=best > 0)
    return quotients
