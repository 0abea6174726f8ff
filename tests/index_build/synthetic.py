"""Indexes of random features, made by the builder's second pass without a model: quick enough for many."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from numpy.typing import NDArray

import index_build.finish
from das import durable
from das.card import card_of
from das.config import BuildConfig
from das.index import CARD_NAME, REFERENCES_NAME, REPORT_NAME, WORKS_NAME, AttributionIndex
from das.kernel import Kernel, KernelAccumulator, damped_kernel
from das.manifest import (
    MANIFEST_NAME,
    FeaturesRecord,
    KernelRecord,
    Manifest,
    ReferencesRecord,
    canonical_json,
    content_digest,
    list_files,
    manifest_bytes,
    record_file,
)
from das.pdq import BYTES
from das.references import References
from das.trainingsets.collection import SourceWorks
from das.works import Works
from index_build.gather import kernel_forms
from index_build.inputs import WorksOnDisk, digest_of_works
from index_build.progress import QuietReporter
from index_build.renewed import Key
from index_build.workspace import ShardProducts, StoredShard, Workspace

QUIET = QuietReporter()


@dataclass(frozen=True)
class World:
    """Random works: by feature set f (N, T, k) float32, residuals (N, T), repeats, creators."""

    config: BuildConfig
    features: dict[str, NDArray[np.float32]]
    rms: NDArray[np.float32]
    repeats: NDArray[np.int64]

    @classmethod
    def of(cls, config: BuildConfig, works: int, timesteps: int, seed: int) -> "World":
        """`works` random ones, a third of them of a direction that they share."""
        rng = np.random.default_rng(seed)
        shared = rng.normal(size=config.dimension)
        found = {}
        for features in config.feature_sets:
            raw = rng.normal(size=(works, timesteps, config.dimension)) + rng.normal(
                size=(works, 1, config.dimension)
            )
            raw[: works // 3] += 2 * shared
            if features.normalised:
                raw /= np.linalg.norm(raw, axis=-1, keepdims=True)
            found[features.name] = raw.astype(np.float32)
        rms = rng.uniform(0.5, 2.0, (works, timesteps)).astype(np.float32)
        return cls(config, found, rms, rng.integers(1, 4, works))

    def works(self, rows: Sequence[int]) -> WorksOnDisk:
        """The works in `rows` as a source; their bytes aren't anywhere."""
        creators = [f"creator {row % 3}" for row in rows]
        empty = pa.nulls(len(rows), pa.string())
        table = pa.table(
            {
                "file": pa.array([f"{row}.png" for row in rows]),
                **dict.fromkeys(
                    ("title", "rights_holder", "licence", "source_url", "prompt", "group"), empty
                ),
                "creator": pa.array(creators),
                "repeats": pa.array([int(self.repeats[row]) for row in rows], pa.int64()),
            }
        )
        digests = [f"{row:064x}"[::-1] for row in rows]
        source = SourceWorks(Path("nowhere"), table, (), (), (), "imagefolder", {})
        return WorksOnDisk(source, digests, digest_of_works(table, digests))

    def sums(self, rows: Sequence[int]) -> dict[str, np.ndarray]:
        """Kernel sums over the works in `rows`, as Gatherer.run gives them."""
        weights = torch.from_numpy(self.repeats[list(rows)])
        found = {}
        for features, form in kernel_forms(self.config):
            total = KernelAccumulator(form, self.config.dimension)
            # In double precision, as nothing else is compared here.
            total.add(torch.from_numpy(self.features[features.name][list(rows)]).double(), weights)
            found[f"{features.name}.{form}"] = total.matrix.numpy()
        return found

    def shards(self, workspace: Workspace, rows: Sequence[int]) -> list[StoredShard]:
        """The products of the works in `rows`, committed to a workspace."""
        size = self.config.shard_size
        for shard, start in enumerate(range(0, len(rows), size)):
            some = list(rows[start : start + size])
            count = len(some)
            products = ShardProducts(
                rows=np.arange(start, start + count),
                averages={name: values[some].mean(1) for name, values in self.features.items()},
                replicates={},
                residual_rms=self.rms[some],
                embeddings=np.empty((count, 0), np.float32),
                embedding_norms=np.zeros(count, np.float32),
                pictures=None,
                hashes=np.repeat(np.array(some, np.uint8)[:, None], BYTES + 1, 1),
                tdm=np.zeros(count, np.uint8),
                sscd=None,
                thumbnails=[f"thumbnail {row}".encode() * (1 + row % 3) for row in some],
                refused=[],
            )
            workspace.commit(shard, products, {})
        return workspace.shards()

    def index(
        self,
        out: Path,
        rows: Sequence[int],
        like: Manifest,
        dampings: dict[Key, float] | None = None,
        references: References | None = None,
    ) -> AttributionIndex:
        """A finished index of the works in `rows`, its λ as given or by the rule."""
        workspace = Workspace.open(out, {"synthetic": True})
        works = self.works(rows)
        self.shards(workspace, rows)
        with pytest.MonkeyPatch.context() as patched:
            if dampings is not None:
                fix_dampings(patched, self.config, dampings)
            finished = index_build.finish.finish(self.config, works, workspace, self.sums(rows), QUIET)
        table = Works.open(workspace.path / WORKS_NAME)
        record = None
        if references is not None:
            references.write(workspace.path / REFERENCES_NAME)
            record = ReferencesRecord(count=len(references), source="generated", digest=None, arrivals={})
        manifest = like.model_copy(
            update={
                "config": self.config,
                "works": like.works.model_copy(
                    update={
                        "count": len(rows),
                        "source_rows": len(rows),
                        "trained": finished.trained,
                        "digest": works.digest,
                    }
                ),
                "kernels": finished.kernels,
                "features": FeaturesRecord(
                    dtype=self.config.feature_dtype,
                    dimension=self.config.dimension,
                    sets=tuple(features.name for features in self.config.feature_sets),
                    shard_rows=finished.shard_rows,
                ),
                "screening": None,
                "references": record,
            }
        )
        report = {
            "taken": works.source.account(),
            "unreadable": [],
            "left_out": [],
            "metadata": [],
            "loras": [],
        }
        return finished_index(workspace, manifest, table, report)


