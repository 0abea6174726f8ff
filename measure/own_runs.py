"""A ground truth of models that somebody trained with a loop of their own, or of the losses of such models alone.

The directory that it is made from:

    pipeline/          the model that was trained on all works; or a base, with lora/ beside it
    lora/              the LoRA that was trained on all works
    works.npz          `images` (N, C, H, W) float32 in [-1, 1]; where they aren't all 1, `repeats` (N,)
    queries.npz        `images` (Q, C, H, W) float32; where there are both, `kind` (Q,): "validation" or "generated"
    models/NAME/       a model that was trained on a part of the works:
        members.npy    the works it was trained on: (N,) bool, or their rows as whole numbers
        losses.npy     what it loses on the queries, (Q,); or, for it to be computed here,
        pipeline/      the model
        lora/          or its LoRA

Models with the same members are seeds of one subset. What is made from it is a ground truth like any other
(measure.truth), and needs the directory no longer.
"""

import dataclasses
import hashlib
import shutil
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from das.durable import write_directory
from das.errors import SettingsError
from das.models import DiffusionModel
from measure.plan import claim
from measure.runs import RUNS, Say
from measure.training import EVALUATION_BATCH, GPU_EVALUATION_BATCH, LossConfig, shared_noises
from measure.truth import (
    LORA,
    PIPELINE,
    QUERIES,
    WORKS,
    GroundTruth,
    Subject,
    load_subject,
    load_truth,
    read_arrays,
    save_truth,
    write_arrays,
)

MODELS, MEMBERS, LOSSES = "models", "members.npy", "losses.npy"
FEWEST = 3
"""Subsets that a rank correlation needs."""


def truth_of_runs(
    source: Path, out: Path, config: LossConfig, *, device: str = "cpu", say: Say = lambda text: None
) -> GroundTruth:
    """Make a ground truth in `out` of the models in `source`, or go on with it; models may be added later.

    Args:
        config: what a query's loss is averaged over, where it is computed here.
        say: told what has been done, a line at a time.

    Raises:
        SettingsError: something is missing, contradicts itself or can't be a model of a part of the works.
        ModelError: a model can't be loaded.
    """
    subject = load_subject(source)
    folders = _folders(source)
    members = {folder.name: _members(folder, len(subject.works)) for folder in folders}
    given = [folder for folder in folders if (folder / LOSSES).is_file()]
    if given and len(given) < len(folders):
        lacking = next(folder for folder in folders if folder not in given)
        raise SettingsError(
            f"{given[0]} has a {LOSSES} and {lacking} has none. Losses that were computed in different ways can't be"
            " compared: give them for every model, or for none."
        )
    out.mkdir(parents=True, exist_ok=True)
    claim(out, _facts(source, None if given else config))
    _copy(source, out)
    if given:
        found = {folder.name: _given(folder, len(subject.queries)) for folder in folders}
    else:
        found = _computed(subject, folders, out, config, device, say)
    arrays = _by_subset(members, found)
    if len(arrays["members"]) < FEWEST:
        raise SettingsError(
            f"{source / MODELS} has models of {len(arrays['members'])} different subsets; a rank correlation needs"
            f" {FEWEST} at least, and says something from about 30 on."
        )
    save_truth(out, subsets=arrays)
    return load_truth(out)


def _folders(source: Path) -> list[Path]:
    models = source / MODELS
    folders = sorted(path.parent for path in models.glob(f"*/{MEMBERS}"))
    without = sorted(path for path in models.glob("*/") if path not in folders)
    if without:
        raise SettingsError(f"{without[0]} has no {MEMBERS}: which works was that model trained on?")
    if not folders:
        raise SettingsError(f"{models} holds no models: expected {MODELS}/NAME/{MEMBERS} for each.")
    return folders


def _members(folder: Path, works: int) -> np.ndarray:
    """Which works a model was trained on, (N,) bool."""
    path = folder / MEMBERS
    stored = _array(path)
    if stored.dtype == np.bool_ and stored.shape == (works,):
        members = stored
    elif stored.dtype.kind in "iu" and stored.ndim == 1:
        if len(stored) and not 0 <= int(stored.min()) <= int(stored.max()) < works:
            raise SettingsError(f"{path} names rows from {stored.min()} to {stored.max()} of {works} works.")
        if len(np.unique(stored)) < len(stored):
            raise SettingsError(
                f"{path} names a work twice; how often works were shown belongs into repeats in {WORKS}."
            )
        members = np.zeros(works, bool)
        members[stored] = True
    else:
        raise SettingsError(
            f"{path} is {stored.dtype} {stored.shape}; expected ({works},) booleans, or rows of works as whole"
            " numbers."
        )
    if members.all() or not members.any():
        raise SettingsError(f"{path} names {'all' if members.any() else 'none'} of the works.")
    return members


def _given(folder: Path, queries: int) -> np.ndarray:
    path = folder / LOSSES
    losses = _array(path)
    if losses.shape != (queries,) or losses.dtype.kind not in "fiu":
        raise SettingsError(f"{path} is {losses.dtype} {losses.shape}; expected ({queries},), one a query.")
    if not np.isfinite(losses).all():
        raise SettingsError(f"{path} holds a loss that isn't a finite number.")
    return losses.astype(np.float32)


def _array(path: Path) -> np.ndarray:
    try:
        found: np.ndarray = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise SettingsError(f"{path} can't be read as a plain array: {error}") from error
    if not isinstance(found, np.ndarray):
        raise SettingsError(f"{path} is an npz; expected a single array, as numpy.save writes it.")
    return found


