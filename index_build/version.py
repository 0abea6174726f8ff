"""A new version of an index: what stays of its parent, what came, and numbers renewed for both.

Run again after a kill, it writes the same files again.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from das import durable
from das.changes import ChangeRecord, digest_of_id, keeps_shares, read_removed
from das.errors import BuildError
from das.estimators import residual_weights
from das.index import (
    EMBEDDING_NORMS,
    EMBEDDINGS_NAME,
    HASHES_NAME,
    KERNEL_NAME,
    PICTURES_NAME,
    PLACES_NAME,
    REFERENCES_NAME,
    REPORT_NAME,
    RESIDUAL_RMS,
    SSCD_NAME,
    WORKS_NAME,
    AttributionIndex,
    factor_key,
    feature_name,
    leverage_key,
    norm_key,
    scale_key,
    solved_norm_key,
    thumbnail_name,
    whitening_key,
)
from das.lookups import contents_of, write_table
from das.manifest import KernelRecord, canonical_json
from das.references import References
from das.rights.table import with_signals
from das.screening import INDEX_NAME, write_screen
from das.works import COLUMNS, assign_ids
from index_build.finish import in_eight_bits, reads_residuals, save_tensors, write_array
from index_build.inputs import WorksOnDisk
from index_build.kept import Shared, keep_features, keep_file, keep_thumbnails, parts_of
from index_build.progress import Reporter
from index_build.renewed import RenewedKernel, most_leverage, renewed_kernels, renewed_records
from index_build.workspace import StoredShard

WITHOUT_RESIDUALS = (
    "{index} was built by a version of das that didn't keep the residuals of each timestep, by which its method das"
    " weighs works; their means change with the works. Build it once again, and works can come and go."
)


_ROWS_AT_ONCE = 65_536


@dataclass(frozen=True)
class Came:
    """Works that came: their source, and what was computed of those that could be read."""

    works: WorksOnDisk
    shards: Sequence[StoredShard]
    refused: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class Written:
    """What a version's files have to say to its manifest."""

    table: pa.Table
    kernels: tuple[KernelRecord, ...]
    shard_rows: tuple[int, ...]
    growth: float
    whitening_is_former: bool
    removed: frozenset[str]
    shared: Shared
    screening_kind: str


