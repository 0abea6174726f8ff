"""The factor `alpha / rank` of every layer: from a file's own alphas, or from the settings beside or inside it."""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from das.errors import ModelError
from das.models.lora.kinds import LOHA, LOKR, LORA, Piece, shown

METADATA_KEY = "lora_adapter_metadata"
"""Where diffusers keeps peft's settings in a file's header, by component."""

_TYPES = {"LORA": LORA, "LOHA": LOHA, "LOKR": LOKR}
_READ = frozenset(
    {"r", "lora_alpha", "alpha", "rank_pattern", "alpha_pattern", "use_rslora", "use_dora", "peft_type"}
)
_WITHOUT_EFFECT = frozenset(
    {
        "task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode",
        "target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "fan_in_fan_out", "bias",
        "lora_dropout", "rank_dropout", "module_dropout", "rank_dropout_scale", "init_weights", "megatron_config",
        "megatron_core", "qalora_group_size", "ensure_weight_tying", "decompose_both", "decompose_factor",
        "use_effective_conv2d", "runtime_config", "lora_bias", "loftq_config", "eva_config", "lora_ga_config",
    }
)  # fmt: skip
"""Settings that say how an adapter was trained, or what its tensors show by themselves."""

_PLAIN_STARTS = (None, True, False, "gaussian", "eva", "orthogonal")
"""Ways to begin a LoRA that leave the weights under it as they are; PiSSA, OLoRA, CorDA and LoftQ change them."""

_MOST_PATTERN = 1000


class Settings:
    """peft's settings of an adapter, as far as they decide what it computes."""

    def __init__(self, values: Mapping[str, Any], source: object) -> None:
        """Check them.

        Raises:
            ModelError: it is an adapter of another type, or does more than what can be attributed.
        """
        kind = values.get("peft_type") or "LORA"
        kind = str(getattr(kind, "value", kind)).rpartition(".")[2]
        if kind not in _TYPES:
            raise ModelError(
                f"{source} is a peft adapter of type {shown(kind)}; only LORA, LOHA and LOKR are attributed."
            )
        if values.get("bias", "none") != "none" or values.get("modules_to_save"):
            raise ModelError(
                f"{source} also trains parameters of the network itself (bias={values.get('bias')!r}, "
                f"modules_to_save={values.get('modules_to_save')}); only low-rank matrices are attributed."
            )
        start = values.get("init_lora_weights")
        if not any(start is plain for plain in _PLAIN_STARTS[:3]) and start not in _PLAIN_STARTS[3:]:
            raise ModelError(
                f"{source} was begun by {shown(str(start))}, which changes the weights that the LoRA lies on. Save it"
                " as a plain LoRA (peft: save_pretrained with path_initial_model_for_weight_conversion)."
            )
        for name, value in values.items():
            if name not in _READ | _WITHOUT_EFFECT | {"modules_to_save", "init_lora_weights"} and value:
                raise ModelError(
                    f"{source} is a peft adapter with {shown(name)}={shown(str(value))}, which isn't supported;"
                    " only its low-rank matrices would be read."
                )
        self.kind = _TYPES[kind]
        self.source = source
        self.targets = values.get("target_modules")
        self.every_target = not (values.get("layers_to_transform") or values.get("exclude_modules"))
        self.dora = values.get("use_dora") is True
        self._rank = _positive(values.get("r"), "r", source)
        alpha_name = "lora_alpha" if self.kind == LORA else "alpha"
        self._alpha = _positive(values.get(alpha_name, self._rank), alpha_name, source)
        self._rank_pattern = _pattern(values.get("rank_pattern"), "rank_pattern", source)
        self._alpha_pattern = _pattern(values.get("alpha_pattern"), "alpha_pattern", source)
        self._root = values.get("use_rslora") is True

    def scale(self, path: str, rank: int | None) -> float:
        """`alpha / rank` of the layer at `path` (`alpha / √rank` with use_rslora).

        Raises:
            ModelError: the rank of its tensors isn't the one that the settings give.
        """
        stated = _matched(self._rank_pattern, path, self._rank)
        if rank is not None and rank != stated and self.kind != LOKR:
            raise ModelError(
                f"The settings of {self.source} give {shown(path)} the rank {stated:g}; its tensors have {rank}."
            )
        alpha = _matched(self._alpha_pattern, path, self._alpha)
        return alpha / (math.sqrt(stated) if self._root else stated)


