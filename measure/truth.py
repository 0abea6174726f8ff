"""A ground truth on disk: what subset models lose on queries, with the works, the queries and the full model.

A directory holds `pipeline/` (a DDPMPipeline trained on all works; or a base, and `lora/`, a peft adapter on it that
was trained on them), `works.npz` (`images` (N, C, H, W) float32 in [-1, 1], `labels`; and where they aren't all 1,
`repeats`), `queries.npz` (`images`, `labels`, and where there are both, `kind`: "validation" or "generated") and
`subsets.npz` (`members` (M, N) bool, `losses` (M, S, Q) float32, NaN where not run). One that `das evaluate` made
also has its plan, `generated.npz` (the pictures of the generated queries) and, in `runs/`, what each model gave.
"""

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from das.durable import write_file
from das.errors import SettingsError

if TYPE_CHECKING:
    from das.models import DiffusionModel

KINDS = ("validation", "generated")
WORKS, QUERIES, SUBSETS, PIPELINE = "works.npz", "queries.npz", "subsets.npz", "pipeline"
LORA = "lora"


@dataclass(frozen=True)
class Subject:
    """What a ground truth is about: a model, the works that it was trained on, and the pictures asked about.

    Attributes:
        directory: where it was read from; `pipeline/` lies there.
        works: (N, C, H, W) float32 in [-1, 1], the model's own space.
        repeats: (N,) int64, how often one epoch shows each work.
        queries: (Q, C, H, W) float32.
        kinds: (Q,) of "validation" or "generated"; all "validation" where the file doesn't say.
    """

    directory: Path
    works: np.ndarray
    repeats: np.ndarray
    queries: np.ndarray
    kinds: np.ndarray

    @property
    def pipeline(self) -> Path:
        """The model that is attributed, or the base of the LoRA that is."""
        return self.directory / PIPELINE

    @property
    def lora(self) -> Path | None:
        """The LoRA that is attributed; None where the whole model is."""
        path = self.directory / LORA
        return path if path.is_dir() else None

    def model(self, checkpoint: Path | None = None, *, device: str = "cpu") -> "DiffusionModel":
        """The model that is attributed, or an earlier checkpoint of it: a pipeline, or a LoRA on the same base.

        Raises:
            ModelError: it can't be loaded.
        """
        from das.models import load_model

        if self.lora is None:
            return load_model(str(checkpoint or self.pipeline), device=device)
        return load_model(str(self.pipeline), lora=str(checkpoint or self.lora), device=device)

    def queries_of(self, kind: str) -> np.ndarray:
        """Places of the queries of a kind, (n,)."""
        return np.flatnonzero(self.kinds == kind)


@dataclass(frozen=True)
class GroundTruth(Subject):
    """A validated ground truth of random subsets.

    Attributes:
        members: (M, N) bool, which works each subset model was trained on.
        losses: (M, S, Q) float32, subset × seed × query; NaN where that model was not run.
    """

    members: np.ndarray
    losses: np.ndarray

    def mean_losses(self) -> np.ndarray:
        """Mean over the seeds that were run, (M, Q)."""
        return np.asarray(np.nanmean(self.losses, axis=1))


def load_truth(directory: Path) -> GroundTruth:
    """Read and check a ground truth; subsets that were not trained yet are left out.

    Raises:
        SettingsError: a file is missing or damaged, shapes contradict each other, or values make no sense.
    """
    subject = load_subject(directory)
    members, losses = _subsets(directory / SUBSETS, len(subject.works), len(subject.queries))
    return GroundTruth(**vars(subject), members=members, losses=losses)


def load_subject(directory: Path) -> Subject:
    """Read and check what every kind of ground truth has.

    Raises:
        SettingsError: a file is missing or damaged, or shapes contradict each other.
    """
    if not directory.is_dir():
        raise SettingsError(
            f"{directory} isn't a directory; name a ground truth, or make one: das evaluate truth."
        )
    works = _pictures_of(directory / WORKS)
    queries = _pictures_of(directory / QUERIES)
    if works.shape[1:] != queries.shape[1:]:
        raise SettingsError(
            f"{directory}: works have the shape {works.shape[1:]}, queries {queries.shape[1:]}; they must agree."
        )
    kinds = read_arrays(directory / QUERIES).get("kind", np.full(len(queries), KINDS[0]))
    if kinds.shape != (len(queries),) or not set(kinds.tolist()) <= set(KINDS):
        raise SettingsError(
            f"{directory / QUERIES}: kind must name one of {', '.join(KINDS)} for each of the {len(queries)} queries."
        )
    if not (directory / PIPELINE / "model_index.json").is_file():
        raise SettingsError(f"{directory / PIPELINE} isn't a pipeline: it has no model_index.json.")
    return Subject(directory, works, read_repeats(directory, len(works)), queries, kinds)


