"""The plan of a ground truth: everything that changes its numbers, and the file that holds a directory to it."""

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from das.durable import is_partial, write_bytes
from das.errors import SettingsError
from measure.training import LossConfig, Recipe, seed_of

PLAN = "plan.json"


@dataclass(frozen=True)
class Draw:
    """Which works and queries are drawn, and how models are trained on them and asked.

    Attributes:
        size: side that pictures are resized to, by averaging areas; None keeps theirs.
        count: N, works drawn from the npz; None takes all.
        validation, generated: queries of each kind.
        seeds: models for each set of works.
        sampling_steps: DDIM steps of the generated queries.
        seed: of everything that is drawn.
    """

    size: int | None = None
    count: int | None = None
    validation: int = 100
    generated: int = 100
    seeds: int = 2
    sampling_steps: int = 100
    seed: int = 0
    recipe: Recipe = field(default_factory=Recipe)
    losses: LossConfig = field(default_factory=LossConfig)

    def __post_init__(self) -> None:
        for name in ("validation", "generated"):
            if getattr(self, name) < 0:
                raise SettingsError(f"{name} must not be negative; it is {getattr(self, name)}.")
        for name in ("seeds", "sampling_steps"):
            if getattr(self, name) < 1:
                raise SettingsError(f"{name} must be at least 1, not {getattr(self, name)}.")
        if self.validation + self.generated < 1:
            raise SettingsError("There must be a query: validation or generated.")

    def describe(self) -> dict[str, Any]:
        """As plain JSON values; a plan without a LoRA says nothing of one."""
        described: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        if self.recipe.rank is None:
            del described["recipe"]["rank"]
        return described


@dataclass(frozen=True)
class Plan(Draw):
    """Everything that changes the numbers of a ground truth of random subsets.

    Attributes:
        subsets: M; each holds `share` of the works.
        repeated: the first subsets, which alone get the later seeds (for the ceiling).
        repeats: pairs of a number of repeats and how many works are shown so often in an epoch; the others once.
        checkpoints: snapshots of the full model on its way, for TracInCP and GAS.
    """

    subsets: int = 36
    share: float = 0.5
    repeated: int = 12
    repeats: tuple[tuple[int, int], ...] = ()
    checkpoints: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("repeated", "checkpoints"):
            if getattr(self, name) < 0:
                raise SettingsError(f"{name} must not be negative; it is {getattr(self, name)}.")
        if self.subsets < 1:
            raise SettingsError(f"subsets must be at least 1, not {self.subsets}.")
        if not 0 < self.share < 1:
            raise SettingsError(f"share must lie between 0 and 1, not {self.share}.")
        if any(times < 1 or works < 1 for times, works in self.repeats):
            raise SettingsError("repeats must be pairs of numbers from 1 up: how often, and how many works.")

    def runs(self) -> list[tuple[int, int]]:
        """Subset and seed of every model: all subsets with the first seed, then the repetitions."""
        later = [(m, s) for s in range(1, self.seeds) for m in range(min(self.repeated, self.subsets))]
        return [(m, 0) for m in range(self.subsets)] + later

    def members(self, works: int) -> np.ndarray:
        """Which of the works each subset holds, (M, N) bool.

        Raises:
            SettingsError: the share of so many works is none or all.
        """
        size = round(self.share * works)
        if not 0 < size < works:
            raise SettingsError(f"A share of {self.share} of {works} works is none or all.")
        members = np.zeros((self.subsets, works), bool)
        for subset in range(self.subsets):
            chosen = np.random.default_rng(seed_of(self.seed, "subset", subset)).permutation(works)[:size]
            members[subset, chosen] = True
        return members

    def repeats_of(self, works: int) -> np.ndarray:
        """How often one epoch shows each of the works, (N,) int64; which are repeated is drawn.

        Raises:
            SettingsError: more works are to be repeated than there are.
        """
        repeated = sum(count for _, count in self.repeats)
        if repeated > works:
            raise SettingsError(f"{repeated} works are to be repeated, and there are {works}.")
        values = np.repeat([times for times, _ in self.repeats], [count for _, count in self.repeats])
        repeats = np.ones(works, np.int64)
        order = np.random.default_rng(seed_of(self.seed, "repeats")).permutation(works)
        repeats[order[:repeated]] = values
        return repeats


def claim(out: Path, plan: dict[str, Any]) -> None:
    """Write what a plan describes and what else its numbers depend on, or compare with what is there.

    Raises:
        SettingsError: the directory was begun with another plan, or holds something else.
    """
    path = out / PLAN
    if not path.is_file():
        if not all(is_partial(path.name) for path in out.iterdir()):
            raise SettingsError(f"{out} is not empty and holds no {PLAN}; name a new directory.")
        write_bytes(path, (json.dumps(plan, indent=2) + "\n").encode())
        return
    before = json.loads(path.read_text())
    changed = sorted(name for name in before.keys() | plan.keys() if before.get(name) != plan.get(name))
    if changed:
        told = "; ".join(f"{name} was {before.get(name)}, now {plan.get(name)}" for name in changed)
        raise SettingsError(f"{out} was begun with another plan: {told}. Name a new directory.")
