"""Likeness of pictures as baselines of attribution: raw pixels, or latents for latent models, and CLIP embeddings.

These measure no influence. They are here because a method that doesn't beat them says nothing (METHOD, section 3).
"""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch

from das.index import AttributionIndex
from das.methods import Method, Quantity
from das.models import DiffusionModel
from das.screening import Embedder

_CHUNK_ROWS = 4096


class Similarity:
    """Scores pictures against the works of an index by the methods that compare pictures (das.methods)."""

    def __init__(self, index: AttributionIndex, model: DiffusionModel, device: str) -> None:
        self._index = index
        self._model = model
        self._device = device

    def scores(
        self, method: Method, images: Sequence[np.ndarray], chosen: Sequence[np.ndarray | None]
    ) -> list[np.ndarray]:
        """The likeness of each image to its candidates, (n,) float64 for each."""
        by_clip = method.compares == "clip"
        queries, query_norms, works, norms = self._by_clip(images) if by_clip else self._by_pixels(images)
        found = []
        for query, query_norm, rows in zip(queries, query_norms, chosen, strict=True):
            products = _products(query, works, rows)
            ours = norms if rows is None else norms[rows]
            if by_clip:
                # The embeddings are kept with unit norm, their norms apart.
                products = products * ours * query_norm
            quantities: dict[Quantity, np.ndarray] = {"query_norms": np.array([query_norm]), "norms": ours}
            found.append(method.scores(products[None], quantities)[0])
        return found

    def _by_clip(self, images: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
        embeddings, norms = self._embedder.embed_with_norms(images)
        return embeddings, norms.astype(np.float64), self._index.embeddings, self._index.embedding_norms

    def _by_pixels(self, images: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
        queries = self._model.encode(images).flatten(1).float().cpu().numpy()
        norms = np.linalg.norm(queries.astype(np.float64), axis=1)
        return queries, norms, self._index.pictures, self._picture_norms

    @cached_property
    def _embedder(self) -> Embedder:
        embedder = Embedder.load(self._index.clip, self._device)
        embedder.check(self._index.manifest.clip_digest, self._index.id)
        return embedder

    @cached_property
    def _picture_norms(self) -> np.ndarray:
        works = self._index.pictures
        pieces = [works[start : start + _CHUNK_ROWS] for start in range(0, len(works), _CHUNK_ROWS)]
        return np.concatenate([np.linalg.norm(piece.astype(np.float64), axis=1) for piece in pieces])


def _products(query: np.ndarray, works: np.ndarray, rows: np.ndarray | None) -> np.ndarray:
    """(n,) float64; the works are converted from half precision a chunk at a time."""
    chosen = np.arange(len(works)) if rows is None else rows
    products = np.empty(len(chosen))
    vector = torch.from_numpy(query).double()
    for start in range(0, len(chosen), _CHUNK_ROWS):
        piece = torch.from_numpy(np.asarray(works[chosen[start : start + _CHUNK_ROWS]], np.float64))
        products[start : start + len(piece)] = (piece @ vector).numpy()
    return products
