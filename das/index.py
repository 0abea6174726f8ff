"""The attribution index on disk: a directory whose numbers never change once finished, read here without torch.

    manifest.json         what it was made from, and the digest of every file (das.manifest)
    works.parquet         the works, row by row; works/ has the same to be memory-mapped (das.lookups)
    features/SET/*.npy    whitened features L⁻¹ f̄_i of a feature set, a shard a file, memory-mapped
    kernel.safetensors    per kernel its factor and leverage; norms; residual weights; repeats: memory-mapped
    pictures.npy          x_0 (N, d) float16, only for the methods that compare pixels
    embeddings.npy        CLIP embeddings (N, e) float32; screening.faiss searches the same (das.screening)
    hashes.npy            PDQ hashes (N, 33) uint8: 32 bytes and their quality (das.copies)
    sscd.npy              SSCD embeddings (N, e) float16 of unit norm, where the build was given SSCD's file
    thumbnails/*.bin      thumbnails end to end, a shard a file; places.npy (N, 3): shard, offset, size
    approximate/          what finds works without scoring all of them (das.approximate), where somebody made that
    references.safetensors  what the model's own pictures look like to it (das.references), where there are some
    card.md               the manifest in words; build-report.json: works left out and why
    removed.txt           digests of the ids of works that came and went (das.changes), where some did

A feature set (das.config.FeatureSet) is whitened by the factor L of its *block* kernel H = LLᵀ, so that the block
form's `φᵀH⁻¹f̄_i` is `⟨L⁻¹φ, w_i⟩`. Any other kernel H' is answered from the same features by a linear map of the
query, `φᵀH'⁻¹f̄_i = ⟨LᵀH'⁻¹φ, w_i⟩`, plain inner products with H' = I: each set is kept once. So is the block kernel
itself where works came or went: L is then still that of the build. Half precision needs no scaling: ‖w_i‖² = h_i ≤ 1,
and rounding costs about 3e-4 of an element's size until elements fall under 6e-5, which takes millions of works. In
eight bits a work has one scale, the size of its largest element over 127.
"""

import os
import stat
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np

from das import registry
from das.approximation import SAMPLE_NAME, sum_name
from das.changes import caveats_of
from das.config import ClipSpec
from das.errors import IndexFormatError, ModelError, SettingsError, WorksError
from das.loras import LoraChoice
from das.manifest import (
    MANIFEST_NAME,
    Manifest,
    ModelRecord,
    PlaceRecord,
    QualityRecord,
    read_manifest,
)
from das.mapped import Tensors, enough_mappings, expect_array, open_array
from das.methods import KernelForm
from das.pdq import BYTES
from das.places import find, is_clip, is_lora, is_model, is_torchscript
from das.references import References
from das.sources import ModelSource, is_network, is_pipeline
from das.stored_features import Features
from das.verification import Damage, Verification, verify_index
from das.works import Works

WORKS_NAME = "works.parquet"
KERNEL_NAME = "kernel.safetensors"
EMBEDDINGS_NAME = "embeddings.npy"
CARD_NAME = "card.md"
REPORT_NAME = "build-report.json"
PLACES_NAME = "thumbnails/places.npy"
PICTURES_NAME = "pictures.npy"
REFERENCES_NAME = "references.safetensors"
HASHES_NAME = "hashes.npy"
SSCD_NAME = "sscd.npy"
EMBEDDING_NORMS = "embedding_norms"
RESIDUAL_RMS = "residual_rms"
"""Name in kernel.safetensors of `RMS(r_t(x_i))` (N, T) float32, where a method reads residual weights."""

_CHUNK_ROWS = 65_536

NO_SCREENING = (
    "was built without screening, so it can't tell which works look similar; every work is a candidate."
)


def feature_name(features: str, shard: int) -> str:
    """The file of one shard of a feature set, relative to the index."""
    return f"features/{features}/shard-{shard:05d}.npy"


def thumbnail_name(shard: int) -> str:
    """The file of one shard of thumbnails, relative to the index."""
    return f"thumbnails/shard-{shard:05d}.bin"


def factor_key(features: str, form: KernelForm) -> str:
    """Name in kernel.safetensors of L (k, k) float64, lower triangular, with LLᵀ = K + λI."""
    return f"{features}.{form}.factor"


