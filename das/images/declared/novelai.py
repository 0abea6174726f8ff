"""NovelAI: the PNG texts `Description`, `Source` and `Comment` (JSON), or the same as an object in hidden bits."""

from collections.abc import Mapping
from typing import Any

from das.images.declared.blocks import Blocks, object_of
from das.images.declared.record import Declared, declared


def read(blocks: Blocks) -> Declared | None:
    """What the texts say, or the hidden object; None if neither is NovelAI's."""
    if (found := _declared(blocks.texts, "PNG text Comment")) is not None:
        return found
    # Its WebP files carry the whole object in EXIF.
    said = object_of(blocks.comment or "")
    if said is not None and (found := _declared(said, f"{blocks.format} EXIF UserComment")) is not None:
        return found
    if blocks.hidden is not None and (said := object_of(blocks.hidden[1])) is not None:
        return _declared(said, f"{blocks.hidden[0]} in the low bits of the pixels")
    return None


def _declared(texts: Mapping[str, Any], source: str) -> Declared | None:
    comment = texts.get("Comment")
    said = object_of(comment) if isinstance(comment, str) else comment
    if not isinstance(said, dict) or not _is_novelai(texts, said):
        return None
    prompt = said.get("prompt")
    return declared(
        source,
        tool="NovelAI",
        prompt=texts.get("Description") if prompt is None else prompt,
        negative_prompt=said.get("uc", said.get("negative_prompt")),
        seed=said.get("seed"),
        steps=said.get("steps"),
        sampler=said.get("sampler"),
        guidance=said.get("scale"),
        model=texts.get("Source"),
    )


def _is_novelai(texts: Mapping[str, Any], said: dict[str, Any]) -> bool:
    named = any(
        "NovelAI" in value
        for name in ("Software", "Source", "Title")
        if isinstance(value := texts.get(name), str)
    )
    return named or ("uc" in said and "seed" in said)
