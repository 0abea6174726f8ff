"""Ground truths of whole groups: what leaving out all works of one creator really changes.

A directory is one of `measure.truth` whose `works.npz` also has `groups` (N,), with `groups.npz` in the place of
`subsets.npz`: `without` (M, G) bool, the groups that each model lacks, none in the first row; `losses` (M, S, Q) of
seed and query; and `moved` (M, S, S, Q), `mean ⟨d_s, d_s'⟩` over points and pixels, where `d_s` is the change of the
model's prediction with seed s (Eq. 9). Off the diagonal the seeds' own noise cancels in the mean.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from das.device import check_device
from das.errors import SettingsError
from measure.courses import Course, course_of, stream_of
from measure.fleet import train
from measure.grouping import grouped
from measure.plan import Draw, claim
from measure.runs import Run, Say, Training, train_runs
from measure.source import Source
from measure.subsets import training_of, write_queries
from measure.training import save_pipeline, seed_of
from measure.truth import (
    PIPELINE,
    QUERIES,
    WORKS,
    Subject,
    load_subject,
    read_arrays,
    save_truth,
    write_arrays,
)

GROUPS = "groups.npz"


@dataclass(frozen=True)
class GroupPlan(Draw):
    """Everything that changes the numbers of a ground truth of groups.

    Attributes:
        alike, mixed: groups of works that look alike, and of works drawn at random.
    """

    alike: int = 16
    mixed: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.alike, self.mixed) < 0 or self.alike + self.mixed < 2:
            raise SettingsError("There must be two groups at least, alike or mixed.")


@dataclass(frozen=True)
class GroupTruth(Subject):
    """A validated ground truth of groups; the arrays are those of the module's text."""

    groups: np.ndarray
    without: np.ndarray
    losses: np.ndarray
    moved: np.ndarray

    def loss_effects(self) -> np.ndarray:
        """How much more each query's loss is without each group, by seed: (G, S, Q).

        Where every model lacks one group that is the difference to the model that lacks none; in general the
        least-squares fit of a sum of effects.
        """
        design = np.hstack([np.ones((len(self.without), 1)), self.without])
        flat = self.losses.reshape(len(design), -1).astype(np.float64)
        effects: np.ndarray = np.linalg.lstsq(design, flat, rcond=None)[0][1:]
        return effects.reshape(-1, *self.losses.shape[1:])

    def prediction_effects(self, seeds: slice = slice(None)) -> np.ndarray:
        """How far the prediction on each query moves without each group, `E‖ε_θ* - ε_θ\\G‖²` (Eq. 9): (G, Q).

        Of pairs of different seeds, so without bias; NaN for a group that no model lacks alone.

        Args:
            seeds: only these.
        """
        moved = self.moved[:, seeds, seeds]
        among = len(moved[0])
        pairs = moved[:, ~np.eye(among, dtype=bool)].mean(1) if among > 1 else moved[:, 0, 0]
        found = np.full((self.without.shape[1], self.moved.shape[-1]), np.nan)
        alone = np.flatnonzero(self.without.sum(1) == 1)
        found[self.without[alone].argmax(1)] = pairs[alone]
        return found


def make_groups(
    source: Source,
    out: Path,
    plan: GroupPlan,
    *,
    workers: int = 1,
    device: str = "cpu",
    say: Say = lambda text: None,
) -> GroupTruth:
    """Make a ground truth of groups in `out`, or go on with it; a finished one is kept as those of subsets are.

    Raises:
        SettingsError: the plan can't be followed with these pictures, `out` was begun with another plan, or the
            device isn't there.
    """
    if plan.recipe.rank is not None:
        raise SettingsError("A ground truth of groups takes whole networks, no LoRA.")
    if not (out / GROUPS).is_file():
        check_device(device)
    out.mkdir(parents=True, exist_ok=True)
    claim(out, {**plan.describe(), "device": device, "source": source.digest()})
    if not (out / WORKS).is_file():
        works = source.works(plan)
        groups = grouped(works["images"], plan.alike, plan.mixed, seed_of(plan.seed, "groups"))
        save_truth(out, works=works | {"groups": groups})
    seeds = [seed_of(plan.seed, "group model", number) for number in range(plan.seeds)]
    if not (out / PIPELINE).is_dir():
        images = torch.from_numpy(read_arrays(out / WORKS, ("images",))["images"])
        steps = plan.recipe.full_steps
        save_pipeline(train(images, plan.recipe, seed=seeds[0], steps=steps, device=device), out / PIPELINE)
        say(f"full model, {steps} steps")
    if not (out / QUERIES).is_file():
        write_queries(source, out, plan, device)
    if (out / GROUPS).is_file():
        return load_groups(out)
    groups = read_arrays(out / WORKS, ("groups",))["groups"]
    alone = [np.array([], np.int64), *np.arange(groups.max() + 1)[:, None]]
    leave_out(
        out, partial(_training, out, plan), groups, alone, seeds, workers=workers, device=device, say=say
    )
    return load_groups(out)


