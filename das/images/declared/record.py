"""The record of what a picture says of itself, and the bounds that hostile text is brought within."""

import math
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, TypeVar

MAX_PROMPT = 4_000
"""Characters of a prompt, as many as a request may give; text encoders read a few hundred words."""
MAX_NAME = 200
"""Characters of a tool, a sampler, a model or a LoRA."""
MAX_LORAS = 20
MAX_SEED = 2**64 - 1
MAX_STEPS = 100_000
MAX_BLOCK = 1_000_000
"""Characters of one block of metadata; a longer one is left unread. Pillow unpacks no more, either."""

_HASH = re.compile(r"(?:0x)?([0-9a-f]{8,64})", re.IGNORECASE)
_EXTRA_NETWORK = re.compile(r"<(?:lora|lyco|hypernet):[^<>]{1,300}>", re.IGNORECASE)
_LORA_IN_PROMPT = re.compile(
    r"<(?:lora|lyco):([^<>:]{1,200})(?::([^<>:]{1,20}))?[^<>]{0,200}>", re.IGNORECASE
)
_WEIGHED = re.compile(r"(?<!\\)\(((?:[^()\\]|\\.){1,1000}?):\s*[-+]?(?:\d{1,3}(?:\.\d{0,9})?|\.\d{1,9})\s*\)")
_ESCAPED = re.compile(r"\\([()\[\]{}])")
_BRACKETS = re.compile(r"[()\[\]{}]")
_MOST_NESTED = 10
_KEPT_CONTROLS = "\n\t"

Value = TypeVar("Value")


@dataclass(frozen=True)
class DeclaredLora:
    """A LoRA that the picture says was used."""

    name: str
    hash: str | None = None
    """The first 8 hex digits or more, lower case, of the file's SHA-256 or of its tensors'."""
    weight: float | None = None


@dataclass(frozen=True)
class Declared:
    """What a picture says of how it was made: a claim, written by whoever wrote the file. None: not said.

    Every text is printable, within its bound, and plain text: never markup.
    """

    source: str
    """Which part of the file says it, such as "PNG text parameters"."""
    tool: str | None = None
    prompt: str | None = None
    negative_prompt: str | None = None
    seed: int | None = None
    """0 to 2⁶⁴ - 1."""
    steps: int | None = None
    sampler: str | None = None
    guidance: float | None = None
    model: str | None = None
    model_hash: str | None = None
    """Hex digits, lower case, at least 8: the beginning of the SHA-256 of the checkpoint's file."""
    loras: tuple[DeclaredLora, ...] = ()
    ai_generated: bool | None = None
    """True: a C2PA manifest says that a trained model made it; None: nothing is said."""
    cut: tuple[str, ...] = ()
    """The fields that were longer than their bound."""

    @property
    def told(self) -> bool:
        """Whether anything is said at all."""
        return any(
            getattr(self, field.name) not in (None, ()) for field in fields(self) if field.name != "source"
        )

    @property
    def asked_prompt(self) -> str | None:
        """The prompt as a text encoder gets it: without `<lora:…>` and the like, which are orders to the tool, and
        without weights and escapes, which tell it how much a word counts and which brackets are text.
        """
        return None if self.prompt is None else without_weights(without_tags(self.prompt))

    @property
    def bracketed(self) -> bool:
        """Whether the prompt has brackets, by which programs weigh words or choose among them."""
        return self.prompt is not None and bool(_BRACKETS.search(without_tags(self.prompt)))

    def as_json(self) -> dict[str, Any]:
        """As plain values, which `declared_from` reads."""
        return {**asdict(self), "loras": [asdict(lora) for lora in self.loras], "cut": list(self.cut)}


def declared(
    source: str,
    *,
    tool: object = None,
    prompt: object = None,
    negative_prompt: object = None,
    seed: object = None,
    steps: object = None,
    sampler: object = None,
    guidance: object = None,
    model: object = None,
    model_hash: object = None,
    loras: tuple[DeclaredLora, ...] = (),
    ai_generated: object = None,
) -> Declared | None:
    """The record of what was found, each value checked and brought within its bound; None if none can be used."""
    cut: list[str] = []

    def text(name: str, value: object, limit: int = MAX_NAME) -> str | None:
        if not isinstance(value, str):
            return None
        cleaned = clean(value)
        if len(cleaned) > limit:
            cut.append(name)
        return cleaned[:limit].strip()

    whole_prompt = clean(prompt) if isinstance(prompt, str) else ""
    found = Declared(
        source=clean(source)[:MAX_NAME],
        tool=text("tool", tool) or None,
        # An empty prompt is said as well: it was made from none.
        prompt=text("prompt", prompt, MAX_PROMPT),
        negative_prompt=text("negative_prompt", negative_prompt, MAX_PROMPT) or None,
        seed=whole(seed, MAX_SEED),
        steps=whole(steps, MAX_STEPS),
        sampler=text("sampler", sampler) or None,
        guidance=number(guidance),
        model=text("model", model) or None,
        model_hash=hash_of(model_hash),
        loras=with_weights(loras, whole_prompt)[:MAX_LORAS],
        ai_generated=True if ai_generated is True else None,
    )
    if len(loras) > MAX_LORAS:
        cut.append("loras")
    return replace(found, cut=tuple(cut)) if found.told else None


