"""The second pass: factorise the kernels, whiten the averaged features, write what an index consists of.

It needs no pictures and no model, only the products of the first pass; one shard is in memory at a time. Run
again after a kill, it writes the same files again.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from safetensors import SafetensorError
from safetensors.numpy import save_file
from torch import Tensor

from das import durable, registry
from das.config import BuildConfig, FeatureSet
from das.errors import BuildError
from das.estimators import residual_weights
from das.index import (
    EMBEDDING_NORMS,
    EMBEDDINGS_NAME,
    HASHES_NAME,
    KERNEL_NAME,
    PICTURES_NAME,
    PLACES_NAME,
    RESIDUAL_RMS,
    SSCD_NAME,
    WORKS_NAME,
    factor_key,
    feature_name,
    leverage_key,
    norm_key,
    scale_key,
    solved_norm_key,
    thumbnail_name,
)
from das.kernel import Kernel, SummedForm, damped_kernel, effective_dimension_target
from das.lookups import contents_of, write_table
from das.manifest import KernelRecord
from das.methods import ACTIVATION
from das.rights.table import with_signals
from das.screening import INDEX_NAME, write_screen
from das.works import COLUMNS, assign_ids
from index_build.gather import kernel_forms, sum_of
from index_build.inputs import WorksOnDisk
from index_build.progress import Reporter
from index_build.workspace import StoredShard, Workspace


@dataclass
class Finished:
    """What the second pass has to say to the manifest.

    Attributes:
        rows: source rows that are in the index, (N,).
        shard_rows: works in each shard.
        refused: works that couldn't be used, as plain dictionaries.
        trained: sum of the repeats.
    """

    rows: np.ndarray
    shard_rows: tuple[int, ...]
    refused: list[dict[str, Any]]
    trained: int
    kernels: tuple[KernelRecord, ...] = ()
    screening_kind: str = ""


_Key = tuple[FeatureSet, SummedForm]


@dataclass
class _Whitening:
    """One kernel at work: its factor, and what is summed up while the features go by."""

    kernel: Kernel
    trace: float
    solves: bool = False
    """Whether a method asks for `‖H⁻¹f̄_i‖`."""
    leverage: list[np.ndarray] = field(default_factory=list)
    norms: list[np.ndarray] = field(default_factory=list)
    solved_norms: list[np.ndarray] = field(default_factory=list)
    gram: Tensor | None = None
    scales: list[np.ndarray] = field(default_factory=list)
    """Of features that are stored in eight bits."""

    def whiten(self, averages: Tensor) -> Tensor:
        """`L⁻¹ f̄` (n, k) float64; its leverages, norms and part of the Gram matrix are kept."""
        whitened = self.kernel.whiten(averages)
        self.norms.append(averages.double().norm(dim=1).numpy())
        if self.solves:
            self.solved_norms.append(self.kernel.solve(averages).norm(dim=1).numpy())
        self.leverage.append(whitened.square().sum(1).cpu().numpy())
        gram = whitened.T @ whitened
        self.gram = gram if self.gram is None else self.gram + gram
        return whitened

    def mean_square(self, count: int) -> float:
        """Mean of `(f̄_jᵀH⁻¹f̄_i)²` over pairs: `‖Σ w wᵀ‖² / N²`."""
        assert self.gram is not None
        return float(self.gram.square().sum()) / count**2


def finish(
    config: BuildConfig,
    works: WorksOnDisk,
    workspace: Workspace,
    sums: dict[str, np.ndarray],
    reporter: Reporter,
    gap: float | None = None,
) -> Finished:
    """Write works, features, kernels, embeddings, FAISS index and thumbnails of the works that were readable.

    Args:
        gap: see `effective_dimension_target`; None where there are no held-out pictures.

    Raises:
        BuildError: if none was readable.
        SettingsError: if a kernel can't be factorised with this damping.
    """
    committed = workspace.shards()
    shards = [shard for shard in committed if len(shard)]
    refused = [entry for shard in committed for entry in shard.refused]
    if not shards:
        raise BuildError(f"none of the {len(works)} works can be read; the first: {refused[0]['message']}")
    rows = np.concatenate([shard.rows for shard in shards])
    repeats = np.asarray(works.source.table["repeats"])[rows]
    result = Finished(rows, tuple(len(shard) for shard in shards), refused, int(repeats.sum()))

    tdm = np.concatenate([shard.tdm for shard in shards])
    table = _write_works(workspace.path, works, rows, tdm)
    contents = int(contents_of(table).max()) + 1
    with reporter.stage("factorising", len(kernel_forms(config))) as stage:
        whitenings: dict[_Key, _Whitening] = {}
        readers = [(registry.method(k.method), (k.features, k.form)) for k in config.kernels]
        solved = {kernel for method, kernel in readers if "solved_norms" in method.needs}
        signed = {kernel for method, kernel in readers if not method.squared}
        for features, form in kernel_forms(config):
            matrix = torch.from_numpy(sum_of(sums, features, form))
            target = effective_dimension_target(
                form,
                contents,
                shards[0].residual_rms.shape[1],
                config.dimension,
                signed=(features.name, form) in signed,
                activation=features.probe == ACTIVATION,
                gap=gap,
            )
            kernel = damped_kernel(matrix, float(repeats.sum()), damping=config.damping, target=target)
            solves = (features.name, form) in solved
            whitenings[features, form] = _Whitening(kernel, float(matrix.trace()), solves)
            stage.advance()
    with reporter.stage("whitening", len(rows)) as stage:
        for number, shard in enumerate(shards):
            _write_features(workspace.path, number, shard, whitenings, config)
            durable.write_bytes(workspace.path / thumbnail_name(number), shard.thumbnails)
            stage.advance(len(shard))
    write_array(workspace.path / PLACES_NAME, _thumbnail_places(shards))
    write_array(workspace.path / HASHES_NAME, np.concatenate([shard.hashes for shard in shards]))
    if config.sscd is not None:
        write_array(workspace.path / SSCD_NAME, np.concatenate([shard.sscd for shard in shards]))
    if config.keeps_pictures:
        write_array(workspace.path / PICTURES_NAME, np.concatenate([s.pictures for s in shards]))
    _write_kernels(workspace.path, config, whitenings, shards, repeats)
    if config.clip is not None:
        result.screening_kind = _write_screening(workspace.path, shards, reporter)
    result.kernels = _records(config, whitenings, int(repeats.sum()), len(rows))
    return result


def _write_screening(directory: Path, shards: list[StoredShard], reporter: Reporter) -> str:
    """Write the embeddings and the index that searches them; returns its kind."""
    with reporter.stage("screening index", 1) as stage:
        durable.write_path(directory / EMBEDDINGS_NAME, lambda path: _write_embeddings(path, shards))
        embeddings = np.load(directory / EMBEDDINGS_NAME, mmap_mode="r")
        kinds: list[str] = []
        durable.write_path(directory / INDEX_NAME, lambda path: kinds.append(write_screen(path, embeddings)))
        stage.advance()
    return kinds[0]


def _write_works(directory: Path, works: WorksOnDisk, rows: np.ndarray, tdm: np.ndarray) -> pa.Table:
    """Write the table of the works in `rows`, with what their files say of mining; returns it."""
    table = with_signals(works.source.table.take(pa.array(rows)), tdm.tolist())
    digests = [works.digests[row] for row in rows]
    table = table.append_column("digest", pa.array(digests, pa.string()))
    table = table.append_column("id", pa.array(assign_ids(digests), pa.string()))
    table = table.select([*COLUMNS, *(name for name in table.column_names if name not in COLUMNS)])
    write_table(directory / WORKS_NAME, table)
    return table


def _write_features(
    directory: Path,
    number: int,
    shard: StoredShard,
    whitenings: dict[_Key, _Whitening],
    config: BuildConfig,
) -> None:
    for (features, form), whitening in whitenings.items():
        whitened = whitening.whiten(torch.from_numpy(shard.averages(features.name)))
        if form == "block":
            if config.feature_dtype == "int8":
                stored, scales = in_eight_bits(whitened.cpu().numpy())
                whitening.scales.append(scales)
            else:
                stored = whitened.cpu().numpy().astype(config.feature_dtype)
            write_array(directory / feature_name(features.name, number), stored)


def in_eight_bits(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Features (n, k) as int8 and their scales (n,) float32: the largest element of each row becomes 127.

    An element is then wrong by half a scale at most.
    """
    largest = np.abs(features).max(1)
    scales = (largest / np.iinfo(np.int8).max).astype(np.float32)
    return np.rint(features / np.where(scales > 0, scales, 1)[:, None]).astype(np.int8), scales


