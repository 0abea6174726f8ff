"""The manifest of an attribution index: what it was made from, with what, and the digest of every file.

`manifest.json` is written in one canonical form, so a changed byte anywhere in it is found, spaces included.
"""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from das import registry
from das.approximation import ApproximateRecord
from das.changes import REMOVED_NAME, ChangeRecord
from das.config import BuildConfig, FeatureType
from das.errors import IndexFormatError
from das.methods import KernelForm

MANIFEST_NAME = "manifest.json"
SCHEMA_VERSION = 2
_ID_DIGITS = 6
_HASH_CHUNK = 1 << 20

# Files that say how and when an index was made, not what it answers; they are no part of its identity.
TELLING_FILES = frozenset({"card.md", "build-report.json", REMOVED_NAME})


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PlaceRecord(_Part):
    """Where a part of the model lay."""

    source: str
    """Hub id, or an absolute path."""
    relative: str | None
    """The path relative to the index; None for a hub id."""
    fingerprint: str
    """As the model's."""


class LoraRecord(_Part):
    """A LoRA on the model: where it lay, what of it was loaded, and what its file says of its training."""

    source: str
    """Absolute path of a file or directory, or a hub id."""
    weight: float = 1.0
    """What its output is multiplied by."""
    adapter: str = "default"
    """Its name in the parameters' names."""
    fingerprint: str
    """Of its files, or the hub id."""
    kinds: dict[str, int] = {}
    """How many of the network's layers have each kind of adapter."""
    text_encoders: dict[str, int] = {}
    """By text encoder that it changes, how many of its layers; these aren't attributed."""
    facts: dict[str, str] = {}
    """What its header says of its training: a claim."""
    remarks: tuple[str, ...] = ()
    """Where the header says otherwise than the works and the base that the index is built of."""


class ModelRecord(_Part):
    """The diffusion model: where it lay, and what it is."""

    source: str
    """Hub id, or the absolute path of a directory or a single file."""
    relative: str | None
    """The directory's path relative to the index, so that both can move together; None for a hub id."""
    digest: str
    fingerprint: str
    """Of the directory's files, or the hub id: tells that nothing changed without loading the model."""
    identity: dict[str, Any]
    sample_shape: tuple[int, int, int]
    num_train_timesteps: int
    attributed_parameters: int
    """p, how many numbers are attributed."""
    conditional: bool = False
    """Whether prompts reach the network."""
    config: PlaceRecord | None = None
    """The pipeline that a single file was read with; None: the model is a pipeline itself."""
    network: PlaceRecord | None = None
    """What took the place of the pipeline's own network; `digest` is of this one."""
    remarks: tuple[str, ...] = ()
    """How it was read, where that isn't plain."""
    loras: tuple[LoraRecord, ...] = ()
    """The LoRAs on it, in the order in which they were given; `digest` includes their matrices and weights."""

    @model_validator(mode="before")
    @classmethod
    def _one_lora_of_old(cls, values: Any) -> Any:
        """Before there could be several, `lora` said where the one lay."""
        if not isinstance(values, dict) or "lora" not in values:
            return values
        rest = {name: value for name, value in values.items() if name != "lora"}
        if values["lora"] is None:
            return rest
        recorded = str(values.get("fingerprint", "")).partition(" ")[2]
        return rest | {"loras": [{"source": values["lora"], "fingerprint": recorded}]}


class WeightFileRecord(_Part):
    """A file that the model or a LoRA was loaded from, by the hashes that other programs name it by."""

    role: Literal["model", "lora"]
    name: str
    sha256: str
    tensors_sha256: str | None = None
    """Of what follows a safetensors file's header; None for another file."""
    old_hash: str | None = None
    """Eight digits that A1111 named it by before 2023; None for a file too short for that."""


class WorksRecord(_Part):
    """The training works: how many were asked for, how many are in, and what they hold."""

    source: str
    count: int
    """N, the rows of the index."""
    source_rows: int
    """Works that the source names, unreadable ones included."""
    trained: int
    """Sum of `repeats`."""
    digest: str
    """sha256 over the source's table and every file's sha256."""
    format: str | None = None
    """The convention that the source was read by (`das.trainingsets`); None: an index of an earlier version."""


