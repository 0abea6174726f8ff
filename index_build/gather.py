"""The first pass: every work's gradients, once. Averaged features per shard, kernel sums over all of them."""

import math
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor

from das.config import BuildConfig, KernelForm
from das.errors import BuildError
from das.gradients import FeatureExtractor
from das.kernel import KernelAccumulator, averaged
from das.screening import Embedder
from index_build.inputs import WorksOnDisk
from index_build.pictures import Picture, PictureReader
from index_build.progress import Reporter
from index_build.workspace import ShardProducts, Workspace

_BATCH_FEATURE_BYTES = 256 * 2**20


def kernel_forms(config: BuildConfig) -> list[tuple[str, KernelForm]]:
    """The kernels to sum: every probe's block form, which whitens, and any other that a method reads."""
    forms: list[tuple[str, KernelForm]] = [(probe, "block") for probe in config.all_probes]
    forms += [(kernel.probe, kernel.form) for kernel in config.kernels if kernel.form != "block"]
    return forms


class Gatherer:
    """Computes shards of products and the kernel sums with them."""

    def __init__(
        self, config: BuildConfig, works: WorksOnDisk, extractor: FeatureExtractor, embedder: Embedder
    ) -> None:
        self._config = config
        self._works = works
        self._extractor = extractor
        self._embedder = embedder
        self._repeats = np.asarray(works.source.table["repeats"])
        self._images = images_at_once(config, extractor)
        self.shards = math.ceil(len(works) / config.shard_size)

    def run(self, workspace: Workspace, reporter: Reporter, *, strict: bool) -> dict[str, np.ndarray]:
        """Compute the shards that `workspace` lacks; returns the kernel sums over all, (k, k) float64.

        Raises:
            BuildError: a gradient isn't finite; or, if `strict`, a work can't be read.
        """
        sums = {
            _sum_name(probe, form): KernelAccumulator(form, self._config.dimension)
            for probe, form in kernel_forms(self._config)
        }
        for name, matrix in workspace.kernel_sums().items():
            sums[name].matrix = torch.from_numpy(matrix)
        done = workspace.shards_done
        reader = PictureReader(self._works)
        try:
            at = min(done * self._config.shard_size, len(self._works))
            with reporter.stage("gradients", len(self._works), at) as stage:
                for shard in range(done, self.shards):
                    products = self._shard(shard, reader, sums, stage, strict=strict)
                    workspace.commit(shard, products, _matrices(sums))
        finally:
            reader.close()
        return _matrices(sums)

    def _shard(
        self,
        shard: int,
        reader: PictureReader,
        sums: dict[str, KernelAccumulator],
        stage: Any,
        *,
        strict: bool,
    ) -> ShardProducts:
        size = self._config.shard_size
        rows = range(shard * size, min((shard + 1) * size, len(self._works)))
        pieces: list[tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]] = []
        taken: list[int] = []
        thumbnails: list[bytes] = []
        refused: list[dict[str, Any]] = []
        for pictures, unreadable in reader.batches(rows, self._images):
            if unreadable and strict:
                first = unreadable[0]
                raise BuildError(
                    f"{first.file} can't be used ({first.code}): {first.message} (--strict is on)"
                )
            refused += [asdict(entry) for entry in unreadable]
            if pictures:
                pieces.append(self._batch(pictures, sums))
                taken += [picture.row for picture in pictures]
                thumbnails += [picture.thumbnail for picture in pictures]
            stage.advance(len(pictures) + len(unreadable))
        return ShardProducts(
            rows=np.array(taken, np.int64),
            averages={
                probe: _stacked([averages[probe] for averages, _, _ in pieces], self._config.dimension)
                for probe in self._config.all_probes
            },
            residual_rms=_stacked([rms for _, rms, _ in pieces], len(self._extractor.config.timesteps)),
            embeddings=_stacked([embeddings for _, _, embeddings in pieces], self._embedder.dimension),
            thumbnails=thumbnails,
            refused=refused,
        )

    def _batch(
        self, pictures: list[Picture], sums: dict[str, KernelAccumulator]
    ) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
        """Averaged features, residual RMS and embeddings of a batch; its part is added to the kernel sums."""
        model = self._extractor.model
        pixels = [picture.pixels for picture in pictures]
        features = self._extractor.features(model.encode(pixels))
        rows = [picture.row for picture in pictures]
        weights = torch.from_numpy(self._repeats[rows]).to(model.device)
        self._check_finite(rows, [*features.by_probe.values(), features.residual_rms[..., None]])
        averages = {}
        for probe, raw in features.by_probe.items():
            averages[probe] = averaged(raw).float().cpu().numpy()
            for name in (_sum_name(probe, "block"), _sum_name(probe, "mean")):
                if name in sums:
                    sums[name].add(raw, weights)
        return averages, features.residual_rms.float().cpu().numpy(), self._embedder.embed(pixels)

    def _check_finite(self, rows: list[int], tensors: list[Tensor]) -> None:
        for tensor in tensors:
            finite = torch.isfinite(tensor).flatten(1).all(1)
            if not bool(finite.all()):
                file = self._works.source.paths[rows[int((~finite).nonzero()[0])]]
                raise BuildError(
                    f"the model's gradient for {file} isn't finite. Check that the model's weights are whole;"
                    " a model that overflows for one picture can't be attributed."
                )


def images_at_once(config: BuildConfig, extractor: FeatureExtractor) -> int:
    """Works per call of the engine: as many as fill whole passes of `batch_size` pairs, within 256 MB."""
    pairs = extractor.pairs_per_image
    full_passes = config.batch_size // math.gcd(config.batch_size, pairs)
    each = len(extractor.config.timesteps) * config.dimension * 4 * len(config.all_probes)
    return max(1, min(full_passes, _BATCH_FEATURE_BYTES // each))


def sum_of(sums: dict[str, np.ndarray], probe: str, form: KernelForm) -> np.ndarray:
    """The kernel sum K (k, k) float64 of a probe in a form."""
    return sums[_sum_name(probe, form)]


def _sum_name(probe: str, form: KernelForm) -> str:
    return f"{probe}.{form}"


def _matrices(sums: dict[str, KernelAccumulator]) -> dict[str, np.ndarray]:
    return {name: total.matrix.numpy() for name, total in sums.items()}


def _stacked(arrays: list[np.ndarray], width: int) -> np.ndarray:
    return np.concatenate(arrays) if arrays else np.empty((0, width), np.float32)