def _write_embeddings(path: Path, shards: list[StoredShard]) -> None:
    rows, width = sum(len(shard) for shard in shards), shards[0].embeddings.shape[1]
    # Written and not mapped: a full disk is an error then, and kills nobody.
    with path.open("wb") as stream:
        header = {"descr": "<f4", "fortran_order": False, "shape": (rows, width)}
        np.lib.format.write_array_header_1_0(stream, header)
        for shard in shards:
            stream.write(np.ascontiguousarray(shard.embeddings, "<f4").data)


def _thumbnail_places(shards: list[StoredShard]) -> np.ndarray:
    """(N, 3) int64: shard, offset, size."""
    places = []
    for number, shard in enumerate(shards):
        sizes = shard.thumbnail_sizes
        offsets = np.cumsum(sizes) - sizes
        places.append(np.stack([np.full_like(sizes, number), offsets, sizes], 1))
    return np.concatenate(places)


def _write_kernels(
    directory: Path,
    config: BuildConfig,
    whitenings: dict[_Key, _Whitening],
    shards: list[StoredShard],
    repeats: np.ndarray,
) -> None:
    rms = np.concatenate([shard.residual_rms for shard in shards]).astype(np.float64)
    norms = np.concatenate([shard.embedding_norms for shard in shards]).astype(np.float64)
    tensors = {
        "repeats": repeats.astype(np.int64),
        "residual_weights": residual_weights(rms, repeats),
    }
    if reads_residuals(config):
        # Their means change with the works; without them none could come or go (index_build.changing).
        tensors[RESIDUAL_RMS] = rms.astype(np.float32)
    if config.clip is not None:
        tensors[EMBEDDING_NORMS] = norms
    for (features, form), whitening in whitenings.items():
        tensors[factor_key(features.name, form)] = whitening.kernel.factor.cpu().contiguous().numpy()
        tensors[leverage_key(features.name, form)] = np.concatenate(whitening.leverage)
        tensors[norm_key(features.name)] = np.concatenate(whitening.norms)
        if whitening.scales:
            tensors[scale_key(features.name)] = np.concatenate(whitening.scales)
        if whitening.solves:
            tensors[solved_norm_key(features.name, form)] = np.concatenate(whitening.solved_norms)
    durable.write_path(directory / KERNEL_NAME, lambda path: save_tensors(tensors, path))