def read_settings(file: Path) -> Settings:
    """Those of `adapter_config.json`.

    Raises:
        ModelError: it isn't JSON of settings; or as `Settings`.
    """
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{file} can't be read as JSON: {error}.") from error
    if not isinstance(values, dict):
        raise ModelError(f"{file} should hold a JSON object of settings.")
    return Settings(values, file.parent)


def settings_inside(metadata: Mapping[str, str], source: object) -> dict[str, Settings]:
    """What diffusers wrote into the header, by component; empty where it wrote nothing. Raises like `Settings`."""
    if METADATA_KEY not in metadata:
        return {}
    try:
        values = json.loads(metadata[METADATA_KEY])
        by_component: dict[str, dict[str, Any]] = {}
        for key, value in values.items():
            component, _, name = key.partition(".")
            by_component.setdefault(component, {})[name] = value
    except (ValueError, AttributeError, RecursionError) as error:
        raise ModelError(f"The header of {source} has {METADATA_KEY} that isn't a JSON object.") from error
    return {component: Settings(found, source) for component, found in by_component.items()}


def scale_of(piece: Piece, path: str, settings: Settings | None) -> float:
    """What the product of a layer's matrices is multiplied by.

    Its own alpha counts first, then the settings; without either it is 1, as trainers that save neither mean it.
    """
    rank = piece.rank
    if piece.alpha is not None:
        # A LoKr of two whole matrices has no rank, and its alpha no effect.
        return 1.0 if rank is None else piece.alpha / rank
    return 1.0 if settings is None else settings.scale(path, rank)


def check_targets(settings: Settings, layers: Mapping[str, nn.Module], found: set[str]) -> None:
    """Raise ModelError unless the layers that the settings name are those that the file has tensors of."""
    targets = settings.targets
    if not settings.every_target or targets in (None, "all-linear"):
        return
    if isinstance(targets, str):
        pattern = _compiled(targets, settings.source)
        named = {path for path in layers if pattern.fullmatch(path)}
    else:
        ends = tuple(str(target) for target in targets)
        named = {path for path in layers if any(path == end or path.endswith(f".{end}") for end in ends)}
    if different := sorted(named ^ found):
        one = different[0]
        says = "settings name" if one in named else "tensors are of"
        others = "no tensor is of it" if one in named else "the settings don't name it"
        raise ModelError(
            f"The settings and the tensors of {settings.source} differ in {len(different)} layers: the {says}"
            f" {shown(one)}, and {others}."
        )


def _positive(value: Any, name: str, source: object) -> float:
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not math.isfinite(value)
        or value <= 0
    ):
        raise ModelError(
            f"The settings of {source} have {name}={shown(repr(value))}; a number above 0 is meant."
        )
    return float(value)


def _pattern(value: Any, name: str, source: object) -> dict[str, float]:
    if not value:
        return {}
    if not isinstance(value, dict) or any(len(key) > _MOST_PATTERN for key in value):
        raise ModelError(f"The settings of {source} have a {name} that isn't an object of numbers by layer.")
    return {key: _positive(number, f"{name}[{shown(key)}]", source) for key, number in value.items()}


def _matched(pattern: Mapping[str, float], path: str, otherwise: float) -> float:
    """The number of the first key that is the path, its end, or a regular expression of either, as peft reads it."""
    for key, number in pattern.items():
        if path == key or path.endswith(f".{key}"):
            return number
        if not re.fullmatch(r"[\w.]*", key) and _compiled(rf"(.*\.)?({key})", "its settings").fullmatch(path):
            return number
    return otherwise


def _compiled(pattern: str, source: object) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ModelError(
            f"{source} names layers by {shown(pattern)!r}, no regular expression: {error}."
        ) from error
