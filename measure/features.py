"""The features that a study needs, per timestep and not normalised, kept on disk between runs.

A cache directory holds one folder for each model, set of pictures and `FeatureConfig`, named by a digest of them,
with one array for each probe. A finished folder is never written again.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from das.durable import write_directory
from das.errors import SettingsError
from das.gradients import FeatureConfig, FeatureExtractor
from das.models import DiffusionModel
from das.trajectories import invert

RESIDUAL_RMS = "residual-rms"
_IMAGES = 16  # pictures handed to the extractor at once, which bounds what a report waits for

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class FeatureTable:
    """Features of n pictures.

    Attributes:
        by_probe: for each probe (n, T, k) float32, memory-mapped where cached.
        residual_rms: (n, T) float32.
        timesteps: T of them.
    """

    by_probe: dict[str, np.ndarray]
    residual_rms: np.ndarray
    timesteps: tuple[int, ...]

    @property
    def dimension(self) -> int:
        """k."""
        return int(next(iter(self.by_probe.values())).shape[2])

    def at(self, timesteps: tuple[int, ...]) -> "FeatureTable":
        """The same with some of the timesteps only.

        Raises:
            SettingsError: one of them is not there.
        """
        if timesteps == self.timesteps:
            return self
        missing = sorted(set(timesteps) - set(self.timesteps))
        if missing:
            raise SettingsError(f"There are no features at the timesteps {missing}.")
        places = [self.timesteps.index(t) for t in timesteps]
        chosen = {name: values[:, places] for name, values in self.by_probe.items()}
        return FeatureTable(chosen, self.residual_rms[:, places], timesteps)

    def folded(self, dimension: int) -> "FeatureTable":
        """The same with a smaller sketch; equal to extracting with that dimension.

        A coordinate's bucket is its hash times k, rounded down (`das.sketch`), so the buckets of a k that is m times
        smaller are the sums of m neighbours, signs included.

        Raises:
            SettingsError: `dimension` doesn't divide k.
        """
        if dimension == self.dimension:
            return self
        if dimension < 1 or self.dimension % dimension:
            raise SettingsError(f"A sketch of {self.dimension} can't be folded to {dimension}.")
        folded = {
            name: values.reshape(*values.shape[:2], dimension, -1).sum(-1)
            for name, values in self.by_probe.items()
        }
        return FeatureTable(folded, self.residual_rms, self.timesteps)


def extract(
    model: DiffusionModel,
    images: np.ndarray,
    config: FeatureConfig,
    *,
    cache: Path | None = None,
    batch_size: int = 64,
    journey: bool = False,
    progress: Progress | None = None,
) -> FeatureTable:
    """Features of pictures (n, C, H, W) in model space, from the cache or computed.

    Args:
        journey: take them at the clean predictions of each picture's own trajectory (Journey TRAK).
    """
    if cache is None:
        return _computed(model, images, config, batch_size, journey, progress)
    folder = cache / _key(model, images, config, journey)
    if not folder.is_dir():
        table = _computed(model, images, config, batch_size, journey, progress)

        def write(partial: Path) -> None:
            for name, values in {**table.by_probe, RESIDUAL_RMS: table.residual_rms}.items():
                np.save(partial / f"{name}.npy", values)

        # Another process that was quicker has written the same numbers.
        write_directory(folder, write, keep=True)
    stored = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in config.probes}
    return FeatureTable(stored, np.load(folder / f"{RESIDUAL_RMS}.npy"), config.timesteps)


def _key(model: DiffusionModel, images: np.ndarray, config: FeatureConfig, journey: bool) -> str:
    digest = hashlib.sha256(np.ascontiguousarray(images).tobytes())
    facts = [model.identity["digest"], dataclasses.asdict(config), journey, images.shape]
    digest.update(json.dumps(facts, sort_keys=True, default=str).encode())
    return digest.hexdigest()[:24]


def _computed(
    model: DiffusionModel,
    images: np.ndarray,
    config: FeatureConfig,
    batch_size: int,
    journey: bool,
    progress: Progress | None,
) -> FeatureTable:
    extractor = FeatureExtractor(model, config, batch_size=batch_size)
    parts: dict[str, list[np.ndarray]] = {name: [] for name in (*config.probes, RESIDUAL_RMS)}
    for start in range(0, len(images), _IMAGES):
        x0: Tensor = torch.from_numpy(np.ascontiguousarray(images[start : start + _IMAGES]))
        if journey:
            x0 = invert(model, x0, model.condition([None] * len(x0)), config.timesteps)
        found = extractor.features(x0)
        for name, values in {**found.by_probe, RESIDUAL_RMS: found.residual_rms}.items():
            parts[name].append(values.float().cpu().numpy())
        if progress is not None:
            progress("journeys" if journey else "features", start + len(x0), len(images))
    whole = {name: np.concatenate(arrays) for name, arrays in parts.items()}
    rms = whole.pop(RESIDUAL_RMS)
    return FeatureTable(whole, rms, config.timesteps)
