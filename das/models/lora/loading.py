"""From a LoRA's file to adapters on the layers of a pipeline, every tensor in its place."""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor, nn

from das.errors import ModelError
from das.loras import LoraChoice
from das.models.loading import told
from das.models.lora.adapted import Adapted
from das.models.lora.attach import Misfit, attach
from das.models.lora.find import PEFT_CONFIG, PEFT_WEIGHTS, find
from das.models.lora.kinds import Piece, pieces, shown
from das.models.lora.naming import Naming, Places
from das.models.lora.scales import Settings, check_targets, read_settings, scale_of, settings_inside
from das.models.weights import read_header

_FLAT, _DOTTED = True, False
_PEFT = "base_model.model."

_TEXT = re.compile(r"(^|\.)(lora_te\d?_|text_encoders?[_.]|te\d?[_.]|clip_[lgh]\.|t5(xxl)?\.)|text_model")
_FAMILIES = (
    ("a FLUX transformer", re.compile(r"double_blocks|single_blocks|single_transformer_blocks"), "Flux"),
    ("a transformer of Stable Diffusion 3", re.compile(r"joint_blocks"), "SD3"),
    (
        "a U-Net (Stable Diffusion 1 or 2, SDXL)",
        re.compile(r"(down|up|input|output)_blocks|mid(dle)?_block"),
        "UNet",
    ),
)
"""What a layer's name says of the network that it is of, and what such a network's class has in its name."""


@dataclass(frozen=True)
class Loaded:
    """What was loaded of a LoRA.

    Attributes:
        adapter: its name in the parameters' names.
        kinds: how many of the network's layers have each kind of adapter; a file's fused layers count as one.
        text_encoders: by text encoder that it changes, how many of its layers.
        metadata: the header of its file.
    """

    choice: LoraChoice
    adapter: str
    file: Path
    kinds: Mapping[str, int]
    text_encoders: Mapping[str, int] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)

    def describe(self) -> str:
        """As a sentence."""
        layers = ", ".join(f"{kind} on {count:,} layers" for kind, count in self.kinds.items())
        text = ""
        if self.text_encoders:
            parts = ", ".join(f"{name} ({count:,} layers)" for name, count in self.text_encoders.items())
            text = f"; it also changes the text: {parts}, loaded and used for prompts, not attributed"
        return f"LoRA {self.choice}: {layers} of the network{text}."


class Components:
    """The parts of a pipeline that LoRAs are put on, as they were before the first."""

    def __init__(self, pipeline: Any, network_name: str) -> None:
        """Name the layers of the network and of the text encoders."""
        self.network_name = network_name
        encoders = [f"text_encoder{number}" for number in ("", "_2", "_3")]
        found = {name: getattr(pipeline, name, None) for name in (network_name, *encoders)}
        self.modules = {name: part for name, part in found.items() if isinstance(part, nn.Module)}
        self.namings = {name: Naming(name, module) for name, module in self.modules.items()}

    @property
    def network(self) -> nn.Module:
        """What is attributed."""
        return self.modules[self.network_name]

    def find(self, name: str) -> tuple[str, Places] | None:
        """The component and the layers that a file's name for a layer stands for."""
        for component, naming in self.namings.items():
            for prefix, flat in self._prefixes(component):
                if name.startswith(prefix):
                    places = naming.find(name.removeprefix(prefix), flat=flat)
                    if places is not None:
                        return component, places
        return None

    def _prefixes(self, component: str) -> list[tuple[str, bool]]:
        """What stands before the names of a component's layers, and whether dots are underscores behind it."""
        if component == self.network_name:
            dotted = [
                f"{component}.", "", _PEFT, f"{_PEFT}{component}.", f"{component}.{_PEFT}", "diffusion_model.",
                "model.diffusion_model.", f"{_PEFT}diffusion_model.", f"diffusion_model.{_PEFT}",
            ]  # fmt: skip
            flat = ["lora_unet_", f"lora_{component}_", "lycoris_"]
        else:
            number = component.removeprefix("text_encoder").removeprefix("_") or "1"
            dotted = [f"{component}.", f"{component}.{_PEFT}", f"{_PEFT}{component}."]
            flat = [f"lora_te{number}_", f"lycoris_te{number}_"] + (["lora_te_"] if number == "1" else [])
            if type(self.modules[component]).__name__.startswith("T5"):
                dotted += ["text_encoders.t5xxl.transformer.", "t5."]
                flat.append("lora_te3_")  # also where it is FLUX' second
            else:
                # ComfyUI's and OMI's names of CLIP L and G, and of SD 2's only encoder.
                for size in ("l", "h") if number == "1" else ("g",):
                    dotted += [f"text_encoders.clip_{size}.transformer.", f"clip_{size}."]
        return [*((prefix, _DOTTED) for prefix in dotted), *((prefix, _FLAT) for prefix in flat)]