def reads_residuals(config: BuildConfig) -> bool:
    """Whether a method reads the works' residual weights."""
    return any("residuals" in registry.method(name).needs for name in config.methods)


def write_array(path: Path, array: np.ndarray) -> None:
    """Write an array as `.npy`."""
    durable.write_file(path, lambda stream: np.save(stream, array, allow_pickle=False))


def save_tensors(tensors: dict[str, np.ndarray], path: Path) -> None:
    """Write kernel.safetensors; raises BuildError where it can't be."""
    try:
        save_file(tensors, path)
    except SafetensorError as error:
        raise BuildError(
            f"{KERNEL_NAME} couldn't be written: {error}. Make room and run the same command again; it goes on."
        ) from error


def _records(
    config: BuildConfig,
    whitenings: dict[_Key, _Whitening],
    trained: int,
    count: int,
) -> tuple[KernelRecord, ...]:
    records = []
    for method, features, form in config.kernels:
        if form == "none":
            records.append(KernelRecord(method=method, features=features, form=form))
            continue
        whitening = whitenings[FeatureSet.parse(features), form]
        records.append(
            KernelRecord(
                method=method,
                features=features,
                form=form,
                damping=whitening.kernel.damping,
                relative_damping=whitening.kernel.damping * trained / whitening.trace,
                trace=whitening.trace,
                effective_dimension=whitening.kernel.effective_dimension,
                mean_square=whitening.mean_square(count),
            )
        )
    return tuple(records)
