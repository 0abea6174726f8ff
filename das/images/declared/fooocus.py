"""Fooocus's own form: a JSON object under `parameters`, or in EXIF's comment."""

from typing import Any

from das.images.declared.blocks import Blocks, object_of
from das.images.declared.record import Declared, DeclaredLora, base_name, declared, lora

# Versions before 2.2 wrote the words of the page as keys.
_OLDER = {
    "prompt": "Prompt",
    "negative_prompt": "Negative Prompt",
    "seed": "Seed",
    "steps": "Steps",
    "sampler": "Sampler",
    "guidance_scale": "Guidance Scale",
    "base_model": "Base Model",
    "base_model_hash": "Base Model Hash",
}
_MOST_LORAS = 20


def read(blocks: Blocks) -> Declared | None:
    """What the object says; None if there is none, or it isn't Fooocus's."""
    for source, text in blocks.notes("parameters"):
        said = object_of(text)
        if said is not None and ("base_model" in said or "Base Model" in said):
            return _declared(said, source)
    return None


def _declared(said: dict[str, Any], source: str) -> Declared | None:
    values = {name: said.get(name, said.get(older)) for name, older in _OLDER.items()}
    return declared(
        source,
        tool="Fooocus",
        prompt=values["prompt"],
        negative_prompt=values["negative_prompt"],
        seed=values["seed"],
        steps=values["steps"],
        sampler=values["sampler"],
        guidance=values["guidance_scale"],
        model=base_name(values["base_model"]),
        model_hash=values["base_model_hash"],
        loras=_loras(said),
    )


def _loras(said: dict[str, Any]) -> tuple[DeclaredLora, ...]:
    found = []
    match said.get("loras"):
        case [*listed]:
            for one in listed[:_MOST_LORAS]:
                match one:
                    case [name, weight, digest]:
                        found.append(lora(name, digest, weight))
                    case [name, weight]:
                        found.append(lora(name, None, weight))
    if not found:
        for number in range(1, _MOST_LORAS + 1):
            combined = said.get(f"lora_combined_{number}", said.get(f"LoRA {number}"))
            parts = combined.split(" : ") if isinstance(combined, str) else []
            if len(parts) == 3 and parts[0] == "True":
                parts = parts[1:]
            if len(parts) == 2:
                found.append(lora(base_name(parts[0]), None, parts[1]))
    return tuple(one for one in found if one is not None)
