"""The first pass: every work's gradients, once. Averaged features per shard, kernel sums over all of them."""

import math
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from das.config import BuildConfig, FeatureSet
from das.errors import BuildError
from das.gradients import FeatureExtractor
from das.intervals import replicates_of
from das.kernel import KernelAccumulator, SummedForm, prepared
from das.pdq import BYTES
from index_build.inputs import WorksOnDisk
from index_build.loaded import Loaded
from index_build.pictures import Picture, PictureReader
from index_build.progress import Reporter, Stage
from index_build.workspace import ShardProducts, Workspace

_BATCH_FEATURE_BYTES = 256 * 2**20


def kernel_forms(config: BuildConfig) -> list[tuple[FeatureSet, SummedForm]]:
    """The kernels to sum: every set's block form, which whitens, and the averages' where a method reads it."""
    forms: list[tuple[FeatureSet, SummedForm]] = [(features, "block") for features in config.feature_sets]
    averages = dict.fromkeys(kernel.features for kernel in config.kernels if kernel.form == "mean")
    return forms + [(FeatureSet.parse(name), "mean") for name in averages]


@dataclass(frozen=True, eq=False)
class _BatchProducts:
    """As ShardProducts, of one batch."""

    averages: dict[str, np.ndarray]
    replicates: dict[str, np.ndarray]
    residual_rms: np.ndarray
    embeddings: np.ndarray
    embedding_norms: np.ndarray
    sscd: np.ndarray
    pictures: np.ndarray


class Gatherer:
    """Computes shards of products and the kernel sums with them."""

    def __init__(
        self,
        config: BuildConfig,
        works: WorksOnDisk,
        loaded: Loaded,
    ) -> None:
        """Nothing is read or computed yet."""
        self._config = config
        self._works = works
        self._extractors = extractors = loaded.extractors
        self._embedder = loaded.embedder
        self._sscd = loaded.sscd
        self._repeats = np.asarray(works.source.table["repeats"])
        self._prompts = works.source.table["prompt"].to_pylist()
        self._images = images_at_once(config, extractors[0])
        self._replicates = replicates_of(len(extractors[0].config.timesteps))
        self._replicated = replicated_sets(config) if self._replicates else ()
        self.shards = math.ceil(len(works) / config.shard_size)

    def run(self, workspace: Workspace, reporter: Reporter, *, strict: bool) -> dict[str, np.ndarray]:
        """Compute the shards that `workspace` lacks; returns the kernel sums over all, (k, k) float64.

        Raises:
            BuildError: a gradient isn't finite; or, if `strict`, a work can't be read.
        """
        sums = workspace.kernel_sums() or self.no_sums()
        done = workspace.shards_done
        if done:
            # A build that an earlier version began is refused now, and not at its end.
            _ = workspace.shards()[0].tdm
        if strict:
            workspace.check_strict()
        with (
            closing(PictureReader(self._works)) as reader,
            reporter.stage("gradients", len(self._works), self.works_in(done)) as stage,
        ):
            for shard in range(done, self.shards):
                products, part = self.compute(shard, reader, stage, strict=strict)
                add(sums, part)
                workspace.commit(shard, products, sums)
        return sums

    def works_in(self, shards: int) -> int:
        """How many works of the source the first `shards` shards are made of."""
        return min(shards * self._config.shard_size, len(self._works))

    def no_sums(self) -> dict[str, np.ndarray]:
        """The kernel sums of no work: zeros, (k, k) float64, by name."""
        k = self._config.dimension
        return {_sum_name(*form): np.zeros((k, k)) for form in kernel_forms(self._config)}

    def compute(
        self, shard: int, reader: PictureReader, stage: Stage, *, strict: bool
    ) -> tuple[ShardProducts, dict[str, np.ndarray]]:
        """What a shard gives, and its own kernel sums, (k, k) float64 by name: the same bits whoever computes them.

        Raises:
            BuildError: a gradient isn't finite; a file changed; or, if `strict`, a work can't be read.
        """
        sums = {
            _sum_name(features, form): KernelAccumulator(form, self._config.dimension)
            for features, form in kernel_forms(self._config)
        }
        rows = range(self.works_in(shard), self.works_in(shard + 1))
        pieces: list[_BatchProducts] = []
        taken: list[int] = []
        thumbnails: list[bytes] = []
        hashes: list[np.ndarray] = []
        tdm: list[int] = []
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
                hashes += [picture.hash for picture in pictures]
                tdm += [picture.tdm for picture in pictures]
            stage.advance(len(pictures) + len(unreadable))
        products = ShardProducts(
            rows=np.array(taken, np.int64),
            averages={
                features.name: _stacked(
                    [piece.averages[features.name] for piece in pieces], self._config.dimension
                )
                for features in self._config.feature_sets
            },
            replicates={
                name: np.concatenate([piece.replicates[name] for piece in pieces], 1)
                for name in (pieces[0].replicates if pieces else ())
            },
            residual_rms=_stacked(
                [piece.residual_rms for piece in pieces], len(self._extractors[0].config.timesteps)
            ),
            embeddings=_stacked([piece.embeddings for piece in pieces], self._embedder.dimension),
            embedding_norms=_stacked([piece.embedding_norms[:, None] for piece in pieces], 1)[:, 0],
            pictures=_stacked(
                [piece.pictures for piece in pieces], math.prod(self._extractors[0].model.sample_shape)
            )
            if self._config.keeps_pictures
            else None,
            hashes=np.array(hashes, np.uint8).reshape(-1, BYTES + 1),
            tdm=np.array(tdm, np.uint8),
            sscd=_stacked([piece.sscd for piece in pieces], self._sscd.dimension) if self._sscd else None,
            thumbnails=thumbnails,
            refused=refused,
        )
        return products, {name: total.matrix.numpy() for name, total in sums.items()}

    def _batch(self, pictures: list[Picture], sums: dict[str, KernelAccumulator]) -> "_BatchProducts":
        """What a batch gives; its part is added to the kernel sums."""
        model = self._extractors[0].model
        pixels = [picture.pixels for picture in pictures]
        rows = [picture.row for picture in pictures]
        # Latents and prompts are encoded once for all timesteps, probes and checkpoints.
        x0 = model.encode(pixels)
        conditioning = model.condition([self._prompts[row] for row in rows])
        weights = torch.from_numpy(self._repeats[rows]).to(model.device)
        averages: dict[str, np.ndarray] = {}
        replicates: dict[str, np.ndarray] = {}
        residual_rms = x0.new_zeros(0)
        for checkpoint, extractor in enumerate(self._extractors):
            found = extractor.features(x0, conditioning)
            self._check_finite(rows, [*found.by_probe.values(), found.residual_rms[..., None]])
            if checkpoint == 0:
                residual_rms = found.residual_rms
            for features in self._config.feature_sets:
                if features.checkpoint != checkpoint:
                    continue
                values = prepared(found.by_probe[features.probe], normalise=features.normalised)
                averages[features.name] = values.mean(1).float().cpu().numpy()
                if features.name in self._replicated:
                    means = [values[:, list(places)].mean(1) for places in self._replicates]
                    replicates[features.name] = torch.stack(means).half().cpu().numpy()
                for name in (_sum_name(features, "block"), _sum_name(features, "mean")):
                    if name in sums:
                        sums[name].add(values, weights)
        embeddings, norms = self._embedder.embed_with_norms(pixels)
        return _BatchProducts(
            averages,
            replicates,
            residual_rms.float().cpu().numpy(),
            embeddings,
            norms,
            np.stack([self._sscd.embed(picture) for picture in pixels]) if self._sscd else np.empty((0, 0)),
            x0.flatten(1).float().cpu().numpy(),
        )

    def _check_finite(self, rows: list[int], tensors: list[Tensor]) -> None:
        for tensor in tensors:
            finite = torch.isfinite(tensor).flatten(1).all(1)
            if not bool(finite.all()):
                file = self._works.source.paths[rows[int((~finite).nonzero()[0])]]
                raise BuildError(
                    f"the model's gradient for {file} isn't finite. Check that the model's weights are whole;"
                    " a model that overflows for one picture can't be attributed."
                )


