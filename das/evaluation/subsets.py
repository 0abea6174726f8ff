"""Making a ground truth: the full model, its generated queries, and one model for each subset and seed.

Everything is written as it is finished, whole or not at all. A run that was killed loses the models that were
being trained at that moment, and goes on when the same command is run again.
"""

import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from multiprocessing import get_context, parent_process
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import torch

from das.errors import DasError, SettingsError
from das.evaluation.adapters import base_network, save_lora
from das.evaluation.training import LossConfig, Recipe, new_scheduler, sample, seed_of, simple_losses, train
from das.evaluation.truth import (
    LORA,
    PIPELINE,
    QUERIES,
    WORKS,
    GroundTruth,
    load_truth,
    read_arrays,
    save_truth,
    write_arrays,
    write_bytes,
)
from das.models import load_model

PLAN, RUNS, CHECKPOINTS = "plan.json", "runs", "checkpoints"
FULL = "full"

Say = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """Everything that changes the numbers of a ground truth.

    Attributes:
        size: side that pictures are resized to, by averaging areas; None keeps theirs.
        count: N, works drawn from the npz; None takes all.
        validation, generated: queries of each kind.
        subsets: M; each holds `share` of the works.
        seeds: models for each subset, the later ones only for the first `repeated` subsets (for the ceiling).
        checkpoints: snapshots of the full model on its way, for TracInCP and GAS.
        sampling_steps: DDIM steps of the generated queries.
    """

    size: int | None = None
    count: int | None = None
    validation: int = 100
    generated: int = 100
    subsets: int = 36
    share: float = 0.5
    seeds: int = 2
    repeated: int = 12
    checkpoints: int = 3
    sampling_steps: int = 100
    seed: int = 0
    recipe: Recipe = field(default_factory=Recipe)
    losses: LossConfig = field(default_factory=LossConfig)

    def __post_init__(self) -> None:
        for name in ("validation", "generated", "repeated", "checkpoints"):
            if getattr(self, name) < 0:
                raise SettingsError(f"{name} must not be negative; it is {getattr(self, name)}.")
        for name in ("subsets", "seeds", "sampling_steps"):
            if getattr(self, name) < 1:
                raise SettingsError(f"{name} must be at least 1, not {getattr(self, name)}.")
        if self.validation + self.generated < 1:
            raise SettingsError("There must be a query: validation or generated.")
        if not 0 < self.share < 1:
            raise SettingsError(f"share must lie between 0 and 1, not {self.share}.")

    def runs(self) -> list[tuple[int, int]]:
        """Subset and seed of every model: all subsets with the first seed, then the repetitions."""
        later = [(m, s) for s in range(1, self.seeds) for m in range(min(self.repeated, self.subsets))]
        return [(m, 0) for m in range(self.subsets)] + later

    def describe(self) -> dict[str, Any]:
        """As plain JSON values; a plan without a LoRA says nothing of one."""
        described: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        if self.recipe.rank is None:
            del described["recipe"]["rank"]
        return described


@dataclass(frozen=True)
class Source:
    """Pictures to draw works and validation queries from: each (n, H, W, C) uint8 or float, with labels (n,)."""

    images: np.ndarray
    labels: np.ndarray
    held_out: np.ndarray | None
    held_out_labels: np.ndarray | None


def read_source(path: Path, key: str = "images", held_out_key: str | None = None) -> Source:
    """Read pictures from an npz; labels lie under the same name with "labels" for "images", zeros otherwise.

    Raises:
        SettingsError: a key is missing, or an array doesn't hold pictures.
    """
    arrays = read_arrays(path, (key,) if held_out_key is None else (key, held_out_key))

    def labels(name: str) -> np.ndarray:
        return arrays.get(name.replace("images", "labels"), np.zeros(len(arrays[name]), np.int64))

    for name in filter(None, (key, held_out_key)):
        if arrays[name].ndim not in (3, 4):
            raise SettingsError(
                f"{path}: {name} has the shape {arrays[name].shape};"
                " expected (count, height, width) or (count, height, width, channels)."
            )
    if held_out_key is None:
        return Source(arrays[key], labels(key), None, None)
    return Source(arrays[key], labels(key), arrays[held_out_key], labels(held_out_key))