class VersionWriter:
    """Writes the files of a version into a directory."""

    def __init__(
        self,
        index: AttributionIndex,
        kept: np.ndarray,
        came: Came | None,
        sums: dict[str, np.ndarray],
        directory: Path,
        reporter: Reporter,
    ) -> None:
        """
        Args:
            kept: (N,) bool, which works of `index` stay.
            came: the works that come; None where works go.
            sums: kernel sums over the works that come or go.
        """
        self._index = index
        self._config = index.manifest.config
        self._kept = kept
        self._came = came
        self._shards = [] if came is None else [shard for shard in came.shards if len(shard)]
        self._sums = sums
        self._directory = directory
        self._reporter = reporter
        self._parts = parts_of(index.manifest.features.shard_rows, kept)
        self._shared = Shared()
        self._repeats = np.concatenate([index.repeats[kept], *self._new_repeats()])
        self._content_repeats = self._repeats

    def write(self, changes: Sequence[ChangeRecord]) -> Written:
        """Write everything but manifest and card. `changes` are those of the version, this one with them."""
        index, directory = self._index, self._directory
        table = self._write_works()
        contents = contents_of(table)
        self._content_repeats = np.bincount(contents, weights=self._repeats)[contents]
        kernels, records = self._write_numbers(len(table))
        keep_features(index, self._parts, directory, self._shared)
        places = [keep_thumbnails(index, self._parts, directory, self._shared)]
        for number, shard in enumerate(self._shards, len(self._parts)):
            durable.write_bytes(directory / thumbnail_name(number), shard.thumbnails)
            sizes = shard.thumbnail_sizes
            places.append(np.stack([np.full_like(sizes, number), np.cumsum(sizes) - sizes, sizes], 1))
        write_array(directory / PLACES_NAME, np.concatenate(places))
        kind = self._write_pictures_numbers()
        self._write_references(changes)
        removed = self._removed(table)
        before = index.manifest.features
        growths = [kernel.growth(before.growth) for kernel in kernels]
        renewed = any(kernel.form == "block" for kernel in kernels)
        return Written(
            table,
            records,
            (*(len(part.rows) for part in self._parts), *(len(shard) for shard in self._shards)),
            max(growths, default=before.growth),
            renewed or before.whitening == "former",
            removed,
            self._shared,
            kind,
        )

    def _new_repeats(self) -> list[np.ndarray]:
        if self._came is None:
            return []
        column = np.asarray(self._came.works.source.table["repeats"], np.int64)
        return [column[shard.rows] for shard in self._shards]

    def _write_works(self) -> pa.Table:
        """The table of works that stay, as they are, and of those that come behind them."""
        table = self._index.works.table.filter(pa.array(self._kept))
        if self._shards and self._came is not None:
            works = self._came.works
            rows = np.concatenate([shard.rows for shard in self._shards])
            tdm = np.concatenate([shard.tdm for shard in self._shards])
            added = with_signals(works.source.table.take(pa.array(rows)), tdm.tolist())
            digests = [works.digests[row] for row in rows]
            added = added.append_column("digest", pa.array(digests, pa.string()))
            ids = assign_ids(digests, frozenset(table["id"].to_pylist()))
            table = joined(table, added.append_column("id", pa.array(ids, pa.string())))
        write_table(self._directory / WORKS_NAME, table)
        return table

    def _write_numbers(self, count: int) -> tuple[list[RenewedKernel], tuple[KernelRecord, ...]]:
        """Renew the kernels and write kernel.safetensors, and the features of works that come."""
        index, manifest = self._index, self._index.manifest
        trained = int(self._repeats.sum())
        kernels = renewed_kernels(index, self._sums, 1 if self._came else -1, trained)
        grams: dict[str, Tensor] = {}
        tensors: dict[str, np.ndarray] = {"repeats": self._repeats}
        with self._reporter.stage("renewing", count * len(manifest.features.sets)) as stage:
            for name in manifest.features.sets:
                ours = [kernel for kernel in kernels.values() if kernel.name == name]
                gram = self._keep(name, ours, stage)
                norms, scales = [index.norms(name)[self._kept]], self._kept_scales(name)
                whitening = torch.from_numpy(index.whitening(name))
                for number, shard in enumerate(self._shards, len(self._parts)):
                    averages = torch.from_numpy(shard.averages(name)).double()
                    whitened = torch.linalg.solve_triangular(whitening, averages.T, upper=False).T
                    scales += self._store(name, number, whitened)
                    norms.append(averages.norm(dim=1).numpy())
                    gram += whitened.T @ whitened
                    for kernel in ours:
                        kernel.add(averages, whitened)
                    stage.advance(len(shard))
                grams[name] = gram
                tensors[norm_key(name)] = np.concatenate(norms)
                if scales:
                    tensors[scale_key(name)] = np.concatenate(scales)
                tensors |= self._factors(name, ours)
        tensors |= self._residuals()
        if manifest.screening is not None:
            tensors[EMBEDDING_NORMS] = np.concatenate(
                [
                    index.embedding_norms[self._kept],
                    *(s.embedding_norms.astype(np.float64) for s in self._shards),
                ]
            )
        durable.write_path(self._directory / KERNEL_NAME, lambda path: save_tensors(tensors, path))
        return list(kernels.values()), renewed_records(manifest.kernels, kernels, grams, trained, count)

    def _keep(self, name: str, kernels: Sequence[RenewedKernel], stage: Any) -> Tensor:
        """Renew the numbers of works that stay, a shard at a time; returns `Σ w_i w_iᵀ` (k, k) float64 over them."""
        index = self._index
        features = index.features(name)
        gram = torch.zeros(features.shape[1], features.shape[1], dtype=torch.float64)
        leverages = [index.leverage(name, kernel.form) for kernel in kernels]
        solved = [index.solved_norms(name, kernel.form) if kernel.solves else None for kernel in kernels]
        lengths, start = index.norms(name), 0
        for part in self._parts:
            rows = part.rows
            stored = torch.from_numpy(features.take(rows).astype(np.float32))
            gram += (stored.T @ stored).double()
            repeats = self._content_repeats[start : start + len(rows)]
            for kernel, leverage, norms in zip(kernels, leverages, solved, strict=True):
                summed = repeats * (len(index.manifest.timesteps) if kernel.form == "block" else 1)
                most = most_leverage(lengths[rows], kernel.kernel.damping, summed)
                kernel.keep(stored, leverage[rows], None if norms is None else norms[rows], most)
            start += len(rows)
            stage.advance(len(rows))
        return gram

    def _kept_scales(self, name: str) -> list[np.ndarray]:
        scales = self._index.features(name).scales
        return [] if scales is None else [scales[self._kept]]

    def _store(self, name: str, number: int, whitened: Tensor) -> list[np.ndarray]:
        """Write a shard of features that came; returns the scales of eight bits.

        Raises:
            BuildError: they don't fit the type that the index stores.
        """
        dtype = self._config.feature_dtype
        scales = []
        if dtype == "int8":
            stored, some = in_eight_bits(whitened.numpy())
            scales.append(some)
        else:
            stored = whitened.numpy().astype(dtype)
            if not np.isfinite(stored).all():
                raise BuildError(
                    f"the works to add are so unlike those that {self._index.id} was built of that their features"
                    f" don't fit {dtype} in its whitening. Build the index again with all of them."
                )
        write_array(self._directory / feature_name(name, number), stored)
        return scales

    def _factors(self, name: str, kernels: Sequence[RenewedKernel]) -> dict[str, np.ndarray]:
        """What is kept of a feature set's kernels."""
        block = factor_key(name, "block")
        tensors = {block: self._index.whitening(name)}
        for kernel in kernels:
            if kernel.form == "block":
                tensors[whitening_key(name)] = tensors[block]
            tensors[factor_key(name, kernel.form)] = kernel.kernel.factor.contiguous().numpy()
            tensors[leverage_key(name, kernel.form)] = np.concatenate(kernel.leverage)
            if kernel.solves:
                tensors[solved_norm_key(name, kernel.form)] = np.concatenate(kernel.solved_norms)
        return tensors

    def _residuals(self) -> dict[str, np.ndarray]:
        """Residual weights; where nothing reads them and their means aren't kept, works that come have the mean's."""
        kept = self._index.residual_rms
        if kept is not None:
            rms = np.concatenate([kept[self._kept], *(shard.residual_rms for shard in self._shards)])
            weights = residual_weights(rms.astype(np.float64), self._repeats)
            return {RESIDUAL_RMS: rms.astype(np.float32), "residual_weights": weights}
        if reads_residuals(self._config):
            raise BuildError(WITHOUT_RESIDUALS.format(index=self._index.id))
        came = [np.ones(len(shard)) for shard in self._shards]
        return {"residual_weights": np.concatenate([self._index.residual_weights[self._kept], *came])}

    def _write_pictures_numbers(self) -> str:
        """What is kept of every picture apart from influence; returns the kind of the screening index."""
        index, shards, manifest = self._index, self._shards, self._index.manifest
        if index.hashes is not None:
            self._rows(HASHES_NAME, index.hashes, [shard.hashes for shard in shards])
        if index.sscd_embeddings is not None:
            self._rows(SSCD_NAME, index.sscd_embeddings, [shard.sscd for shard in shards])
        if manifest.config.keeps_pictures:
            self._rows(PICTURES_NAME, index.pictures, [shard.pictures for shard in shards])
        if manifest.screening is None:
            return ""
        self._rows(EMBEDDINGS_NAME, index.embeddings, [shard.embeddings for shard in shards])
        embeddings = np.load(self._directory / EMBEDDINGS_NAME, mmap_mode="r")
        kinds: list[str] = []
        durable.write_path(
            self._directory / INDEX_NAME, lambda path: kinds.append(write_screen(path, embeddings))
        )
        return kinds[0]

    def _rows(self, name: str, kept: np.ndarray, came: Sequence[np.ndarray]) -> None:
        """Write the rows that stay and those that came as `.npy`, some at a time: there may be gigabytes."""
        rows = np.flatnonzero(self._kept)
        shape = (len(rows) + sum(len(some) for some in came), *kept.shape[1:])
        header = {"descr": np.lib.format.dtype_to_descr(kept.dtype), "fortran_order": False, "shape": shape}

        def write(stream: IO[bytes]) -> None:
            np.lib.format.write_array_header_1_0(stream, header)
            for start in range(0, len(rows), _ROWS_AT_ONCE):
                stream.write(kept[rows[start : start + _ROWS_AT_ONCE]].tobytes())
            for some in came:
                stream.write(some.astype(kept.dtype).tobytes())

        durable.write_file(self._directory / name, write)

    def _write_references(self, changes: Sequence[ChangeRecord]) -> None:
        """The model's own pictures say the same of a picture's origin; of shares, only while little has changed."""
        references = self._index.references
        if references is None:
            return
        if keeps_shares(changes) or not (references.top_shares or references.noise):
            keep_file(self._index, REFERENCES_NAME, self._directory, self._shared)
            return
        bare = References(references.statistics, {}, references.held_out, {})
        durable.write_path(self._directory / REFERENCES_NAME, bare.write)

    def _removed(self, table: pa.Table) -> frozenset[str]:
        """Digests of the ids of works that are gone: those of before, and of this change, but for what is back."""
        gone = self._index.works.table.filter(pa.array(~self._kept))["id"].to_pylist()
        here = {digest_of_id(work_id) for work_id in table["id"].to_pylist()}
        return (read_removed(self._index.path) | {digest_of_id(work_id) for work_id in gone}) - here


