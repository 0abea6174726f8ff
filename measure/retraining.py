"""Full models trained again without some of the works: same start, same noises, same length."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from das.durable import write_file
from das.errors import SettingsError
from measure.courses import stream_of
from measure.fleet import train
from measure.plan import PLAN
from measure.training import Recipe, new_scheduler, sample, seed_of, start_of
from measure.truth import GroundTruth


@dataclass(frozen=True)
class Retrainer:
    """Trains the full model of a ground truth again, as its `plan.json` says, and keeps the weights in `cache`."""

    truth: GroundTruth
    plan: dict[str, Any]
    recipe: Recipe
    cache: Path

    @classmethod
    def of(cls, truth: GroundTruth, cache: Path | None = None) -> "Retrainer":
        """Read how the full model was trained.

        Raises:
            SettingsError: the ground truth doesn't say, because it wasn't made by `das evaluate truth`.
        """
        path = truth.directory / PLAN
        if not path.is_file():
            raise SettingsError(
                f"{truth.directory} has no {PLAN}, so its model can't be trained again."
                " Make a ground truth with: das evaluate truth."
            )
        plan = json.loads(path.read_text())
        recipe = Recipe(**{**plan["recipe"], "widths": tuple(plan["recipe"]["widths"])})
        return cls(truth, plan, recipe, cache or truth.directory / "retrained")

    @property
    def device(self) -> str:
        """Where the full model was trained; elsewhere other numbers would come out."""
        return str(self.plan["device"])

    @property
    def base(self) -> Path | None:
        """The pipeline under the LoRA; None where the whole network is trained."""
        return None if self.recipe.rank is None else self.truth.pipeline

    def full(self) -> nn.Module:
        """The network of the full model, from the ground truth."""
        return self.truth.model(device=self.device).network

    def without(self, removed: np.ndarray) -> nn.Module:
        """The network trained on all works but those in the rows `removed` (n,); from the cache if it is there.

        Raises:
            SettingsError: no work would be left.
        """
        kept = np.ones(len(self.truth.works), bool)
        kept[removed] = False
        if not kept.any():
            raise SettingsError("Removing every work leaves nothing to train on.")
        path = self.cache / f"{hashlib.sha256(np.packbits(kept).tobytes()).hexdigest()[:24]}.pt"
        if path.is_file():
            network, _ = start_of(self.truth.works.shape[1:], self.recipe, self.base)
            network.load_state_dict(torch.load(path, weights_only=True))
            return network.to(self.device).eval()
        network = train(
            torch.from_numpy(self.truth.works),
            self.recipe,
            stream=stream_of(np.flatnonzero(kept), self.truth.repeats),
            seed=seed_of(self.plan["seed"], "full model"),
            steps=self.recipe.full_steps,
            device=self.device,
            base=self.base,
        )
        write_file(path, lambda stream: torch.save(network.state_dict(), stream))
        return network

    def regenerate(self, network: nn.Module) -> Tensor:
        """What a network makes of the noises that the generated queries came from, (n, C, H, W)."""
        shape = (int(self.plan["generated"]), *self.truth.works.shape[1:])
        return sample(
            network,
            new_scheduler(),
            shape,
            seed=seed_of(self.plan["seed"], "generated"),
            steps=int(self.plan["sampling_steps"]),
        )

    def generated(self) -> np.ndarray:
        """Places of the generated queries among the queries, in the order of `regenerate`.

        Raises:
            SettingsError: there are none.
        """
        places = self.truth.queries_of("generated")
        if not len(places):
            raise SettingsError(f"{self.truth.directory} has no generated queries to generate again.")
        return places