def model_space(images: np.ndarray, size: int | None) -> np.ndarray:
    """Pictures as (n, C, H, W) float32 in [-1, 1], resized by averaging areas.

    Takes (n, H, W), (n, H, W, C) or (n, C, H, W) with 1 or 3 channels; uint8, or float in [-1, 1].

    Raises:
        SettingsError: floats outside [-1, 1], or another number of channels.
    """
    if images.ndim == 3:
        images = images[..., None]
    if images.shape[1] not in (1, 3) and images.shape[-1] in (1, 3):
        images = images.transpose(0, 3, 1, 2)
    if images.shape[1] not in (1, 3):
        raise SettingsError(f"Pictures of shape {images.shape[1:]} have neither 1 nor 3 channels.")
    values = torch.from_numpy(np.array(images, dtype=np.float32))
    if images.dtype == np.uint8:
        values = values / 127.5 - 1.0
    elif not np.isfinite(images).all() or np.abs(images).max() > 1.0:
        raise SettingsError("Pictures in floating point must lie within [-1, 1].")
    if size is not None:
        values = torch.nn.functional.interpolate(values, size=(size, size), mode="area")
    return values.clamp(-1, 1).numpy()


def make_truth(
    source: Source,
    out: Path,
    plan: Plan,
    *,
    base: Path | None = None,
    workers: int = 1,
    device: str = "cpu",
    say: Say = lambda text: None,
) -> GroundTruth:
    """Make the ground truth in `out`, or go on with it.

    Args:
        base: a DDPMPipeline directory; with it, LoRAs of the recipe's rank are trained on that network, and no whole
            networks.
        workers: processes that train at once, each on one thread; it doesn't change the numbers.
        device: of the training. Another device gives other numbers, and so is part of the plan.
        say: told what has been done, a line at a time.

    Raises:
        SettingsError: the plan can't be followed with these pictures, or `out` was begun with another plan.
    """
    if workers < 1:
        raise SettingsError(f"workers must be at least 1, not {workers}.")
    if (plan.recipe.rank is None) != (base is None):
        raise SettingsError("A LoRA needs both: a base to be trained on, and a rank.")
    out.mkdir(parents=True, exist_ok=True)
    facts = {"device": device, "source": _digest(source)}
    if base is not None:
        facts["base"] = load_model(str(base)).identity["digest"]
    _claim(out, {**plan.describe(), **facts})
    if base is not None and not (out / PIPELINE).is_dir():
        save_pipeline(base_network(base), out / PIPELINE)
    if not (out / WORKS).is_file():
        _draw(source, out, plan)
    _work_through(out, [FULL], plan, workers=1, device=device, say=say)
    if not (out / QUERIES).is_file():
        _write_queries(source, out, plan, device)
        say(f"{plan.validation + plan.generated} queries")
    members = _members(out, plan)
    waiting = [run for run in plan.runs() if not _result(out, run).is_file()]
    say(f"{len(waiting)} of {len(plan.runs())} subset models to train")
    _work_through(out, waiting, plan, workers=workers, device=device, say=say)
    losses = np.full((plan.subsets, plan.seeds, plan.validation + plan.generated), np.nan, np.float32)
    for subset, seed in plan.runs():
        losses[subset, seed] = read_arrays(_result(out, (subset, seed)), ("losses",))["losses"]
    save_truth(out, subsets={"members": members, "losses": losses})
    return load_truth(out)


