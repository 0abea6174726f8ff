"""Where a ground truth's pictures come from: an npz, of which works and held-out queries are drawn."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from das.errors import SettingsError
from measure.pictures import model_space
from measure.plan import Draw
from measure.training import seed_of
from measure.truth import read_arrays


@dataclass(frozen=True)
class Source:
    """Pictures to draw works and validation queries from: each (n, H, W, C) uint8 or float, with labels (n,)."""

    images: np.ndarray
    labels: np.ndarray
    held_out: np.ndarray | None
    held_out_labels: np.ndarray | None

    def digest(self) -> str:
        """SHA-256 of the pictures."""
        digest = hashlib.sha256()
        for array in (self.images, self.held_out):
            if array is not None:
                digest.update(f"{array.dtype} {array.shape}\n".encode())
                digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def works(self, plan: Draw) -> dict[str, np.ndarray]:
        """The plan's works with their labels, in model space.

        Raises:
            SettingsError: there are fewer pictures than the plan takes, or they aren't pictures.
        """
        rows = self._order(plan)[: self._count(plan)]
        return {"images": model_space(self.images[rows], plan.size), "labels": self.labels[rows]}

    def validation(self, plan: Draw) -> dict[str, np.ndarray]:
        """The plan's validation queries with their labels: held out, or else pictures that are no works.

        Raises:
            SettingsError: there are fewer pictures than the plan takes.
        """
        if self.held_out is None or self.held_out_labels is None:
            start = self._count(plan)
            images, labels = self.images, self.labels
            rows = self._order(plan)[start : start + plan.validation]
        else:
            images, labels = self.held_out, self.held_out_labels
            if plan.validation > len(images):
                raise SettingsError(
                    f"{plan.validation} validation queries can't be drawn from {len(images)} pictures."
                )
            generator = np.random.default_rng(seed_of(plan.seed, "validation"))
            rows = generator.permutation(len(images))[: plan.validation]
        return {"images": model_space(images[rows], plan.size), "labels": labels[rows]}

    def _order(self, plan: Draw) -> np.ndarray:
        return np.random.default_rng(seed_of(plan.seed, "works")).permutation(len(self.images))

    def _count(self, plan: Draw) -> int:
        """N, which leaves room for validation queries where none are held out."""
        spare = plan.validation if self.held_out is None else 0
        count = len(self.images) - spare if plan.count is None else plan.count
        if count < 2 or count + spare > len(self.images):
            raise SettingsError(
                f"{count} works and {spare} validation queries can't be drawn from {len(self.images)} pictures."
            )
        return count


def read_source(path: Path, key: str = "images", held_out_key: str | None = None) -> Source:
    """Read pictures from an npz; labels lie under the same name with "labels" for "images", zeros otherwise.

    Raises:
        SettingsError: a key is missing, or an array doesn't hold pictures.
    """
    arrays = read_arrays(path, (key,) if held_out_key is None else (key, held_out_key))

    def labels(name: str) -> np.ndarray:
        return arrays.get(name.replace("images", "labels"), np.zeros(len(arrays[name]), np.int64))

    for name in filter(None, (key, held_out_key)):
        if arrays[name].ndim not in (3, 4):
            raise SettingsError(
                f"{path}: {name} has the shape {arrays[name].shape};"
                " expected (count, height, width) or (count, height, width, channels)."
            )
    if held_out_key is None:
        return Source(arrays[key], labels(key), None, None)
    return Source(arrays[key], labels(key), arrays[held_out_key], labels(held_out_key))
