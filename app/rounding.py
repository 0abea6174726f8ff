"""Shares as the operator lets them be told: rounded, and below a floor not at all.

A score is in proportion to its share, so that it is told as coarsely. Sentences are made of what is told and of
nothing else; policies decide by the exact values.
"""

import math

from pydantic import BaseModel, ConfigDict, Field

from app.language import ENGLISH, Language
from jobs.models import JsonObject
from jobs.record_settings import RecordSettings

DIGITS = 9
"""Decimals of what was rounded: what adding floats up leaves below it isn't told."""


class Rounding(BaseModel):
    """How the shares of an answer are told."""

    model_config = ConfigDict(frozen=True)

    step: float | None = Field(
        description="Shares are multiples of this, intervals widened to such; null: they aren't rounded."
    )
    floor: float = Field(description="A share below this is null, and so is its score; 0.01 is 1 %.")

    @classmethod
    def of(cls, settings: RecordSettings) -> "Rounding | None":
        """What the operator has set; None for shares as they were measured."""
        step, floor = settings.share_step, settings.share_floor
        if step is None and floor is None:
            return None
        # What would be rounded to nothing isn't nothing.
        return cls(step=step, floor=max(step or 0.0, floor or 0.0))

    @property
    def tag(self) -> str:
        """Tells answers that are rounded so from others, in an ETag."""
        return f".r{self.step or 0:g}-{self.floor:g}"

    def share(self, exact: float) -> float | None:
        """A share as it is told; None for one below the floor."""
        if exact < self.floor:
            return None
        return exact if self.step is None else min(1.0, _told(round(exact / self.step) * self.step))

    def low(self, exact: float | None) -> float | None:
        """The lower end of an interval: further down, to 0 below the floor."""
        if exact is None or self.step is None:
            return exact if exact is None or exact >= self.floor else 0.0
        # What is a multiple but for the noise of dividing stays one.
        below = math.floor(exact / self.step + 1e-9) * self.step
        return _told(below) if exact >= self.floor else 0.0

    def high(self, exact: float | None) -> float | None:
        """The upper end of an interval: further up."""
        if exact is None:
            return None
        up = exact if self.step is None else min(1.0, _told(math.ceil(exact / self.step - 1e-9) * self.step))
        return max(up, self.floor)

    def one(self, part: JsonObject) -> JsonObject:
        """A place or a group of an answer, with its share as it is told."""
        exact = float(part["share"])
        share = self.share(exact)
        known = part.get("low") is not None and part.get("high") is not None and share is not None
        told = {
            **part,
            "share": share,
            "below": self.floor if share is None else None,
            "low": self.low(part["low"]) if known else None,
            "high": self.high(part["high"]) if known else None,
        }
        if "score" in part:
            told["score"] = None if share is None else part["score"] * (share / exact)
        if part.get("factor") is not None:
            part_of_index = part["share_of_index"]
            told["factor"] = share / part_of_index if share is not None and part_of_index else None
        return told

    def note(self, language: Language = ENGLISH) -> str:
        """What has to be said beside such shares."""
        floor = exactly(self.floor, language)
        if self.step is None:
            return language("note.floor", floor=floor)
        return language("note.rounded", step=exactly(self.step, language), floor=floor)


def exactly(share: float, language: Language = ENGLISH) -> str:
    """A step or a floor in percent, as it was set."""
    written = f"{100 * share:.6g}"
    return language.percents(float(written), len(written.partition(".")[2]))


def _told(value: float) -> float:
    return round(value, DIGITS)
