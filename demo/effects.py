"""What the demo's samples really owe to each photograph, kept from `das demo truth`: small enough to lie here."""

import json
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from das.durable import write_bytes
from das.errors import DasError
from demo.home import ASSETS

if TYPE_CHECKING:
    from measure.groups import GroupTruth

EFFECTS = ASSETS / "effects.json"
NORMAL_95 = 1.96
DIGITS = 7


@dataclass(frozen=True)
class SampleEffects:
    """How much more the loss of each sample is without each photograph, by seed.

    Attributes:
        photographs: P names.
        planted: whether a part is a planted crop, (G,).
        photograph_of: the photograph of each part, (G,) places in `photographs`.
        samples: Q file names.
        by_seed: (G, S, Q).
    """

    photographs: tuple[str, ...]
    planted: np.ndarray
    photograph_of: np.ndarray
    samples: tuple[str, ...]
    by_seed: np.ndarray

    @cached_property
    def of_photographs(self) -> np.ndarray:
        """(P, S, Q), each photograph's planted crop included."""
        member = np.arange(len(self.photographs))[:, None] == self.photograph_of
        return np.asarray(np.einsum("pg,gsq->psq", member, self.by_seed))

    @cached_property
    def errors(self) -> np.ndarray:
        """Standard error of a photograph's effect on each sample, pooled over photographs, (Q,)."""
        seeds = self.of_photographs.shape[1]
        return np.asarray(np.sqrt(self.of_photographs.var(1, ddof=1).mean(0) / seeds))

    def first(self, sample: str) -> str:
        """The photograph whose absence raises the loss of a sample most."""
        return self.photographs[int(self.of_photographs.mean(1)[:, self._place(sample)].argmax())]

    def is_significant(self, sample: str) -> bool:
        """Whether the first photograph leads the second by more than chance explains, in 95 % of cases."""
        place = self._place(sample)
        second, first = np.sort(self.of_photographs.mean(1)[:, place])[-2:]
        return bool(first - second > NORMAL_95 * math.sqrt(2) * self.errors[place])

    def seeds_agree(self) -> tuple[int, int]:
        """On how many samples, and of how many, the last seed's first photograph is that of the others' mean."""
        others = self.of_photographs[:, :-1].mean(1).argmax(0)
        last = self.of_photographs[:, -1].argmax(0)
        return int((others == last).sum()), len(self.samples)

    def planted_first(self, samples: list[str]) -> int:
        """On how many of the samples a planted crop has more effect than any other part."""
        places = [self._place(sample) for sample in samples]
        return int(self.planted[self.by_seed.mean(1)[:, places].argmax(0)].sum())

    def _place(self, sample: str) -> int:
        return self.samples.index(sample)


def read_effects(path: Path = EFFECTS) -> SampleEffects:
    """The effects that the package carries, or others.

    Raises:
        DasError: the file isn't one of effects.
    """
    try:
        kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        photographs = tuple(kept["photographs"])
        return SampleEffects(
            photographs=photographs,
            planted=np.array([part["planted"] for part in kept["parts"]]),
            photograph_of=np.array([photographs.index(part["photograph"]) for part in kept["parts"]]),
            samples=tuple(kept["effects"]),
            by_seed=np.array(list(kept["effects"].values())).transpose(1, 2, 0),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DasError(f"{path} holds no effects of the demo's photographs: {error!r}") from error


def write_effects(path: Path, truth: "GroupTruth", plan: dict[str, Any], names: list[str]) -> None:
    """Keep the effects on the samples of a truth that `das demo truth` made.

    Args:
        names: of the truth's queries, in its order.
    """
    from demo.photographs import PHOTOGRAPHS
    from demo.truth import part_names

    photographs = [photograph.name for photograph in PHOTOGRAPHS]
    parts = [
        {"part": name, "photograph": name.split("-")[0], "planted": name not in photographs}
        for name in part_names()
    ]
    effects = truth.loss_effects()
    kept = {
        name: [[round(float(value), DIGITS) for value in part] for part in effects[:, :, place]]
        for place, name in enumerate(names)
        if truth.kinds[place] == "generated"
    }
    text = json.dumps({"plan": plan, "photographs": photographs, "parts": parts, "effects": kept})
    # A line for each sample: what changed is seen.
    write_bytes(path, text.replace('"generation-', '\n"generation-').encode() + b"\n")


def interval(hits: int, of: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a part."""
    part, square = hits / of, NORMAL_95**2
    centre = (part + square / (2 * of)) / (1 + square / of)
    width = NORMAL_95 * math.sqrt(part * (1 - part) / of + square / (4 * of**2)) / (1 + square / of)
    return max(0.0, centre - width), min(1.0, centre + width)