class KernelRecord(_Part):
    """What a method reads: features, the form of kernel between them, and its damping.

    Plain inner products have the form "none" and no numbers.
    """

    method: str
    features: str
    """Name of a feature set, see das.config.FeatureSet."""
    form: KernelForm
    damping: float | None = None
    """λ itself."""
    relative_damping: float | None = None
    """λ in units of tr(K)/N."""
    trace: float | None = None
    effective_dimension: float | None = None
    """d_λ = tr K(K+λI)⁻¹."""
    mean_square: float | None = None
    """Mean of `(f̄_jᵀH⁻¹f̄_i)²` over all pairs of works: what squared scores of this kernel are measured in
    where several probes' scores are added."""


class FeaturesRecord(_Part):
    """Whitened features: one file per feature set and shard."""

    dtype: FeatureType
    dimension: int
    sets: tuple[str, ...]
    """Names, see das.config.FeatureSet."""
    shard_rows: tuple[int, ...]
    """Works in each shard, in order."""
    whitening: Literal["block", "former"] = "block"
    """By which factor: that of the index's own block kernel, or of the one before works came or went."""
    growth: float = 1.0
    """By how much more than at the build, at most, the rounding of stored features counts (das.changes)."""


class ScreeningRecord(_Part):
    """The CLIP model and its index."""

    model: str | None
    pretrained: str | None
    directory: str | None
    """Absolute path of a local model's directory."""
    relative: str | None
    """The same, relative to the index."""
    digest: str
    fingerprint: str
    """As the model's."""
    dimension: int
    kind: str


class ReferencesRecord(_Part):
    """The model's own pictures that others are held against (das.references)."""

    count: int
    """How many, as the model made them."""
    source: str
    """Absolute path of the folder that they were read from; "generated" where the build made them."""
    digest: str | None
    """sha256 over the folder's pictures and prompts; None where the build made them."""
    arrivals: dict[str, int]
    """By what was done to them, how many were measured so."""


class CreatorKnowledge(_Part):
    """Whether the model knows a creator's works better than other pictures of theirs (dataset inference)."""

    name: str
    works: int
    held_out: int
    """How many of each were compared."""
    gap: float
    """Part by which the geometric mean of the errors on the works is smaller."""
    p: float
    """One-sided, by permutation: how often chance would make the works' errors so much smaller."""
    p_adjusted: float
    """Holm's, over all creators tested."""


class HeldOutRecord(_Part):
    """Pictures of the same kind that the model was not trained on, and how much better it knows its works."""

    count: int
    source: str
    """Absolute path of the folder."""
    digest: str
    """sha256 over the folder's pictures, prompts and creators."""
    works: int
    """How many works they were compared with."""
    gap: float
    """`1 - (mean square error of works) / (that of held-out pictures)`, under a LoRA relative to its base."""
    gap_low: float
    gap_high: float
    """95 %, by resampling pictures."""
    decides_damping: bool
    """Whether λ is chosen for the gap: only where the interval excludes the usual one (decision 22)."""
    creators: tuple[CreatorKnowledge, ...] = ()

    def describe(self) -> str:
        """In a sentence."""
        word = "smaller" if self.gap >= 0 else "larger"
        return (
            f"The model's error on its works is {100 * abs(self.gap):.1f} % {word} than on {self.count:,} held-out"
            f" pictures (95 %: {100 * self.gap_low:.1f} to {100 * self.gap_high:.1f} % smaller)."
        )


class SscdRecord(_Part):
    """SSCD's file: where it lay, and which it is."""

    source: str
    """Absolute path."""
    relative: str
    """The same, relative to the index."""
    digest: str
    """sha256 of the file."""
    dimension: int


class CopiesRecord(_Part):
    """What the works are compared by to tell copies of them (das.copies)."""

    hashes: Literal["pdq"] = "pdq"
    sscd: SscdRecord | None = None
    """None: by PDQ alone."""


class BuildRecord(_Part):
    """By what, when and where the index was made; nothing here changes an answer."""

    created_at: str
    command: str
    device: str
    versions: dict[str, str]
    seconds: dict[str, float]
    """Time of each stage of the run that finished the build."""
    unreadable: int