def joined(table: pa.Table, added: pa.Table) -> pa.Table:
    """The rows of both, with the columns of both; one that has another type in each is text in both."""
    for name in table.column_names:
        if name in added.column_names and name not in COLUMNS:
            kinds = {table.schema.field(name).type, added.schema.field(name).type} - {pa.null()}
            if len(kinds) > 1:
                table, added = (_as_text(one, name) for one in (table, added))
    return pa.concat_tables([table, added], promote_options="default").combine_chunks()


def _as_text(table: pa.Table, name: str) -> pa.Table:
    values = [
        value if value is None or isinstance(value, str) else json.dumps(value)
        for value in table[name].to_pylist()
    ]
    return table.set_column(table.column_names.index(name), name, pa.array(values, pa.string()))


def report_of(index: AttributionIndex, table: pa.Table, gone: set[str], came: Came | None) -> dict[str, Any]:
    """build-report.json of a version: the parent's without a word of files and creators that are gone."""
    before: dict[str, Any] = json.loads((index.path / REPORT_NAME).read_bytes())
    counts = {
        name: dict(Counter(value or "" for value in table[name].to_pylist()).most_common())
        for name in ("creator", "group")
    }
    repeats = Counter(table["repeats"].to_pylist())
    taken = before.get("taken", {}) | {
        "works": len(table),
        "without_prompt": sum(not prompt for prompt in table["prompt"].to_pylist()),
        "repeats": {str(number): count for number, count in sorted(repeats.items())},
        "creators": counts["creator"],
        "groups": counts["group"],
    }
    stems = {str(PurePosixPath(file).with_suffix("")) for file in gone}

    def about_gone(file: str) -> bool:
        # Also of what lies beside a picture under its name: captions, caches, `NAME_mask.png`.
        path = PurePosixPath(file)
        ends = [at for at, letter in enumerate(path.name) if at and letter in "._"]
        return any(str(path.with_name(path.name[:at])) in stems for at in [*ends, len(path.name)])

    told = {
        name: [entry for entry in before.get(name, ()) if not about_gone(entry["file"])]
        for name in ("unreadable", "left_out", "metadata")
    }
    if came is not None:
        told["unreadable"] += [
            {key: entry[key] for key in ("file", "code", "message")} for entry in came.refused
        ]
        # The source may be the whole folder: here only what is said of works that came.
        files = set(came.works.source.table["file"].to_pylist())
        told["left_out"] += [one.__dict__ for one in came.works.source.left_out if one.file in files]
        told["metadata"] += [one.__dict__ for one in came.works.source.remarks if one.file in files]
    return {**before, "taken": taken, **told}


def write_report(directory: Path, report: dict[str, Any]) -> None:
    """Write build-report.json."""
    durable.write_bytes(directory / REPORT_NAME, canonical_json(report))