def _facts(source: Path, config: LossConfig | None) -> dict[str, Any]:
    """What the numbers depend on besides the models of subsets."""
    digests = {name: hashlib.sha256((source / name).read_bytes()).hexdigest() for name in (WORKS, QUERIES)}
    for name in (PIPELINE, LORA):
        digest = hashlib.sha256()
        for path in sorted((source / name).rglob("*")):
            if path.is_file():
                digest.update(f"{path.relative_to(source).as_posix()}\n".encode())
                with path.open("rb") as stream:
                    digest.update(hashlib.file_digest(stream, "sha256").digest())
        digests[name] = digest.hexdigest()
    return {"of": "own runs", "losses": None if config is None else dataclasses.asdict(config), **digests}


def _copy(source: Path, out: Path) -> None:
    for name in (PIPELINE, LORA):
        if (source / name).is_dir() and not (out / name).is_dir():

            def write(partial: Path, of: Path = source / name) -> None:
                shutil.copytree(of, partial, dirs_exist_ok=True)

            write_directory(out / name, write)
    for name in (WORKS, QUERIES):
        if not (out / name).is_file():
            write_arrays(out / name, read_arrays(source / name))


def _computed(
    subject: Subject, folders: Sequence[Path], out: Path, config: LossConfig, device: str, say: Say
) -> dict[str, np.ndarray]:
    """The losses of every model on the queries, (Q,) by its name; each is kept as it is found."""
    full = subject.model(device=device)
    if full.sample_shape != subject.queries.shape[1:]:
        raise SettingsError(
            f"{subject.pipeline} makes pictures of the shape {full.sample_shape}; those in {QUERIES} have"
            f" {subject.queries.shape[1:]}."
        )
    names = {full.identity["digest"]: "the model of all works"}
    found = {}
    for number, folder in enumerate(folders, 1):
        path = out / RUNS / f"{folder.name}.npz"
        kept = read_arrays(path, ("losses", "digest")) if path.is_file() else None
        if kept is None:
            model = _subset_model(subject, folder, device)
            digest = model.identity["digest"]
            if (model.identity["class"], model.sample_shape) != (full.identity["class"], full.sample_shape):
                raise SettingsError(f"{folder} holds another kind of model than the one of all works.")
            kept = {"losses": simple_losses(model, subject.queries, config), "digest": np.array(digest)}
            if not np.isfinite(kept["losses"]).all():
                raise SettingsError(f"The model in {folder} has a loss that isn't finite; it diverged.")
        digest = str(kept["digest"])
        if digest in names:
            raise SettingsError(
                f"{folder} has the same weights as {names[digest]}; one of them isn't what it should be."
            )
        names[digest] = str(folder)
        if not path.is_file():
            write_arrays(path, kept)
            say(f"{number}/{len(folders)} {folder.name}: mean loss {kept['losses'].mean():.4f}")
        found[folder.name] = kept["losses"]
    return found


def _subset_model(subject: Subject, folder: Path, device: str) -> DiffusionModel:
    part = LORA if subject.lora is not None else PIPELINE
    if not (folder / part).is_dir():
        raise SettingsError(f"{folder} has neither {LOSSES} nor {part}/, where its model would be.")
    return subject.model(folder / part, device=device)


@torch.inference_mode()
def simple_losses(model: DiffusionModel, images: np.ndarray, config: LossConfig) -> np.ndarray:
    """The Simple Loss of a model on pictures (Q, C, H, W) in its own space, in its own parametrisation: (Q,) float32.

    Mean over pixels, timesteps and noises, which are the same for all models and pictures
    (`measure.training.losses_on`, for a model of any schedule and prediction type).
    """
    x0 = torch.from_numpy(images).to(model.device, model.dtype)
    conditioning = model.condition([None] * len(x0))
    noises = shared_noises(images.shape[1:], config).to(x0)
    batch = EVALUATION_BATCH if model.device.type == "cpu" else GPU_EVALUATION_BATCH
    total = torch.zeros(len(x0), dtype=torch.float64, device=x0.device)
    points = config.points(model.schedule.num_train_timesteps)
    for (time, _), noise in zip(points, noises, strict=True):
        for rows in torch.arange(len(x0), device=x0.device).split(batch):
            clean, same = x0[rows], noise.expand(len(rows), *noise.shape)
            t = torch.full((len(rows),), time, device=x0.device)
            given = {name: values[rows] for name, values in conditioning.items()}
            predicted = model.predict(model.schedule.add_noise(clean, same, t), t, given)
            error = predicted - model.schedule.target(clean, same, t)
            total[rows] += error.double().square().flatten(1).mean(1)
    found: np.ndarray = (total / len(points)).float().cpu().numpy()
    return found


def _by_subset(members: dict[str, np.ndarray], losses: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """`members` (M, N) and `losses` (M, S, Q): models with the same works are seeds of one subset."""
    seeds: dict[bytes, list[str]] = defaultdict(list)
    for name, chosen in members.items():
        seeds[chosen.tobytes()].append(name)
    queries = len(next(iter(losses.values())))
    stacked = np.full((len(seeds), max(map(len, seeds.values())), queries), np.nan, np.float32)
    for subset, names in enumerate(seeds.values()):
        for seed, name in enumerate(names):
            stacked[subset, seed] = losses[name]
    return {
        "members": np.stack([members[names[0]] for names in seeds.values()]),
        "losses": stacked,
    }
