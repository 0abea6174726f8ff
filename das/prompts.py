"""Prompts that are longer than a model's text encoders take: where they are cut, and what is said of it."""

from collections.abc import Iterable
from typing import Any

PROMPT_TOO_LONG = "The prompt is longer than the model takes: only its first {tokens} tokens reach it."


def cut_at(model: Any, prompt: str | None) -> int | None:
    """How many tokens of a prompt's beginning reach the model, where not all do; None: all, or it can't tell."""
    tell = getattr(model, "cut_at", None)
    found: int | None = tell(prompt) if tell is not None and prompt else None
    return found


def notes_of_length(model: Any, prompt: str | None) -> list[str]:
    """What an answer has to say of how long its prompt is."""
    tokens = cut_at(model, prompt)
    return [] if tokens is None else [PROMPT_TOO_LONG.format(tokens=tokens)]


def remark_on(model: Any, prompts: Iterable[str | None]) -> str | None:
    """What a build has to say of its works' prompts; None: nothing."""
    given = list(prompts)
    known: dict[str | None, int | None] = {}
    for prompt in given:
        if prompt not in known:
            known[prompt] = cut_at(model, prompt)
    cut = [tokens for prompt in given if (tokens := known[prompt]) is not None]
    if not cut:
        return None
    return (
        f"{len(cut):,} of {len(given):,} works have a prompt that is longer than the model takes: only its first"
        f" {max(cut)} tokens reach it here, also where a trainer read on"
    )
