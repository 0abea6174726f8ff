"""ComfyUI: the graph of nodes that made the picture, `{id: {class_type, inputs}}`; a link is `["id", slot]`.

Only what plainly follows from the graph is taken: the sampler is the node with `sampler_name`, `steps` and `cfg`.
Where several samplers disagree, the graph spreads this over other nodes, or a node makes a text, fields are left
empty and not guessed. A node that samples parts of a picture anew (a face) is no sampler of the picture.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from das.images.declared.blocks import Blocks, object_of
from das.images.declared.record import Declared, DeclaredLora, base_name, declared, lora

Graph = Mapping[str, dict[str, Any]]

_SAMPLER = {"sampler_name", "steps", "cfg"}
_SPREAD_SAMPLER = {"noise", "guider"}
"""ComfyUI's `SamplerCustomAdvanced`: what it samples with is said by nodes that it is linked to."""
_VALUES = ("value", "seed", "noise_seed", "text", "string", "int", "float")
_BESIDE_VALUES = {"control_after_generate"}
"""Inputs of a node that holds a value, by which it does nothing to it."""
_OF_PARTS = {"image", "images", "segs"}
"""What a node samples anew, as those do that mend faces or enlarge a picture tile by tile."""
_WITHOUT_TEXT = "ConditioningZeroOut"
"""The node behind which a text counts for nothing."""
_MAX_NODES = 5_000
_MAX_WAY = 50
"""Nodes that are passed from a sampler to what is looked for."""
_MAX_SAMPLERS = 20
_FIELDS = ("prompt", "negative_prompt", "seed", "steps", "sampler", "guidance", "model", "loras")


def read(blocks: Blocks) -> Declared | None:
    """What the graph says; a record without fields but the tool where nothing follows from it; None without graph."""
    for source, text in _candidates(blocks):
        graph = graph_of(text)
        if graph is not None:
            return _declared(graph, source)
    return None


def _candidates(blocks: Blocks) -> Iterator[tuple[str, str]]:
    if "prompt" in blocks.texts:
        yield "PNG text prompt", blocks.texts["prompt"]
    for source, text in blocks.camera_notes():
        head, colon, rest = text.partition(":")
        if colon and head.strip().lower() == "prompt":
            yield source, rest


def graph_of(text: str) -> Graph | None:
    """The nodes by id; None if the text isn't a graph."""
    found = object_of(text)
    if not found or len(found) > _MAX_NODES:
        return None
    nodes = {
        name: node["inputs"]
        for name, node in found.items()
        if isinstance(node, dict)
        and isinstance(node.get("inputs"), dict)
        and node.get("class_type", _WITHOUT_TEXT) != _WITHOUT_TEXT
    }
    return nodes or None


def _declared(graph: Graph, source: str) -> Declared | None:
    samplers = [
        inputs for inputs in graph.values() if inputs.keys() >= _SAMPLER and not inputs.keys() & _OF_PARTS
    ]
    if any(inputs.keys() >= _SPREAD_SAMPLER for inputs in graph.values()):
        samplers = []
    said = [_sampled(graph, inputs) for inputs in samplers[:_MAX_SAMPLERS]]
    agreed = {name: _agreed([one[name] for one in said]) for name in _FIELDS} if said else {}
    loras: tuple[DeclaredLora, ...] = agreed.pop("loras", None) or ()
    return declared(source, tool="ComfyUI", loras=loras, **agreed)


def _agreed(values: list[Any]) -> Any:
    """The one value that is said, if no other is."""
    said = [value for value in values if value is not None]
    return said[0] if said and all(value == said[0] for value in said) else None


def _sampled(graph: Graph, inputs: dict[str, Any]) -> dict[str, Any]:
    model, loras = _model(graph, inputs.get("model"))
    return {
        "prompt": _text(graph, inputs.get("positive")),
        "negative_prompt": _text(graph, inputs.get("negative")),
        "seed": _value(graph, inputs.get("seed", inputs.get("noise_seed")), int),
        "steps": _value(graph, inputs["steps"], int),
        "sampler": _value(graph, inputs["sampler_name"], str),
        "guidance": _value(graph, inputs["cfg"], int | float),
        "model": model,
        "loras": loras,
    }


def _node(graph: Graph, link: object) -> tuple[dict[str, Any], int] | None:
    """The inputs of the node that a link leads to, and the slot."""
    match link:
        case [str() | int() as name, int(slot)] if str(name) in graph:
            return graph[str(name)], slot
    return None


def _value(graph: Graph, value: object, kind: Any) -> Any:
    """A value, or the one in the node that it is linked to, as far as that holds one and does nothing with it."""
    if isinstance(value, kind) and not isinstance(value, bool):
        return value
    found = _node(graph, value)
    if found is None:
        return None
    (name, *others) = found[0].keys() - _BESIDE_VALUES or {""}
    held = found[0].get(name)
    plain = not others and name in _VALUES and isinstance(held, kind) and not isinstance(held, bool)
    return held if plain else None


def _text(graph: Graph, link: object) -> str | None:
    """The text behind a conditioning, passing nodes that only add to it (a ControlNet, an area)."""
    for _ in range(_MAX_WAY):
        found = _node(graph, link)
        if found is None:
            return None
        inputs, slot = found
        if "text" in inputs:
            text: str | None = _value(graph, inputs["text"], str)
            return text
        if "text_g" in inputs and "text_l" in inputs:  # the two encoders of SDXL
            both = [_value(graph, inputs[name], str) for name in ("text_g", "text_l")]
            return both[0] if both[0] == both[1] else None
        if "conditioning" in inputs:
            link = inputs["conditioning"]
        elif "positive" in inputs and "negative" in inputs:
            link = inputs["negative" if slot == 1 else "positive"]
        else:
            return None
    return None


def _model(graph: Graph, link: object) -> tuple[str | None, tuple[DeclaredLora, ...] | None]:
    """The checkpoint behind a model, and the LoRAs on the way; None, None where the way can't be followed."""
    loras: list[DeclaredLora] = []
    for _ in range(_MAX_WAY):
        found = _node(graph, link)
        if found is None:
            return None, None
        inputs, _slot = found
        for name in ("ckpt_name", "unet_name"):
            if isinstance(inputs.get(name), str):
                return base_name(inputs[name]), tuple(reversed(loras))
        if isinstance(inputs.get("lora_name"), str):
            one = lora(_without_suffix(base_name(inputs["lora_name"])), None, inputs.get("strength_model"))
            loras += [] if one is None else [one]
        link = inputs.get("model")
    return None, None


def _without_suffix(name: str | None) -> str | None:
    return None if name is None else name.removesuffix(".safetensors")