def replicated_sets(config: BuildConfig) -> tuple[str, ...]:
    """Feature sets whose replicates the noise of shares is measured with; none without references to ask about."""
    block = dict.fromkeys(kernel.features for kernel in config.kernels if kernel.form == "block")
    return tuple(block) if config.references else ()


def images_at_once(config: BuildConfig, extractor: FeatureExtractor) -> int:
    """Works per call of the engine: as many as fill whole passes of `batch_size` pairs, within 256 MB."""
    pairs = extractor.pairs_per_image
    full_passes = config.batch_size // math.gcd(config.batch_size, pairs)
    each = len(extractor.config.timesteps) * config.dimension * 4 * len(config.feature_sets)
    return max(1, min(full_passes, _BATCH_FEATURE_BYTES // each))


def sum_of(sums: dict[str, np.ndarray], features: FeatureSet, form: SummedForm) -> np.ndarray:
    """The kernel sum K (k, k) float64 of a feature set in a form."""
    return sums[_sum_name(features, form)]


def _sum_name(features: FeatureSet, form: SummedForm) -> str:
    return f"{features.name}.{form}"


def add(sums: dict[str, np.ndarray], part: dict[str, np.ndarray]) -> None:
    """Add a shard's kernel sums to those of the shards before it: always in the shards' order, for the same bits."""
    for name, matrix in sums.items():
        matrix += part[name]


def _stacked(arrays: list[np.ndarray], width: int) -> np.ndarray:
    return np.concatenate(arrays) if arrays else np.empty((0, width), np.float32)
