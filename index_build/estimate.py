"""What a build will take, told before it starts: time from a timed batch, disk and memory from sizes."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import psutil
from torch import Tensor

from das.config import FEATURE_BYTES, BuildConfig
from das.gradients import FeatureExtractor
from das.intervals import replicates_of
from das.pdq import BYTES
from das.screening import Embedder, NoEmbedder
from index_build.disk import in_bytes
from index_build.gather import images_at_once, kernel_forms, replicated_sets
from index_build.inputs import WorksOnDisk
from index_build.pictures import PictureReader
from index_build.progress import duration

SSCD_NUMBERS = 512  # as its authors' models give
_TIMED_IMAGES = 8
_TIMED_PART = 0.02  # of all works: timing shall not take longer than what it tells
_THUMBNAIL_BYTES = 12_000  # a 256-pixel WebP of a photograph, with room to spare


@dataclass(frozen=True)
class Estimate:
    """Seconds of gradients still to do, and the bytes a build needs at its peak."""

    seconds: float
    disk_bytes: int
    memory_bytes: int

    def describe(self) -> str:
        """In words."""
        return (
            f"about {duration(self.seconds)}, {in_bytes(self.disk_bytes)} of disk,"
            f" {in_bytes(self.memory_bytes)} of memory"
        )


def disk_needed(config: BuildConfig, works: int, timesteps: int, embedding: int) -> int:
    """Bytes on disk at the peak of a build: the products of the first pass beside the finished index."""
    stored = FEATURE_BYTES[config.feature_dtype]
    per_work = config.dimension * len(config.feature_sets) * (4 + stored) + timesteps * 4
    per_work += 2 * config.dimension * len(replicates_of(timesteps)) * len(replicated_sets(config))
    per_work += 2 * (embedding * 4 + BYTES + 1 + _THUMBNAIL_BYTES) + embedding * 4
    per_work += 2 * 2 * SSCD_NUMBERS if config.sscd is not None else 0
    # The checkpoint and the one that replaces it, and the factors.
    kernels = 3 * len(kernel_forms(config)) * config.dimension**2 * 8
    return works * per_work + kernels


def memory_needed(config: BuildConfig, images: int, timesteps: int) -> int:
    """Bytes of memory at the peak: kernels, a shard of averages, a batch of features, what is loaded now."""
    square = config.dimension**2 * 8
    kernels = square * (
        2 * len(kernel_forms(config)) + 3
    )  # the sums and a shard's; a factor, its inverse and a copy in between
    shard = config.shard_size * config.dimension * (4 * len(config.feature_sets) + 16)
    batch = 3 * images * timesteps * config.dimension * 4 * len(config.feature_sets)
    return int(psutil.Process().memory_info().rss) + kernels + shard + batch


def estimate(
    config: BuildConfig,
    works: WorksOnDisk,
    left: int,
    extractors: Sequence[FeatureExtractor],
    embedder: Embedder | NoEmbedder,
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
    works: WorksOnDisk, extractors: Sequence[FeatureExtractor], embedder: Embedder | NoEmbedder
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
