"""The noise of an index's shares: reference generations attributed with every replicate of the features."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from das.answer import Attribution
from das.attribution import Attributor
from das.intervals import Noise, ShareNoise, jackknife_variance, replicates_of
from index_build.workspace import Workspace

ASKED = 50
"""References that are asked about; the variance is averaged over them."""
TOP_WORKS, TOP_CREATORS = 20, 3
_PRODUCT_BYTES = 256 * 2**20


def has_intervals(attributor: Attributor, method: str) -> bool:
    """Whether shares by `method` get intervals: its kernels sum timesteps, and there are enough of these."""
    manifest = attributor.index.manifest
    kernels = manifest.kernels_of(method)
    return bool(replicates_of(len(manifest.timesteps))) and all(kernel.form == "block" for kernel in kernels)


def measure_share_noise(
    attributor: Attributor,
    method: str,
    workspace: Workspace,
    pixels: Sequence[np.ndarray],
    prompts: Sequence[str | None],
) -> ShareNoise:
    """Attribute pictures, each (H, W, 3) uint8, with every replicate, and compare with one another.

    Needs the replicates of the works' features, which the workspace keeps until it is published.
    """
    count = len(attributor.index)
    groups = replicates_of(len(attributor.index.manifest.timesteps))
    at_once = max(1, min(len(pixels), _PRODUCT_BYTES // (8 * count * len(groups))))
    works: list[np.ndarray] = []
    creators: list[np.ndarray] = []
    for first in range(0, len(pixels), at_once):
        asked, given = pixels[first : first + at_once], prompts[first : first + at_once]
        answers = attributor.attribute_batch(asked, method=method, top_k=min(TOP_WORKS, count), prompts=given)
        scores = _replicated_scores(attributor, method, workspace, groups, asked, given)
        positive = np.maximum(scores, 0.0)
        totals = positive.sum(2, keepdims=True)
        shares = positive / np.where(totals > 0, totals, 1.0)
        for place, answer in enumerate(answers):
            of_works, of_creators = _roots(attributor, answer, shares[:, place])
            works.append(np.stack([[work.share for work in answer.works], jackknife_variance(of_works)]))
            largest = [group.share for group in answer.groups["creator"][:TOP_CREATORS]]
            creators.append(np.stack([largest, jackknife_variance(of_creators)]))
    return ShareNoise.of(
        Noise.of(*np.concatenate(works, 1)),
        Noise.of(*np.concatenate(creators, 1)),
        len(attributor.index.manifest.timesteps),
    )


def _replicated_scores(
    attributor: Attributor,
    method: str,
    workspace: Workspace,
    groups: Sequence[Sequence[int]],
    pixels: Sequence[np.ndarray],
    prompts: Sequence[str | None],
) -> np.ndarray:
    """Scores of every work with each replicate, (G, B, N) float64."""
    features = attributor.timestep_features(pixels, method, prompts)
    products: list[list[np.ndarray]] = [[] for _ in groups]
    norms = []
    for kernel in attributor.index.manifest.kernels_of(method):
        values = features[kernel.features]
        norms.append(torch.linalg.vector_norm(values.mean(1).double(), dim=1).cpu().numpy())
        queries = [attributor.solved(kernel, values[:, list(group)].mean(1)) for group in groups]
        pieces: list[list[np.ndarray]] = [[] for _ in groups]
        for replicates in _stored(workspace, kernel.features):
            for group, query in enumerate(queries):
                pieces[group].append(query @ replicates[group].astype(np.float64).T)
        for group, piece in enumerate(pieces):
            products[group].append(np.concatenate(piece, 1))
    return np.stack([attributor.combined(method, ours, norms) for ours in products])


def _stored(workspace: Workspace, features: str) -> Iterator[np.ndarray]:
    """Replicates (G, n, k) of the works' features, a shard at a time, in the order of the index's rows."""
    for shard in workspace.shards():
        if len(shard):
            yield shard.replicates(features)


def _roots(attributor: Attributor, answer: Attribution, shares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Roots of the replicates' shares (G, N), of the answer's first works (G, ·) and first creators (G, ·)."""
    works = shares[:, [work.row for work in answer.works]]
    creators = attributor.index.works.grouping("creator")
    by_name = {name: code for code, name in enumerate(creators.names())}
    first = [by_name.get(group.name) for group in answer.groups["creator"][:TOP_CREATORS]]
    chosen = [by_name[None] if code is None else code for code in first]
    together = np.stack([shares[:, creators.codes == code].sum(1) for code in chosen], 1)
    return np.sqrt(works), np.sqrt(together)