def finished_index(
    workspace: Workspace, manifest: Manifest, table: Works, report: dict[str, Any]
) -> AttributionIndex:
    """Card, report and manifest for the files in a workspace; published and opened."""
    durable.write_bytes(workspace.path / REPORT_NAME, canonical_json(report))
    durable.write_bytes(workspace.path / CARD_NAME, card_of(manifest, table).encode())
    names = [name for name in list_files(workspace.path) if workspace.is_product(name)]
    files = {name: record_file(workspace.path / name) for name in names}
    digest = content_digest(manifest.config, [], manifest.works.digest, "", manifest.kernels, files)
    manifest = manifest.model_copy(update={"files": files, "content_digest": digest})
    durable.write_bytes(workspace.path / MANIFEST_NAME, manifest_bytes(manifest))
    workspace.publish()
    return AttributionIndex.open(workspace.out)


def fix_dampings(patched: pytest.MonkeyPatch, config: BuildConfig, dampings: dict[Key, float]) -> None:
    """Have the builder take these λ, in place of a rule that depends on how many works there are."""
    keys = iter([(features.name, form) for features, form in kernel_forms(config)])

    def with_fixed(matrix: torch.Tensor, total_weight: float, **_: Any) -> Kernel:
        trace = float(matrix.trace())
        ridge = dampings.get(next(keys), trace / total_weight)
        return damped_kernel(matrix, total_weight, damping=ridge * total_weight / trace)

    patched.setattr(index_build.finish, "damped_kernel", with_fixed)


def dampings_of(kernels: Sequence[KernelRecord]) -> dict[Key, float]:
    """λ of every kernel that a method reads."""
    return {
        (kernel.features, kernel.form): kernel.damping for kernel in kernels if kernel.damping is not None
    }
