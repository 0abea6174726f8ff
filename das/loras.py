"""How a LoRA is named by a user: where it is, and how strongly it counts. Loads nothing."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from das.errors import SettingsError

_WEIGHT = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


@dataclass(frozen=True)
class LoraChoice:
    """A LoRA and its weight.

    Attributes:
        source: a file, a directory or a hub id.
        weight: what its output is multiplied by; 1 as it was trained.
    """

    source: str
    weight: float = 1.0

    @classmethod
    def parse(cls, text: str) -> "LoraChoice":
        """`SOURCE` or `SOURCE:WEIGHT`: what stands behind the last colon is a weight if it is a number.

        A file or directory that is there under the whole text is that one, with the weight 1; so is a text whose
        last colon isn't followed by a number, such as `C:\\loras\\a.safetensors`.

        Raises:
            SettingsError: there is no source, or the weight is none that can be computed with.
        """
        source, colon, last = text.rpartition(":")
        if not text.strip():
            raise SettingsError("--lora is empty; give a file, a directory or a hub id.")
        try:
            there = Path(text).exists()
        except (OSError, ValueError):
            there = False
        if not colon or there or not _WEIGHT.fullmatch(last):
            return cls(text)
        weight = float(last)
        if not source or not math.isfinite(weight) or weight == 0:
            raise SettingsError(
                f"--lora is {text!r}; the weight behind the colon is a number other than 0, such as"
                " file.safetensors:0.8."
            )
        return cls(source, weight)

    def __str__(self) -> str:
        return self.source if self.weight == 1.0 else f"{self.source}:{self.weight:g}"


Loras = str | LoraChoice | Sequence[str | LoraChoice] | None
"""One LoRA or several; a text is read as `LoraChoice.parse` reads it."""


def choices(loras: Loras) -> tuple[LoraChoice, ...]:
    """All of them as choices; raises SettingsError for one that is named twice."""
    given = () if loras is None else (loras,) if isinstance(loras, str | LoraChoice) else tuple(loras)
    found = tuple(LoraChoice.parse(one) if isinstance(one, str) else one for one in given)
    sources = [one.source for one in found]
    if doubled := next((source for source in sources if sources.count(source) > 1), None):
        raise SettingsError(
            f"The LoRA {doubled!r} is given twice; give it once, with the sum of its weights."
        )
    return found


def adapter_names(count: int) -> list[str]:
    """The LoRAs' names in the parameters' names: `lora_A.default.weight`, or `lora_A.lora1.weight` of several."""
    return ["default"] if count == 1 else [f"lora{number}" for number in range(1, count + 1)]