def _claim(out: Path, plan: dict[str, Any]) -> None:
    """Write the plan, or compare with the one that is there."""
    path = out / PLAN
    if not path.is_file():
        if any(out.iterdir()):
            raise SettingsError(f"{out} is not empty and holds no {PLAN}; name a new directory.")
        write_bytes(path, (json.dumps(plan, indent=2) + "\n").encode())
        return
    before = json.loads(path.read_text())
    changed = sorted(name for name in before.keys() | plan.keys() if before.get(name) != plan.get(name))
    if changed:
        told = "; ".join(f"{name} was {before.get(name)}, now {plan.get(name)}" for name in changed)
        raise SettingsError(f"{out} was begun with another plan: {told}. Name a new directory.")


def _digest(source: Source) -> str:
    digest = hashlib.sha256()
    for array in (source.images, source.held_out):
        if array is not None:
            digest.update(f"{array.dtype} {array.shape}\n".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _rows(source: Source, plan: Plan) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the works in `images`, and of the validation queries in `held_out` (or else in `images`)."""
    order = np.random.default_rng(seed_of(plan.seed, "works")).permutation(len(source.images))
    spare = plan.validation if source.held_out is None else 0
    count = len(order) - spare if plan.count is None else plan.count
    if count < 2 or count + spare > len(order):
        raise SettingsError(
            f"{count} works and {spare} validation queries can't be drawn from {len(order)} pictures."
        )
    if source.held_out is None:
        return order[:count], order[count : count + plan.validation]
    if plan.validation > len(source.held_out):
        raise SettingsError(
            f"{plan.validation} validation queries can't be drawn from {len(source.held_out)} pictures."
        )
    held = np.random.default_rng(seed_of(plan.seed, "validation")).permutation(len(source.held_out))
    return order[:count], held[: plan.validation]


def _draw(source: Source, out: Path, plan: Plan) -> None:
    rows, _ = _rows(source, plan)
    works = {"images": model_space(source.images[rows], plan.size), "labels": source.labels[rows]}
    save_truth(out, works=works)


def _members(out: Path, plan: Plan) -> np.ndarray:
    """Which works each subset holds, (M, N) bool."""
    works = len(read_arrays(out / WORKS, ("images",))["images"])
    size = round(plan.share * works)
    if not 0 < size < works:
        raise SettingsError(f"A share of {plan.share} of {works} works is none or all.")
    members = np.zeros((plan.subsets, works), bool)
    for subset in range(plan.subsets):
        chosen = np.random.default_rng(seed_of(plan.seed, "subset", subset)).permutation(works)[:size]
        members[subset, chosen] = True
    return members


def _write_queries(source: Source, out: Path, plan: Plan, device: str) -> None:
    """The held-out pictures, then the full model's own."""
    _, rows = _rows(source, plan)
    held, labels = source.held_out, source.held_out_labels
    if held is None or labels is None:
        held, labels = source.images, source.labels
    parts, kinds, all_labels = [], [], []
    if plan.validation:
        parts.append(model_space(held[rows], plan.size))
        kinds += ["validation"] * plan.validation
        all_labels.append(labels[rows])
    if plan.generated:
        lora = None if plan.recipe.rank is None else str(out / LORA)
        network = load_model(str(out / PIPELINE), lora=lora, device=device).network
        shape = (plan.generated, *read_arrays(out / WORKS, ("images",))["images"].shape[1:])
        seed = seed_of(plan.seed, "generated")
        parts.append(sample(network, new_scheduler(), shape, seed=seed, steps=plan.sampling_steps).numpy())
        kinds += ["generated"] * plan.generated
        all_labels.append(np.full(plan.generated, -1))
    queries = {
        "images": np.concatenate(parts),
        "labels": np.concatenate(all_labels),
        "kind": np.array(kinds),
    }
    save_truth(out, queries=queries)


Task = tuple[int, int] | str


def _result(out: Path, run: tuple[int, int]) -> Path:
    return out / RUNS / f"subset-{run[0]:04d}-seed-{run[1]}.npz"


def _work_through(
    out: Path, tasks: "list[tuple[int, int]] | list[str]", plan: Plan, *, workers: int, device: str, say: Say
) -> None:
    for done, line in enumerate(_finished(out, list(tasks), plan, workers, device), 1):
        if line:
            say(f"{done}/{len(tasks)} {line}")


def _finished(out: Path, tasks: list[Task], plan: Plan, workers: int, device: str) -> Iterator[str]:
    """Run the tasks and yield a line for each as it ends; the first failure ends the others."""
    if not tasks:
        return
    if workers == 1:
        for task in tasks:
            yield _run(out, task, plan, device)
        return
    # A forked child would inherit torch's thread pools in an unknown state.
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_become_worker)
    with pool:
        pending: set[Future[str]] = {pool.submit(_run, out, task, plan, device) for task in tasks}
        try:
            while pending:
                ended, pending = wait(pending, return_when=FIRST_COMPLETED)
                for future in ended:
                    yield future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _become_worker() -> None:
    """One thread, and an end with the parent: a pool's processes outlive a parent that was killed."""
    torch.set_num_threads(1)
    parent = parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)

    Thread(target=follow, daemon=True).start()