def read_repeats(directory: Path, works: int) -> np.ndarray:
    """How often one epoch shows each work, (N,) int64; once where the file doesn't say.

    Raises:
        SettingsError: they aren't whole numbers from 1 up, one for each work.
    """
    repeats = read_arrays(directory / WORKS).get("repeats", np.ones(works, np.int64))
    if repeats.shape != (works,) or repeats.dtype.kind not in "iu" or repeats.min(initial=1) < 1:
        raise SettingsError(
            f"{directory / WORKS}: repeats must be a whole number from 1 up for each of the {works} works."
        )
    return repeats.astype(np.int64)


def _subsets(path: Path, works: int, queries: int) -> tuple[np.ndarray, np.ndarray]:
    arrays = read_arrays(path, ("members", "losses"))
    members, losses = arrays["members"], arrays["losses"]
    if members.dtype != np.bool_ or members.ndim != 2 or members.shape[1] != works:
        raise SettingsError(
            f"{path}: members is {members.dtype} {members.shape}; expected booleans (subsets, {works} works)."
        )
    if losses.ndim != 3 or losses.shape[0] != len(members) or losses.shape[2] != queries:
        raise SettingsError(
            f"{path}: losses has the shape {losses.shape};"
            f" expected ({len(members)} subsets, seeds, {queries} queries)."
        )
    run = ~np.isnan(losses)
    if not np.array_equal(run.all(2), run.any(2)) or np.isinf(losses).any():
        raise SettingsError(
            f"{path}: a model's losses must be numbers for all queries, or NaN for all where it was not run."
        )
    trained = run.any((1, 2))
    if trained.sum() < 3:
        raise SettingsError(
            f"{path}: {int(trained.sum())} subsets have losses; a rank correlation needs 3 at least."
        )
    return members[trained], losses[trained]


def save_truth(
    directory: Path,
    *,
    works: Mapping[str, np.ndarray] | None = None,
    queries: Mapping[str, np.ndarray] | None = None,
    subsets: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Write the parts that are given, each whole or not at all."""
    for name, arrays in ((WORKS, works), (QUERIES, queries), (SUBSETS, subsets)):
        if arrays is not None:
            write_arrays(directory / name, arrays)


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray], *, compressed: bool = True) -> None:
    """An npz that is there whole or not at all, also when the process is killed."""
    save = np.savez_compressed if compressed else np.savez
    write_file(path, lambda stream: save(stream, allow_pickle=False, **dict(arrays)))


def read_arrays(path: Path, required: tuple[str, ...] = ()) -> dict[str, np.ndarray]:
    """All arrays of an npz.

    Raises:
        SettingsError: it is missing, damaged, or lacks one of `required`.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
    except FileNotFoundError:
        raise SettingsError(f"{path} is missing.") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise SettingsError(f"{path} can't be read as an npz of plain arrays: {error}") from error
    missing = [name for name in required if name not in arrays]
    if missing:
        raise SettingsError(
            f"{path} has no array {', '.join(missing)}; it has {', '.join(arrays) or 'none'}."
        )
    return arrays


def _pictures_of(path: Path) -> np.ndarray:
    """The checked pictures of a file, (n, C, H, W) float32 in [-1, 1].

    Raises:
        SettingsError: it is missing or damaged, or holds something else.
    """
    images = read_arrays(path, ("images",))["images"]
    if images.ndim != 4 or images.shape[1] not in (1, 3) or not len(images):
        raise SettingsError(
            f"{path}: images has the shape {images.shape}; expected (count, 1 or 3, height, width)."
        )
    if images.dtype != np.float32 or not np.isfinite(images).all() or np.abs(images).max() > 1.0:
        raise SettingsError(f"{path}: images must be float32 within [-1, 1]; they are {images.dtype}.")
    return images