NOT_MEASURED = "How well this ranking agrees with retraining was not measured for this method and index."


class QualityRecord(_Part):
    """How good the index's ranking was measured to be; correlations times 100."""

    method: str
    """The index's default method: the others' rankings were not measured."""
    lds: float
    """Linear datamodelling score, mean over the queries."""
    low: float
    high: float
    """95 % by resampling subsets."""
    ceiling: float | None
    """What one retraining's losses score against another's; None where no subset was trained on twice."""
    perfect: float | None
    """About what a perfect prediction would score: 100 √(ceiling / 100)."""
    subsets: int
    queries: int
    generated: int
    """How many of the queries the model generated; the others were held out."""
    truth: str
    """The ground truth in words."""
    truth_digest: str
    """sha256 over its files of works, queries and subsets."""
    measured_at: str
    command: str
    versions: dict[str, str]

    def describe(self) -> str:
        """In one line."""
        ceiling = "unknown" if self.ceiling is None else f"{self.ceiling:.1f} %"
        return (
            f"LDS {self.lds:.1f} % ({self.low:.1f} to {self.high:.1f} %), ceiling {ceiling}; {self.method},"
            f" {self.subsets:,} subsets, {self.queries:,} queries, {self.measured_at}"
        )


class ExtensionRecord(_Part):
    """An estimator, probe or model family that isn't das's own, and the distribution that brought it."""

    kind: registry.Kind
    name: str
    distribution: str
    version: str


class FileRecord(_Part):
    """Size and digest of one file."""

    bytes: int
    sha256: str


class Manifest(_Part):
    """All of `manifest.json`."""

    format: Literal["das-attribution-index"] = "das-attribution-index"
    schema_version: int = SCHEMA_VERSION
    name: str
    content_digest: str
    """sha256 over what decides the answers: config, model, works, kernels and the files that hold numbers."""
    config: BuildConfig
    timesteps: tuple[int, ...]
    model: ModelRecord
    weight_files: tuple[WeightFileRecord, ...] = ()
    """Of a model that is a single file, and of LoRAs: what the hashes in a picture's metadata are compared with."""
    checkpoints: tuple[ModelRecord, ...] = ()
    """Earlier checkpoints, for the methods that are a mean over them."""
    extensions: tuple[ExtensionRecord, ...] = ()
    """What of the above is brought by extensions; they have to be there to open the index."""
    works: WorksRecord
    kernels: tuple[KernelRecord, ...]
    features: FeaturesRecord
    screening: ScreeningRecord | None
    """None: the index was built without, and look-alikes can't be told with it."""
    references: ReferencesRecord | None = None
    """None: whether the model made a picture can't be told with this index."""
    held_out: HeldOutRecord | None = None
    """None: the index was built without held-out pictures."""
    copies: CopiesRecord | None = None
    """None: the index was built before there were hashes, and copies can't be told with it."""
    approximate: ApproximateRecord | None = None
    """None: every question scores all works, or a selection."""
    changes: tuple[ChangeRecord, ...] = ()
    """What came and went since it was built, the oldest first."""
    removed: int = 0
    """Works that were removed and are in no longer; `removed.txt` has the digests of their ids."""
    quality: QualityRecord | None = None
    """What was measured of the index after it was built, no part of its identity; None: not measured."""
    build: BuildRecord
    files: dict[str, FileRecord]

    @property
    def clip_digest(self) -> str:
        """Of the CLIP model's weights; empty where there is none."""
        return "" if self.screening is None else self.screening.digest

    @property
    def id(self) -> str:
        """`name@` and the first digits of the content digest, such as `photographs@3f9c2a`."""
        return f"{self.name}@{self.content_digest[:_ID_DIGITS]}"

    def reads(self, features: str, form: KernelForm) -> bool:
        """Whether a method reads the kernel of this form over a feature set."""
        return any(kernel.features == features and kernel.form == form for kernel in self.kernels)

    def kernels_of(self, method: str) -> tuple[KernelRecord, ...]:
        """The kernels that `method` reads; empty where the index doesn't answer it."""
        return tuple(kernel for kernel in self.kernels if kernel.method == method)


