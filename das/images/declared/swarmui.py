"""SwarmUI: a JSON object with `sui_image_params` under `parameters`, or in EXIF's comment."""

from typing import Any

from das.images.declared.blocks import Blocks, object_of
from das.images.declared.record import Declared, DeclaredLora, base_name, declared, lora

_MOST_LORAS = 20


def read(blocks: Blocks) -> Declared | None:
    """What the object says; None if there is none. Its hashes are of tensors, so a model's isn't taken."""
    for source, text in blocks.notes("parameters"):
        whole = object_of(text)
        said = whole.get("sui_image_params") if whole is not None else None
        if isinstance(said, dict):
            return declared(
                source,
                tool="SwarmUI",
                prompt=said.get("prompt"),
                negative_prompt=said.get("negativeprompt"),
                seed=said.get("seed"),
                steps=said.get("steps"),
                sampler=said.get("sampler", said.get("comfyuisampler")),
                guidance=said.get("cfgscale"),
                model=base_name(said.get("model")),
                loras=_loras(said),
            )
    return None


def _loras(said: dict[str, Any]) -> tuple[DeclaredLora, ...]:
    names, weights = (_list(said.get(key)) for key in ("loras", "loraweights"))
    found = []
    for number, name in enumerate(names[:_MOST_LORAS]):
        weight = weights[number] if number < len(weights) else None
        found.append(lora(base_name(name), None, weight))
    return tuple(one for one in found if one is not None)


def _list(value: Any) -> list[Any]:
    """A list, which older versions write as one text with commas."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",")]
    return value if isinstance(value, list) else []