def leverage_key(features: str, form: KernelForm) -> str:
    """Name in kernel.safetensors of h (N,) float64, `f̄_iᵀH⁻¹f̄_i` of one copy of each work."""
    return f"{features}.{form}.leverage"


def whitening_key(features: str) -> str:
    """Name in kernel.safetensors of the factor (k, k) float64 by which features were whitened before a change."""
    return f"{features}.whitening"


def norm_key(features: str) -> str:
    """Name in kernel.safetensors of `‖f̄_i‖` (N,) float64."""
    return f"{features}.norm"


def solved_norm_key(features: str, form: KernelForm) -> str:
    """Name in kernel.safetensors of `‖H⁻¹f̄_i‖` (N,) float64."""
    return f"{features}.{form}.solved_norm"


def scale_key(features: str) -> str:
    """Name in kernel.safetensors of the scales (N,) float32 that a set's int8 features are multiplied with."""
    return f"{features}.scale"


class AttributionIndex:
    """A finished index, opened for reading. Open with `AttributionIndex.open(path)`."""

    def __init__(self, path: Path, manifest: Manifest, works: Works, model_dir: Path | None = None) -> None:
        self.path = path
        self.model_dir = model_dir
        self.manifest = manifest
        self.works = works

    @classmethod
    def open(cls, path: Path | str, *, model_dir: Path | None = None) -> Self:
        """Open an index, checking the manifest's digest, every file's size, and shapes and types.

        Args:
            model_dir: where its model, LoRA, checkpoints and CLIP are looked for first (see das.places).

        Raises:
            IndexFormatError: if something is missing, damaged, or of another format.
        """
        path = Path(path)
        manifest = read_manifest(path)
        _check_sizes(path, manifest)
        with enough_mappings(path, len(manifest.files)):
            try:
                works = Works.open(path / WORKS_NAME)
            except WorksError as error:
                raise IndexFormatError(str(error)) from error
            index = cls(path, manifest, works, model_dir)
            index._check_schema()
            return index

    def __len__(self) -> int:
        return self.manifest.works.count

    @property
    def id(self) -> str:
        """Name and content digest, such as `photographs@3f9c2a`."""
        return self.manifest.id

    @property
    def methods(self) -> tuple[str, ...]:
        """The estimators that can be asked; the first is the default."""
        return self.manifest.config.methods

    def quality_of(self, method: str) -> QualityRecord | None:
        """How good a method's ranking was measured to be. One method's figure says nothing of another's."""
        measured = self.manifest.quality
        return measured if measured is not None and measured.method == method else None

    def features(self, name: str) -> Features:
        """The whitened features of a set, (N, k), memory-mapped; `np.asarray` makes one array of them."""
        return self._features[name]

    @cached_property
    def _features(self) -> dict[str, Features]:
        record = self.manifest.features
        return {
            name: Features(
                [
                    open_array(self.path / feature_name(name, shard))
                    for shard in range(len(record.shard_rows))
                ],
                self._tensor(scale_key(name)) if record.dtype == "int8" else None,
            )
            for name in record.sets
        }

    def factor(self, features: str, form: KernelForm) -> np.ndarray:
        """L (k, k) float64, lower triangular, of one of the index's kernels; a copy at each call."""
        return self._tensor(factor_key(features, form)).copy()

    def whitening(self, features: str) -> np.ndarray:
        """The factor (k, k) float64, lower triangular, by which the features are whitened; a copy at each call."""
        return self._tensor(self._whitening_key(features)).copy()

    def _whitening_key(self, features: str) -> str:
        # A block kernel that no method reads is kept for whitening alone, and isn't renewed.
        former = self.manifest.features.whitening == "former" and self.manifest.reads(features, "block")
        return whitening_key(features) if former else factor_key(features, "block")

    def leverage(self, features: str, form: KernelForm) -> np.ndarray:
        """h (N,) float64: `f̄_iᵀH⁻¹f̄_i` of one copy of each work. Memory-mapped, as all numbers of works here."""
        return self._tensor(leverage_key(features, form))

    def norms(self, features: str) -> np.ndarray:
        """`‖f̄_i‖`, (N,) float64."""
        return self._tensor(norm_key(features))

    def solved_norms(self, features: str, form: KernelForm) -> np.ndarray:
        """`‖H⁻¹f̄_i‖`, (N,) float64."""
        return self._tensor(solved_norm_key(features, form))

    @property
    def residual_weights(self) -> np.ndarray:
        """r (N,) float64: each work's residual relative to the mean work's (METHOD section 2)."""
        return self._tensor("residual_weights")

    @property
    def residual_rms(self) -> np.ndarray | None:
        """`RMS(r_t(x_i))`, (N, T) float32; None where no method reads residuals, or they weren't kept yet."""
        return self._tensors.get(RESIDUAL_RMS)

    @property
    def repeats(self) -> np.ndarray:
        """w (N,) int64: how often each work was trained on."""
        return self._tensor("repeats")

    def content_repeats(self, rows: np.ndarray | slice = slice(None)) -> np.ndarray:
        """W of some works, (n,) int64: how often their content was trained on, in all works that have it together."""
        return self._content_repeats[rows].astype(np.int64)

    @cached_property
    def _content_repeats(self) -> np.ndarray:
        """W (N,) in as few bytes as hold it: it is the one number of works that isn't mapped, but where no two have
        the same content."""
        contents, repeats = self.works.contents, self.repeats
        totals = np.zeros(int(contents.max()) + 1, np.int64)
        if len(totals) == len(self):
            return repeats
        for start in range(0, len(self), _CHUNK_ROWS):
            rows = slice(start, start + _CHUNK_ROWS)
            np.add.at(totals, contents[rows], repeats[rows])
        return np.take(totals.astype(np.min_scalar_type(int(totals.max()))), contents)

    @cached_property
    def embeddings(self) -> np.ndarray:
        """CLIP embeddings (N, e) float32 of unit norm, memory-mapped."""
        return open_array(self.path / EMBEDDINGS_NAME)

    @property
    def embedding_norms(self) -> np.ndarray:
        """The embeddings' norms before they were normalised, (N,) float64."""
        return self._tensor(EMBEDDING_NORMS)

    @cached_property
    def pictures(self) -> np.ndarray:
        """`x_0` of every work in the model's own space, (N, d) float16, memory-mapped.

        Raises:
            IndexFormatError: the index was built for no method that compares pixels.
        """
        return open_array(self.path / PICTURES_NAME)

    @cached_property
    def references(self) -> References | None:
        """The model's own pictures as they were measured at build; None where there are none.

        Raises:
            IndexFormatError: their file is damaged.
        """
        if self.manifest.references is None:
            return None
        return References.read(self.path / REFERENCES_NAME)

    @cached_property
    def hashes(self) -> np.ndarray | None:
        """PDQ hashes of the works and, as the last byte, their quality: (N, 33) uint8, memory-mapped.

        None where the index was built before there were any.
        """
        return None if self.manifest.copies is None else open_array(self.path / HASHES_NAME)

    @cached_property
    def sscd_embeddings(self) -> np.ndarray | None:
        """SSCD embeddings of the works, (N, e) float16 of unit norm, memory-mapped; None where there are none."""
        copies = self.manifest.copies
        return None if copies is None or copies.sscd is None else open_array(self.path / SSCD_NAME)

    def thumbnail(self, row: int) -> bytes:
        """The thumbnail of a work, an encoded picture of at most 256 pixels a side."""
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of {len(self)} works")
        shard, offset, size = (int(value) for value in self.thumbnail_places[row])
        with (self.path / thumbnail_name(shard)).open("rb") as stream:
            stream.seek(offset)
            return stream.read(size)

    @cached_property
    def thumbnail_places(self) -> np.ndarray:
        """Where each thumbnail lies: shard, offset, size, (N, 3) int64, memory-mapped."""
        return open_array(self.path / PLACES_NAME)

    @property
    def card(self) -> str:
        """The index in words, as Markdown."""
        return (self.path / CARD_NAME).read_text(encoding="utf-8")

    @cached_property
    def model_source(self) -> ModelSource:
        """Where the model is now (see das.places), or its hub id; raises ModelError if it is nowhere."""
        return self._source("the model", self.manifest.model)

    @cached_property
    def loras(self) -> tuple[LoraChoice, ...]:
        """The model's LoRAs with their weights: where each is now, or its hub id. Raises like `model_source`."""
        found = []
        for record in self.manifest.model.loras:
            place = find(record.source, record.fingerprint, is_lora, self.model_dir)
            found.append(LoraChoice(self._found("the LoRA", record.source, place), record.weight))
        return tuple(found)

    def checkpoint_source(self, number: int) -> ModelSource:
        """Where the further checkpoint `number`, from 1, is now. Raises like `model_source`."""
        return self._source(f"checkpoint {number}", self.manifest.checkpoints[number - 1])

    @property
    def caveats(self) -> tuple[str, ...]:
        """What every answer has to say of works that came or went."""
        manifest, features = self.manifest, self.manifest.features
        return tuple(
            caveats_of(
                manifest.changes,
                manifest.removed,
                measured=manifest.references is not None,
                dtype=features.dtype,
                growth=features.growth,
            )
        )

    @property
    def screened(self) -> bool:
        """Whether look-alikes can be told, and candidates be chosen by them."""
        return self.manifest.screening is not None

    @cached_property
    def clip(self) -> ClipSpec:
        """The CLIP model that made the embeddings, where it is now.

        Raises:
            SettingsError: the index was built without one.
            ModelError: it is nowhere.
        """
        record = self.manifest.screening
        if record is None:
            raise SettingsError(f"{self.id} {NO_SCREENING}")
        if record.directory is None:
            return ClipSpec(model=record.model, pretrained=record.pretrained)
        together = self.path.resolve() / record.relative if record.relative else None
        found = find(record.directory, record.fingerprint, is_clip, self.model_dir, together)
        return ClipSpec(directory=Path(self._found("the CLIP model", record.directory, found)))

    @cached_property
    def sscd_source(self) -> str | None:
        """Where SSCD's file is now; None where the index was built without. Raises like `model_source`."""
        record = None if self.manifest.copies is None else self.manifest.copies.sscd
        if record is None:
            return None
        together = self.path.resolve() / record.relative
        found = find(record.source, record.digest, is_torchscript, self.model_dir, together)
        return self._found("the SSCD model", record.source, found)

    def _source(self, what: str, record: ModelRecord) -> ModelSource:
        kind = is_model if record.config is not None else is_pipeline
        config, network = record.config, record.network
        return ModelSource(
            self._part(what, record, kind),
            None if config is None else self._part(f"the configuration of {what}", config, is_pipeline),
            None if network is None else self._part(f"the network of {what}", network, is_network),
            self.manifest.config.size,
        )

    def _part(self, what: str, record: ModelRecord | PlaceRecord, kind: Callable[[Path], bool]) -> str:
        recorded = record.fingerprint.partition(" ")[0]
        together = self.path.resolve() / record.relative if record.relative else None
        return self._found(what, record.source, find(record.source, recorded, kind, self.model_dir, together))

    def _found(self, what: str, source: str, found: str | None) -> str:
        if found is not None:
            return found
        raise ModelError(
            f"{what} of {self.id} is no longer at {source}, and not in DAS_MODEL_DIR"
            f" ({self.model_dir or 'not set'}). Let --model or DAS_MODEL_DIR name it, or a directory that holds it."
        )

    def verify(self, progress: Callable[[int, int], None] | None = None) -> Verification:
        """`verify_index` of this index; also tells if it was replaced since it was opened."""
        found = verify_index(self.path, progress)
        if found.ok and read_manifest(self.path) != self.manifest:
            replaced = Damage(MANIFEST_NAME, "digest", "it was replaced since the index was opened")
            return replace(found, damages=(replaced,))
        return found

    def check_whole(self) -> None:
        """Raise IndexFormatError if a file that answers depend on isn't as it was built, by its digest."""
        for damage in self.verify().damages:
            if damage.kind != "extra" and damage.file != CARD_NAME:
                raise IndexFormatError(f"{self.path}: {damage.file} is damaged ({damage.message}).")

    @cached_property
    def _tensors(self) -> Tensors:
        path = self.path / KERNEL_NAME
        try:
            return Tensors(path)
        except (OSError, ValueError) as error:
            raise IndexFormatError(f"{path} can't be read: {error}") from error

    def _tensor(self, name: str) -> np.ndarray:
        try:
            return self._tensors[name]
        except KeyError:
            raise IndexFormatError(f"{self.path / KERNEL_NAME} lacks {name}.") from None

    def _check_schema(self) -> None:
        """Shapes and types of everything, from headers alone."""
        manifest, count = self.manifest, len(self)
        record = manifest.features
        if len(self.works) != count or sum(record.shard_rows) != count:
            raise IndexFormatError(
                f"{self.path}: the manifest counts {count} works, works.parquet {len(self.works)}"
                f" and the feature shards {sum(record.shard_rows)}."
            )
        for name in record.sets:
            for (_, shard), rows in zip(self.features(name).shards(), record.shard_rows, strict=True):
                expect_array(self.path, f"features {name}", shard, (rows, record.dimension), record.dtype)
        if manifest.config.keeps_pictures:
            size = int(np.prod(manifest.model.sample_shape))
            expect_array(self.path, PICTURES_NAME, self.pictures, (count, size), "float16")
        if (screening := manifest.screening) is not None:
            expect_array(self.path, EMBEDDINGS_NAME, self.embeddings, (count, screening.dimension), "float32")
        expect_array(self.path, PLACES_NAME, self.thumbnail_places, (count, 3), "int64")
        if self.hashes is not None:
            expect_array(self.path, HASHES_NAME, self.hashes, (count, BYTES + 1), "uint8")
        if (embeddings := self.sscd_embeddings) is not None and manifest.copies and manifest.copies.sscd:
            expect_array(self.path, SSCD_NAME, embeddings, (count, manifest.copies.sscd.dimension), "float16")
        each, square = ((count,), "float64"), ((record.dimension,) * 2, "float64")
        if (approximate := manifest.approximate) is not None:
            expect_array(
                self.path, SAMPLE_NAME, open_array(self.path / SAMPLE_NAME), (approximate.sample,), "int64"
            )
            for name in (sum_name(kernel.features) for kernel in manifest.kernels_of(approximate.method)):
                expect_array(self.path, name, open_array(self.path / name), *square)
        expected: dict[str, tuple[tuple[int, ...], str]] = {
            "residual_weights": each,
            "repeats": ((count,), "int64"),
        }
        if screening is not None:
            expected[EMBEDDING_NORMS] = each
        for name in record.sets:
            expected[factor_key(name, "block")] = square
            expected[self._whitening_key(name)] = square
            expected[norm_key(name)] = each
            if record.dtype == "int8":
                expected[scale_key(name)] = ((count,), "float32")
        for kernel in manifest.kernels:
            if kernel.form != "none":
                expected[factor_key(kernel.features, kernel.form)] = square
                expected[leverage_key(kernel.features, kernel.form)] = each
            if "solved_norms" in registry.method(kernel.method).needs:
                expected[solved_norm_key(kernel.features, kernel.form)] = each
        for name, (shape, dtype) in expected.items():
            expect_array(self.path / KERNEL_NAME, name, self._tensor(name), shape, dtype)


def _check_sizes(path: Path, manifest: Manifest) -> None:
    """Raise IndexFormatError unless every file is there in its size."""
    for name, record in manifest.files.items():
        file = f"{path}/{name}"  # thousands of them: building a Path takes longer than looking
        try:
            found = os.stat(file)  # noqa: PTH116 - see above
        except (FileNotFoundError, NotADirectoryError):
            found = None
        except OSError as error:
            raise IndexFormatError(f"{file} can't be read: {error}") from error
        if found is None or not stat.S_ISREG(found.st_mode):
            raise IndexFormatError(f"{path} lacks {name}; build the index again or restore the file.")
        # Measuring an index replaces its card and then its manifest. Between the two, or after a crash there, the
        # card has another size: `verify` tells, but nothing that answers depend on is damaged.
        if name != CARD_NAME and found.st_size != record.bytes:
            raise IndexFormatError(
                f"{file} has {found.st_size} bytes instead of {record.bytes};"
                " build the index again or restore the file."
            )