def _run(out: Path, task: Task, plan: Plan, device: str) -> str:
    """Train one model and write what is asked of it; returns a line about it, empty if it was there already."""
    if isinstance(task, str):
        return _train_full(out, plan, device)
    return _train_subset(out, task, plan, device)


def _train_full(out: Path, plan: Plan, device: str) -> str:
    rank = plan.recipe.rank
    made = out / (PIPELINE if rank is None else LORA)
    if made.is_dir():
        return ""
    images = torch.from_numpy(read_arrays(out / WORKS, ("images",))["images"])
    steps = plan.recipe.full_steps
    parts = plan.checkpoints + 1
    kept = {steps * part // parts for part in range(1, parts)} - {0, steps}

    def save(network: torch.nn.Module, path: Path) -> None:
        if rank is None:
            save_pipeline(network, path)
        else:
            save_lora(network, path, rank)

    def keep(step: int, network: torch.nn.Module) -> None:
        if step in kept:
            save(network, out / CHECKPOINTS / f"step-{step:06d}")

    seed = seed_of(plan.seed, "full model")
    network = train(
        images, plan.recipe, seed=seed, steps=steps, device=device, base=_base(out, plan), report=keep
    )
    save(network, made)
    trained = sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
    return f"full model of {trained:,} trained parameters, {steps} steps"


def _base(out: Path, plan: Plan) -> Path | None:
    """The network under the LoRAs, as it was copied."""
    return None if plan.recipe.rank is None else out / PIPELINE


def _train_subset(out: Path, run: tuple[int, int], plan: Plan, device: str) -> str:
    subset, seed = run
    members = _members(out, plan)[subset]
    images = torch.from_numpy(read_arrays(out / WORKS, ("images",))["images"][members])
    queries = torch.from_numpy(read_arrays(out / QUERIES, ("images",))["images"])
    network = train(
        images,
        plan.recipe,
        seed=seed_of(plan.seed, "subset model", seed),
        device=device,
        base=_base(out, plan),
    )
    losses = simple_losses(network, queries, plan.losses).numpy()
    if not np.isfinite(losses).all():
        raise DasError(
            f"The model of subset {subset}, seed {seed} diverged. Use a smaller learning rate than "
            f"{plan.recipe.learning_rate}, in a new directory."
        )
    write_arrays(_result(out, run), {"losses": losses})
    return f"subset {subset}, seed {seed}: mean loss {losses.mean():.4f}"


def save_pipeline(network: Any, path: Path) -> None:
    """A DDPMPipeline directory, there whole or not at all."""
    from diffusers import DDPMPipeline
    from diffusers.utils import logging

    # Its bars would run into our own lines.
    logging.disable_progress_bar()
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(partial, ignore_errors=True)
    DDPMPipeline(unet=network, scheduler=new_scheduler()).save_pretrained(partial)
    shutil.rmtree(path, ignore_errors=True)
    partial.rename(path)
