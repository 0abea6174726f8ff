"""What a build will take, told before it starts: time from a timed batch, disk and memory from sizes."""

import math
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
from torch import Tensor

from das.config import FEATURE_BYTES, BuildConfig
from das.errors import BuildError
from das.gradients import FeatureExtractor
from das.screening import Embedder
from index_build.gather import images_at_once, kernel_forms
from index_build.inputs import WorksOnDisk
from index_build.pictures import PictureReader
from index_build.workspace import building_path

_TIMED_IMAGES = 8
_TIMED_PART = 0.02  # of all works: timing shall not take longer than what it tells
_THUMBNAIL_BYTES = 12_000  # a 256-pixel WebP of a photograph, with room to spare
_DISK_RESERVE = 256 * 2**20


@dataclass(frozen=True)
class Estimate:
    """Seconds of gradients still to do, and the bytes a build needs at its peak."""

    seconds: float
    disk_bytes: int
    memory_bytes: int

    def describe(self) -> str:
        """In words."""
        return (
            f"about {_duration(self.seconds)}, {_size(self.disk_bytes)} of disk,"
            f" {_size(self.memory_bytes)} of memory"
        )

    def as_dict(self) -> dict[str, Any]:
        """For machines."""
        return asdict(self)


def disk_needed(config: BuildConfig, works: int, timesteps: int, embedding: int) -> int:
    """Bytes on disk at the peak of a build: the products of the first pass beside the finished index."""
    stored = FEATURE_BYTES[config.feature_dtype]
    per_work = config.dimension * len(config.feature_sets) * (4 + stored) + timesteps * 4
    per_work += 2 * (embedding * 4 + _THUMBNAIL_BYTES) + embedding * 4
    # The checkpoint and the one that replaces it, and the factors.
    kernels = 3 * len(kernel_forms(config)) * config.dimension**2 * 8
    return works * per_work + kernels


def check_disk(out: Path, needed: int) -> None:
    """Raise BuildError if the disk of `out` can't hold `needed` bytes beside what an earlier run left."""
    building = building_path(out)
    there = (
        sum(path.stat().st_size for path in building.rglob("*") if path.is_file()) if building.is_dir() else 0
    )
    folder = next(parent for parent in out.absolute().parents if parent.is_dir())
    free = shutil.disk_usage(folder).free
    missing = needed - there + _DISK_RESERVE - free
    if missing > 0:
        raise BuildError(
            f"the build needs about {_size(needed)} of disk and {folder} has {_size(free)} free, {_size(missing)}"
            " too little. Make room, choose another --out, or lower --dimension."
        )


def memory_needed(config: BuildConfig, images: int, timesteps: int) -> int:
    """Bytes of memory at the peak: kernels, a shard of averages, a batch of features, what is loaded now."""
    square = config.dimension**2 * 8
    kernels = square * (
        len(kernel_forms(config)) + 3
    )  # the sums; a factor, its inverse and a copy in between
    shard = config.shard_size * config.dimension * (4 * len(config.feature_sets) + 16)
    batch = 3 * images * timesteps * config.dimension * 4 * len(config.feature_sets)
    return psutil.Process().memory_info().rss + kernels + shard + batch


def estimate(
    config: BuildConfig,
    works: WorksOnDisk,
    left: int,
    extractors: Sequence[FeatureExtractor],
    embedder: Embedder,
) -> Estimate:
    """Time a few works and size the rest; `left` is how many works are still to do."""
    steps = len(extractors[0].config.timesteps)
    images = images_at_once(config, extractors[0])
    return Estimate(
        seconds=left * _seconds_per_work(works, extractors, embedder) if left else 0.0,
        disk_bytes=disk_needed(config, len(works), steps, embedder.dimension),
        memory_bytes=memory_needed(config, images, steps),
    )


def _compute(extractors: Sequence[FeatureExtractor], x0: Tensor) -> None:
    """Compute features and wait for them; a GPU works on while Python goes ahead."""
    for extractor in extractors:
        extractor.features(x0).residual_rms.cpu()


def _seconds_per_work(
    works: WorksOnDisk, extractors: Sequence[FeatureExtractor], embedder: Embedder
) -> float:
    """Time of one work, from up to eight; the first call of all isn't counted, because it allocates."""
    reader = PictureReader(works)
    try:
        count = min(_TIMED_IMAGES, math.ceil(len(works) * _TIMED_PART))
        batch = next(reader.batches(range(count), count))[0]
        if not batch:
            return 0.0
        model = extractors[0].model
        _compute(extractors, model.encode([batch[0].pixels]))
        began = time.perf_counter()
        pixels = [picture.pixels for picture in next(reader.batches(range(count), count))[0]]
        _compute(extractors, model.encode(pixels))
        embedder.embed(pixels)
        return (time.perf_counter() - began) / len(pixels)
    finally:
        reader.close()


def _size(count: int) -> str:
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if abs(value) < 1000:
            return f"{value:.0f} {unit}" if unit in ("B", "kB") else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:,.1f} TB"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