def declared_from(plain: object) -> Declared | None:
    """What `Declared.as_json` gave, checked as any other input is: it comes from a process that reads hostile files.

    Raises ValueError for what isn't of that form.
    """
    if plain is None:
        return None
    if not isinstance(plain, Mapping) or not isinstance(plain.get("source"), str):
        raise ValueError("what a picture says of itself isn't a record")
    loras = plain.get("loras", [])
    cut = plain.get("cut", [])
    if not isinstance(loras, list) or not isinstance(cut, list):
        raise ValueError("its LoRAs or its cuts aren't a list")
    taken = {
        field.name: plain.get(field.name)
        for field in fields(Declared)
        if field.name not in ("source", "loras", "cut")
    }
    made = [
        lora(one.get("name"), one.get("hash"), one.get("weight")) for one in loras if isinstance(one, dict)
    ]
    checked = declared(plain["source"], loras=tuple(one for one in made if one is not None), **taken)
    names = {field.name for field in fields(Declared)}
    return None if checked is None else replace(checked, cut=tuple(name for name in cut if name in names))


def lora(name: object, digest: object = None, weight: object = None) -> DeclaredLora | None:
    """A LoRA by its name, None if it has none."""
    if not isinstance(name, str) or not (cleaned := clean(name)[:MAX_NAME].strip()):
        return None
    return DeclaredLora(cleaned, hash_of(digest), number(weight))


def loras_of_prompt(prompt: str) -> tuple[DeclaredLora, ...]:
    """The LoRAs that a prompt calls by `<lora:name:weight>`."""
    found = (lora(name, None, weight) for name, weight in _LORA_IN_PROMPT.findall(prompt[:MAX_BLOCK]))
    return tuple({one.name: one for one in found if one is not None}.values())


def with_weights(loras: tuple[DeclaredLora, ...], prompt: str) -> tuple[DeclaredLora, ...]:
    """The LoRAs with the weights that the prompt gives them, and those that only the prompt names."""
    called = {one.name: one for one in loras_of_prompt(prompt)}
    named = {one.name for one in loras}
    weighed = tuple(
        replace(one, weight=called[one.name].weight) if one.weight is None and one.name in called else one
        for one in loras
    )
    return weighed + tuple(one for one in called.values() if one.name not in named)


def without_tags(prompt: str) -> str:
    """A prompt without the tags that call extra networks, and without the gaps that they leave."""
    left = _EXTRA_NETWORK.sub("", prompt)
    return prompt if left == prompt else re.sub(r"[ \t]{2,}", " ", left).strip(" \t\n,")


def without_weights(prompt: str) -> str:
    """A prompt with `(words:1.3)` as `words`, and `\\(` as `(`; brackets without a number stay: they may be text."""
    for _ in range(_MOST_NESTED):
        left = _WEIGHED.sub(r"\1", prompt)
        if left == prompt:
            break
        prompt = left
    return _ESCAPED.sub(r"\1", prompt)


def clean(text: str) -> str:
    """Text without control characters, lone surrogates, and marks that turn the writing's direction."""
    text = text[:MAX_BLOCK].replace("\r\n", "\n").replace("\r", "\n")
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        c
        for c in text
        if c in _KEPT_CONTROLS or (unicodedata.category(c) not in ("Cc", "Cs") and not _turns_direction(c))
    )


def _turns_direction(c: str) -> bool:
    return "\u202a" <= c <= "\u202e" or "\u2066" <= c <= "\u2069"


def whole(value: object, most: int) -> int | None:
    """A whole number from 0 to `most`, also written as text; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if isinstance(value, float):
        return int(value) if value.is_integer() and 0 <= value <= most else None
    if isinstance(value, str):
        digits = value.strip()
        if not (digits.isascii() and digits.isdigit()) or len(digits) > 20:
            return None
        value = int(digits)
    return value if 0 <= value <= most else None


def number(value: object) -> float | None:
    """A finite number, also written as text; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        found = float(value if not isinstance(value, str) else value.strip()[:40])
    except (ValueError, OverflowError):
        return None
    return found if math.isfinite(found) and abs(found) <= 1e6 else None


def hash_of(value: object) -> str | None:
    """8 to 64 hex digits, lower case; None for anything else, such as a BLAKE3 that says so."""
    if not isinstance(value, str):
        return None
    found = _HASH.fullmatch(value.strip()[:80].removeprefix("sha256:"))
    return found[1].lower() if found else None


def base_name(value: object) -> str | None:
    """The last part of a path, however its separators lean; None for what isn't text."""
    return value.replace("\\", "/").rstrip("/").rpartition("/")[2] if isinstance(value, str) else None
