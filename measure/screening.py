"""Screening: what is lost when only the look-alikes of a query are scored.

Recall is the part of the full ranking's top 20 among the works that look most like the query; the LDS lost is that of
the full scores less that of the scores with every other work's set to zero.
"""

from typing import Any

import numpy as np

from das import registry
from das.errors import SettingsError
from measure.lds import lds
from measure.methods import Variant, similarity_scores
from measure.scores import Skipped, Study
from measure.statistics import POINTS
from measure.truth import GroundTruth

TOP_WORKS = 20


def look_alikes(study: Study[GroundTruth]) -> tuple[str, np.ndarray]:
    """Cosines of queries and works (Q, N) by CLIP, or by pixels where none was given; and which it was."""
    if study.options.clip is not None:
        works, queries = study.embeddings
        return "clip", similarity_scores(registry.method("clip-cosine"), works, queries)
    truth = study.truth
    works, queries = (images.reshape(len(images), -1) for images in (truth.works, truth.queries))
    return "pixels", similarity_scores(registry.method("pixel-cosine"), works, queries)


def screened(similarity: np.ndarray, count: int) -> np.ndarray:
    """Which works are among the `count` most similar of each query, (Q, N) bool."""
    kept = np.zeros(similarity.shape, bool)
    order = np.argsort(-similarity, axis=1, kind="stable")[:, :count]
    np.put_along_axis(kept, order, True, axis=1)
    return kept


def recall(scores: np.ndarray, kept: np.ndarray, top: int = TOP_WORKS) -> float:
    """Part of each query's `top` highest scores (Q, N) that lie in `kept` (Q, N), mean over queries."""
    best = np.argsort(-scores, axis=1, kind="stable")[:, :top]
    return float(np.take_along_axis(kept, best, 1).mean())


def screening(
    study: Study[GroundTruth], chosen: list[Variant], counts: tuple[int, ...]
) -> list[dict[str, Any]]:
    """A row for each variant and number of look-alikes.

    Raises:
        SettingsError: a count is below 1.
    """
    if min(counts) < 1:
        raise SettingsError(f"At least one look-alike must be scored; got {min(counts)}.")
    embedding, similarity = look_alikes(study)
    losses, members = study.truth.mean_losses(), study.truth.members
    rows = []
    for variant in chosen:
        row: dict[str, Any] = {"label": variant.label, "method": variant.method, "embedding": embedding}
        try:
            scores = study.scores(variant)
        except Skipped as reason:
            rows.append({**row, "skipped": str(reason)})
            continue
        whole = POINTS * float(lds(scores, losses, members).mean())
        # Two counts beyond the works are the same one.
        for count in dict.fromkeys(min(count, scores.shape[1]) for count in counts):
            kept = screened(similarity, count)
            part = POINTS * float(lds(np.where(kept, scores, 0.0), losses, members).mean())
            rows.append(
                {
                    **row,
                    "candidates": count,
                    "recall": recall(scores, kept),
                    "lds": whole,
                    "screened_lds": part,
                    "lds_lost": whole - part,
                }
            )
    return rows