def put_on(components: Components, choice: LoraChoice, adapter: str) -> Loaded:
    """Put one LoRA on the components, in place.

    Args:
        adapter: its name in the parameters' names.

    Raises:
        ModelError: it can't be read, or something of it has no place.
    """
    file = find(choice.source)
    header = read_header(file)
    try:
        tensors: dict[str, Tensor] = load_file(file)
    except Exception as error:
        raise ModelError(f"{file} is damaged: {told(error)} Copy or download it again.") from error
    if file.name == PEFT_WEIGHTS:
        if not (file.parent / PEFT_CONFIG).is_file():
            raise ModelError(
                f"Beside {file} there is no {PEFT_CONFIG}, which says how its matrices are scaled."
            )
        only = read_settings(file.parent / PEFT_CONFIG)
        settings = dict.fromkeys(components.modules, only)
    else:
        settings = settings_inside(header.metadata, file)
    found = pieces(tensors, file)
    placed = _placed(components, found, file)
    _check_settings(components, placed, settings, file)

    kinds: Counter[str] = Counter()
    layers: Counter[str] = Counter()
    for piece, component, places in placed:
        scale = scale_of(piece, places[0].path, settings.get(component))
        targets = [_adapted(components.modules[component], place.path) for place in places]
        try:
            attach(piece, places, targets, adapter, scale, choice.weight, file)
        except Misfit as error:
            raise Misfit(f"{error}{_said_of_base(header.metadata)}") from error
        layers[component] += 1
        if component == components.network_name:
            kinds[piece.described] += 1
    text = {
        name: layers[name]
        for name in components.modules
        if name in layers and name != components.network_name
    }
    return Loaded(choice, adapter, file, dict(kinds), text, header.metadata)


def _said_of_base(metadata: Mapping[str, str]) -> str:
    """What a header says of the base, for whoever has given another one."""
    said = metadata.get("ss_base_model_version") or metadata.get("modelspec.architecture")
    if not said and metadata.get("ss_v2", "").lower() == "true":
        said = "Stable Diffusion 2"
    return f" Its header says that it was trained on {shown(said)}." if said else ""


def _placed(components: Components, found: list[Piece], file: Path) -> list[tuple[Piece, str, Places]]:
    """Every piece with its place; raises ModelError unless each has one, and of its own."""
    placed, homeless = [], []
    taken: dict[tuple[str, str], str] = {}
    for piece in found:
        place = components.find(piece.name)
        if place is None:
            homeless.append(piece)
            continue
        placed.append((piece, *place))
        for layer in place[1]:
            other = taken.setdefault((place[0], layer.path), piece.name)
            if other != piece.name:
                raise ModelError(
                    f"{file} has two adapters for {layer.path}: {shown(other)} and {shown(piece.name)}."
                )
    if homeless:
        raise ModelError(_no_place(components, homeless, found, file))
    if not any(component == components.network_name for _, component, _ in placed):
        changed = " and ".join(sorted({component for _, component, _ in placed}))
        raise ModelError(
            f"{file} changes only {changed}. What is attributed are matrices of the {components.network_name}, and it"
            " has none."
        )
    return placed


def _no_place(components: Components, homeless: list[Piece], found: list[Piece], file: Path) -> str:
    """Why some layers of a file aren't this pipeline's, as far as their names tell."""
    network = type(components.network).__name__
    tensors = sum(len(piece.names) for piece in homeless)
    count = sum(len(piece.names) for piece in found)
    one = shown(homeless[0].name)
    said = f"{tensors} of the {count} tensors in {file} have no place"
    text = [piece for piece in homeless if _TEXT.search(piece.name)]
    if len(text) == len(homeless):
        encoders = ", ".join(name for name in components.modules if name != components.network_name) or "none"
        return (
            f"{said}: they are of a text encoder, such as {one}, and no text encoder of this pipeline has such a"
            f" layer (it has: {encoders}). The LoRA is for a pipeline with other text encoders."
        )
    for what, pattern, in_class in _FAMILIES:
        if in_class not in network and any(pattern.search(piece.name) for piece in homeless):
            return f"{said}: they are of {what}, such as {one}, and this network is a {network}."
    rest = (
        "" if len(homeless) < len(found) else " Either its naming isn't known, or it is for another network."
    )
    return (
        f"{said}: no layer of the {network} has a name such as {one} in any naming that is known (docs/loras.md)."
        f"{rest}"
    )


def _check_settings(
    components: Components,
    placed: list[tuple[Piece, str, Places]],
    settings: Mapping[str, Settings],
    file: Path,
) -> None:
    for component, theirs in settings.items():
        if component not in components.modules:
            continue
        here = [(piece, places) for piece, of, places in placed if of == component]
        if not here:
            continue
        for piece, _ in here:
            if piece.kind != theirs.kind:
                raise ModelError(
                    f"{file} has a {piece.described} for {shown(piece.name)}, and its settings say {theirs.kind}."
                )
            if theirs.dora and "magnitude" not in piece.tensors:
                raise ModelError(
                    f"The settings of {file} say that it is a DoRA, and {shown(piece.name)} has no magnitudes."
                )
        found = {place.path for _, places in here for place in places}
        check_targets(theirs, components.namings[component].layers, found)


def _adapted(module: nn.Module, path: str) -> Adapted:
    """The layer at `path`, made one that takes adapters if it isn't yet."""
    layer = module.get_submodule(path)
    if isinstance(layer, Adapted):
        return layer
    assert isinstance(layer, nn.Linear | nn.Conv2d)
    outer, _, last = path.rpartition(".")
    made = Adapted(layer)
    setattr(module.get_submodule(outer), last, made)
    return made
