"""Counterfactual: what becomes of a generation when the works ranked highest for it were never there.

For a set of generated queries the works with the largest sums of scores are removed, the full model is trained again
with the same start and noises, and the same seeds are generated. The further the pictures move, the more those works
mattered; removing as many random works says how far they move anyway (METHOD, section 6).
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from das.config import ClipSpec
from das.errors import SettingsError
from measure.methods import Variant
from measure.pictures import clip_embeddings
from measure.retraining import Retrainer
from measure.scores import Skipped, Study
from measure.statistics import POINTS
from measure.training import seed_of
from measure.truth import GroundTruth

Say = Callable[[str], None]
Keep = Callable[[str, np.ndarray], None]
RANDOM, BEFORE = "random", "before"


def query_sets(count: int, size: int, sets: int) -> list[np.ndarray]:
    """`sets` runs of `size` generated queries, by their place among the generated ones.

    Raises:
        SettingsError: there are not so many.
    """
    if size < 1 or sets < 1 or size * sets > count:
        raise SettingsError(f"{sets} sets of {size} can't be taken from {count} generated queries.")
    return [np.arange(start, start + size) for start in range(0, size * sets, size)]


def ranked_highest(scores: np.ndarray, k: int) -> np.ndarray:
    """Rows of the k works with the largest sums of scores (n, N) over a set's queries, (k,)."""
    return np.argsort(-scores.sum(0), kind="stable")[:k]


def counterfactual(
    study: Study[GroundTruth],
    chosen: list[Variant],
    *,
    remove: int,
    set_size: int,
    sets: int,
    retrainer: Retrainer,
    clip: ClipSpec | None = None,
    say: Say = lambda text: None,
    keep: Keep = lambda label, pictures: None,
) -> list[dict[str, Any]]:
    """A row for random removal and one for each variant: mean L2 distance and CLIP similarity, old to new.

    `l2_of_sets` has the mean of each set: one training again each, so they say how much of a difference is chance.
    `keep` is given the first set's pictures (set_size, C, H, W) in [-1, 1], as they were and for each row.

    Raises:
        SettingsError: `remove` or the sets don't fit the ground truth.
    """
    works = len(study.truth.works)
    if not 0 < remove < works:
        raise SettingsError(
            f"{remove} of {works} works can't be removed; give a number from 1 to {works - 1}."
        )
    places = retrainer.generated()
    groups = query_sets(len(places), set_size, sets)
    before = study.truth.queries[places]
    keep(BEFORE, before[groups[0]])
    rows = []
    for variant in [None, *chosen]:
        label = RANDOM if variant is None else variant.label
        row: dict[str, Any] = {"label": label, "method": RANDOM if variant is None else variant.method}
        row |= {"removed": remove, "queries": set_size * sets, "sets": sets}
        try:
            scores = None if variant is None else study.scores(variant)
        except Skipped as reason:
            rows.append({**row, "skipped": str(reason)})
            continue
        distances, likenesses = [], []
        for number, group in enumerate(groups):
            if scores is None:
                generator = np.random.default_rng(seed_of(study.options.seed, RANDOM, number))
                removed = generator.permutation(works)[:remove]
            else:
                removed = ranked_highest(scores[places[group]], remove)
            after = retrainer.regenerate(retrainer.without(removed)).numpy()[group]
            if number == 0:
                keep(label, after)
            distances.append(distance(before[group], after))
            if clip is not None:
                likenesses.append(clip_likeness(clip, before[group], after, study.options.device))
            say(f"{label}, set {number + 1} of {sets}: L2 {distances[-1].mean():.3f}")
        row["l2"] = float(np.mean(distances))
        row["l2_of_sets"] = [float(of_set.mean()) for of_set in distances]
        row["clip_similarity"] = POINTS * float(np.mean(likenesses)) if likenesses else None
        rows.append(row)
    return rows


def distance(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """L2 distance of pictures (n, C, H, W) in [-1, 1], (n,)."""
    return np.asarray(np.linalg.norm((before - after).reshape(len(before), -1).astype(np.float64), axis=1))


def clip_likeness(spec: ClipSpec, before: np.ndarray, after: np.ndarray, device: str = "cpu") -> np.ndarray:
    """Cosine of the CLIP embeddings of pictures before and after, (n,)."""
    a, b = clip_embeddings(spec, [before, after], device)
    return np.asarray((a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)))
