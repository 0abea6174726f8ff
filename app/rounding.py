"""Shares as the operator lets them be told: rounded, and below a floor not at all.

Whoever may ask often adds up what they are told. So all that is told of a share follows from the share as it is told:
its interval, and how many times it exceeds another. Scores are in exact proportion to shares, and aren't told at all.
Sentences are made of what is told and of nothing else; policies decide by the exact values.
"""

import math
from collections.abc import Callable

from pydantic import BaseModel, ConfigDict, Field

from app.language import ENGLISH, Language
from jobs.models import JsonObject
from jobs.record_settings import RecordSettings

DIGITS = 9
"""Decimals of what was rounded: what adding floats up leaves below it isn't told."""
_NOISE = 1e-9
"""What is a multiple but for the noise of dividing is one."""

Interval = Callable[[float], tuple[float, float]]
"""From an exact share to the ends of its interval, neither of which falls where the share rises."""


class Rounding(BaseModel):
    """How the shares of an answer are told."""

    model_config = ConfigDict(frozen=True)

    step: float | None = Field(
        description="Works' shares are multiples of this, intervals widened to such; null: they aren't rounded."
    )
    groups: float = Field(
        description="Groups' shares are multiples of this, which isn't below `floor`: the share of a work that isn't"
        " told can't be had by taking the others from its group's."
    )
    floor: float = Field(description="A share below this is null; 0.01 is 1 %.")

    @classmethod
    def of(cls, settings: RecordSettings) -> "Rounding | None":
        """What the operator has set; None for shares as they were measured."""
        return cls.by(settings.share_step, settings.share_floor)

    @classmethod
    def by(cls, step: float | None, floor: float | None) -> "Rounding | None":
        """With this step and at least this floor; None where there is neither."""
        if step is None:
            return None if floor is None else cls(step=None, groups=floor, floor=floor)
        # The floor is where a share is rounded up to the next multiple: anywhere else, it would tell on which side of
        # it a share lies that is rounded to the same as those on the other.
        lowest = max(1, math.ceil((floor or 0.0) / step + 0.5 - _NOISE))
        # Of an odd multiple that is so as well, and a group of one work tells no more of it than the work.
        groups = lowest + 1 - lowest % 2
        return cls(step=step, groups=_told(groups * step), floor=_told((lowest - 0.5) * step))

    @property
    def tag(self) -> str:
        """Tells answers that are rounded so from others, in an ETag."""
        return f".r{self.step or 0:g}-{self.groups:g}-{self.floor:g}"

    def share(self, exact: float) -> float | None:
        """A work's share as it is told; None for one below the floor."""
        return self._rounded(exact, self.step)

    def of_group(self, exact: float) -> float | None:
        """A group's share as it is told; None for one below the floor."""
        return self._rounded(exact, self.groups)

    def work(self, part: JsonObject, interval: Interval | None) -> JsonObject:
        """A place of an answer, with its share as it is told."""
        share = self.share(float(part["share"]))
        return {**part, "score": None, **self._beside(part, share, self.step or 0.0, interval)}

    def group(self, part: JsonObject, interval: Interval | None) -> JsonObject:
        """A group of an answer, with its share as it is told."""
        share = self.of_group(float(part["share"]))
        told = {**part, **self._beside(part, share, self.groups, interval)}
        if part.get("factor") is not None:
            part_of_index = part["share_of_index"]
            told["factor"] = share / part_of_index if share is not None and part_of_index else None
        return told

    def _rounded(self, exact: float, step: float | None) -> float | None:
        if exact < self.floor:
            return None
        return (
            exact if step is None else min(1.0, _told(max(1, math.floor(exact / step + 0.5 + _NOISE)) * step))
        )

    def _beside(
        self, part: JsonObject, share: float | None, step: float, interval: Interval | None
    ) -> JsonObject:
        """What is told of a share beside it; `interval` is None where the index's isn't known any more."""
        low = high = None
        measured = part.get("low") is not None and part.get("high") is not None
        if measured and share is not None and interval is not None:
            # That of every share that is told so, and further in whole steps.
            low = interval(max(0.0, share - step / 2))[0]
            high = interval(min(1.0, share + step / 2))[1]
            if step:
                low = _told(math.floor(low / step + _NOISE) * step)
                high = min(1.0, _told(math.ceil(high / step - _NOISE) * step))
            low = low if low >= self.floor else 0.0
        return {"share": share, "below": self.floor if share is None else None, "low": low, "high": high}

    def note(self, language: Language = ENGLISH) -> str:
        """What has to be said beside such shares."""
        floor, groups = exactly(self.floor, language), exactly(self.groups, language)
        if self.step is None:
            return language("note.floor", floor=floor, groups=groups)
        step = exactly(self.step, language)
        return language("note.rounded", step=step, groups=groups, floor=floor)


def exactly(share: float, language: Language = ENGLISH) -> str:
    """A step or a floor in percent, as it was set."""
    written = f"{100 * share:.6g}"
    return language.percents(float(written), len(written.partition(".")[2]))


def _told(value: float) -> float:
    return round(value, DIGITS)
