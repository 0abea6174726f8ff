"""InvokeAI: a JSON object under `invokeai_metadata`, before version 3 under `sd-metadata`."""

import re
from typing import Any

from das.images.declared.blocks import Blocks, object_of
from das.images.declared.record import Declared, DeclaredLora, declared, lora

_MOST_LORAS = 20
_MOST_PROMPTS = 20
_BRACKETS = re.compile(r"\[([^\[\]]{1,4000})\]")


def read(blocks: Blocks) -> Declared | None:
    """What the object says; None if there is none."""
    said = object_of(blocks.texts.get("invokeai_metadata", ""))
    if said is None:
        return _read_old(blocks)
    name, digest = _model(said.get("model"))
    return declared(
        "PNG text invokeai_metadata",
        tool="InvokeAI",
        prompt=said.get("positive_prompt"),
        negative_prompt=said.get("negative_prompt"),
        seed=said.get("seed"),
        steps=said.get("steps"),
        sampler=said.get("scheduler"),
        guidance=said.get("cfg_scale", said.get("guidance")),
        model=name,
        model_hash=digest,
        loras=_loras(said.get("loras")),
    )


def _read_old(blocks: Blocks) -> Declared | None:
    """Version 2's form: a prompt with what is to be avoided in square brackets, or a list of weighted ones."""
    whole = object_of(blocks.texts.get("sd-metadata", ""))
    said = whole.get("image") if whole is not None else None
    if whole is None or not isinstance(said, dict):
        return None
    prompt = said.get("prompt")
    if isinstance(prompt, list):
        parts = [one.get("prompt") if isinstance(one, dict) else None for one in prompt[:_MOST_PROMPTS]]
        prompt = parts[0] if len(parts) == 1 else None  # how several are mixed is no prompt
    negative = None
    if isinstance(prompt, str):
        avoided = _BRACKETS.findall(prompt)
        prompt, negative = _BRACKETS.sub("", prompt).strip(), " ".join(avoided) or None
    return declared(
        "PNG text sd-metadata",
        tool="InvokeAI",
        prompt=prompt,
        negative_prompt=negative,
        seed=said.get("seed"),
        steps=said.get("steps"),
        sampler=said.get("sampler"),
        guidance=said.get("cfg_scale"),
        model=whole.get("model_weights"),
    )


def _model(said: Any) -> tuple[Any, Any]:
    """Name and hash, by the names of either version. Its hashes are BLAKE3 unless they say SHA-256."""
    if not isinstance(said, dict):
        return said, None
    digest = said.get("hash")
    is_sha256 = isinstance(digest, str) and digest.startswith("sha256:")
    return said.get("name", said.get("model_name")), digest if is_sha256 else None


def _loras(said: Any) -> tuple[DeclaredLora, ...]:
    found = []
    for one in said[:_MOST_LORAS] if isinstance(said, list) else []:
        if isinstance(one, dict):
            name, digest = _model(one.get("model", one.get("lora")))
            found.append(lora(name, digest, one.get("weight")))
    return tuple(one for one in found if one is not None)