def content_digest(
    config: BuildConfig,
    model_digests: list[str],
    works_digest: str,
    clip_digest: str,
    kernels: tuple[KernelRecord, ...],
    files: dict[str, FileRecord],
    extensions: tuple[ExtensionRecord, ...] = (),
    depth: int | None = None,
) -> str:
    """The digest an index's id is made from: equal for two builds of the same works with the same options.

    Args:
        depth: candidates of its approximate search, where it has one.
    """
    body = {
        "schema_version": SCHEMA_VERSION,
        "config": config.compared(),
        "models": model_digests,
        "works": works_digest,
        "clip": clip_digest,
        "kernels": [kernel.model_dump(mode="json") for kernel in kernels],
        "files": {name: record.sha256 for name, record in files.items() if name not in TELLING_FILES},
    }
    if depth is not None:
        body["depth"] = depth
    if extensions:
        body["extensions"] = [record.model_dump(mode="json") for record in extensions]
    return hashlib.sha256(canonical_json(body)).hexdigest()


def canonical_json(body: Any) -> bytes:
    """One spelling for one value: sorted keys, two spaces, one newline at the end."""
    return (json.dumps(body, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def manifest_bytes(manifest: Manifest) -> bytes:
    """`manifest.json` as it is written: the canonical body and the digest of it."""
    body = manifest.model_dump(mode="json")
    return canonical_json({**body, "digest": hashlib.sha256(canonical_json(body)).hexdigest()})


def read_manifest(directory: Path) -> Manifest:
    """Read and check the manifest of an index.

    Raises:
        IndexFormatError: if there is none, it has another schema, or a byte of it was changed.
    """
    path = directory / MANIFEST_NAME
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        unfinished = "its build isn't finished; run the build again to go on"
        hint = unfinished if _is_unfinished(directory) else "it has no manifest.json"
        raise IndexFormatError(f"{directory} isn't an attribution index: {hint}.") from None
    except OSError as error:
        raise IndexFormatError(f"{path} can't be read: {error}") from error
    try:
        body = json.loads(raw)
        stated = body.pop("digest")
        version = body["schema_version"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise IndexFormatError(f"{path} is damaged: {error}") from error
    if version != SCHEMA_VERSION:
        raise IndexFormatError(
            f"{path} has schema version {version!r}; this version of das reads {SCHEMA_VERSION}."
            f" Build the index again: `{_rebuild(body)}`."
        )
    try:
        own = hashlib.sha256(canonical_json(body)).hexdigest()
        canonical = canonical_json({**body, "digest": stated})
    except (ValueError, RecursionError) as error:
        raise IndexFormatError(f"{path} is damaged: {error}") from error
    if stated != own or raw != canonical:
        raise IndexFormatError(f"{path} is damaged or was edited: it doesn't match its own digest.")
    try:
        for record in body.get("extensions", ()):
            registry.require(**record, needed_by=str(directory))
        return Manifest.model_validate(body)
    except (ValidationError, TypeError) as error:
        raise IndexFormatError(f"{path} doesn't follow its schema: {error}") from error


def _rebuild(body: dict[str, Any]) -> str:
    """The command that makes an index anew, as far as the manifest of another schema tells."""
    config = body.get("config")
    known = config if isinstance(config, dict) else {}
    model, works = known.get("model") or "PIPELINE", known.get("works") or "FOLDER"
    return f"das build --model {model} --works {works} --out NEW-DIRECTORY"


def record_file(path: Path, progress: Callable[[int], None] | None = None) -> FileRecord:
    """Size and sha256 of a file; `progress` is told of every piece's bytes."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as stream:
        while piece := stream.read(_HASH_CHUNK):
            digest.update(piece)
            size += len(piece)
            if progress is not None:
                progress(len(piece))
    return FileRecord(bytes=size, sha256=digest.hexdigest())


def list_files(directory: Path) -> list[str]:
    """Every file below `directory`, relative, with forward slashes, sorted."""
    return sorted(
        (Path(folder) / name).relative_to(directory).as_posix()
        for folder, _, names in os.walk(directory)
        for name in names
    )


def _is_unfinished(directory: Path) -> bool:
    return directory.name.endswith(".building") or directory.with_name(directory.name + ".building").is_dir()