def leave_out(
    out: Path,
    make: Callable[[], Training],
    groups: np.ndarray,
    sets: Sequence[np.ndarray],
    seeds: Sequence[int],
    *,
    attributed: Path | None = None,
    workers: int = 1,
    device: str = "cpu",
    say: Say = lambda text: None,
) -> None:
    """Train a model without each set of groups for each seed, and write `groups.npz`.

    Args:
        groups: (N,), the group of each work.
        sets: M sets of groups; the first is empty.
        attributed: where the first of the models that lack nothing is saved as a pipeline; None: nowhere.
    """
    runs = [
        [
            Run(
                _name(lacking, number),
                seed,
                np.flatnonzero(~np.isin(groups, lacking)),
                pipeline=None if len(lacking) or number else attributed,
            )
            for number, seed in enumerate(seeds)
        ]
        for lacking in sets
    ]
    every = [run for of_set in runs for run in of_set]
    train_runs(out, make, every, predictions=True, workers=workers, device=device, say=say)
    without = np.stack([np.isin(np.arange(groups.max() + 1), lacking) for lacking in sets])
    full = [run.predictions(out) for run in runs[0]]
    moved = np.stack([_moved(full, [run.predictions(out) for run in of_set], device) for of_set in runs])
    losses = np.stack([[run.losses(out) for run in of_set] for of_set in runs])
    write_arrays(out / GROUPS, {"without": without, "losses": losses, "moved": moved})


def load_groups(directory: Path) -> GroupTruth:
    """Read and check a ground truth of groups.

    Raises:
        SettingsError: a file is missing or damaged, or shapes contradict each other.
    """
    subject = load_subject(directory)
    queries = len(subject.queries)
    groups = read_arrays(directory / WORKS, ("groups",))["groups"]
    if groups.shape != (len(subject.works),) or groups.dtype.kind not in "iu" or groups.min() < 0:
        raise SettingsError(f"{directory / WORKS}: groups must number a group for each of the works.")
    arrays = read_arrays(directory / GROUPS, ("without", "losses", "moved"))
    without, losses, moved = arrays["without"], arrays["losses"], arrays["moved"]
    models, seeds = losses.shape[:2]
    if without.shape != (models, groups.max() + 1) or without[0].any():
        raise SettingsError(
            f"{directory / GROUPS}: without must have a row for each model, the first all False."
        )
    if losses.shape != (models, seeds, queries) or moved.shape != (models, seeds, seeds, queries):
        raise SettingsError(f"{directory / GROUPS}: losses and moved don't fit the {queries} queries.")
    return GroupTruth(**vars(subject), groups=groups, without=without, losses=losses, moved=moved)


def _training(out: Path, plan: GroupPlan) -> Training:
    """How the models are trained: as many steps for a work as in the full model."""
    works = len(read_arrays(out / WORKS, ("images",))["images"])

    def course(seed: int, kept: np.ndarray) -> Course:
        steps = round(plan.recipe.full_steps * len(kept) / works)
        return course_of(plan.recipe, stream_of(kept), seed=seed, steps=steps)

    return training_of(out, plan, course)


def _name(lacking: np.ndarray, seed: int) -> str:
    without = "-".join(f"{group:03d}" for group in lacking) or "none"
    return f"without-{without}-seed-{seed}"


def _moved(full: list[np.ndarray], less: list[np.ndarray], device: str) -> np.ndarray:
    """`mean ⟨d_s, d_s'⟩` of predictions (P, Q, C, H, W) of each seed: (S, S, Q) float32."""

    def flat(predictions: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(predictions).to(device).float().transpose(0, 1).flatten(1)

    changes = torch.stack([flat(b) - flat(a) for a, b in zip(full, less, strict=True)])
    products = torch.einsum("sqd,tqd->stq", changes, changes) / changes.shape[-1]
    return products.cpu().numpy()
