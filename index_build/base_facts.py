"""What a LoRA's file says of the base that it was trained on, held against the base that is given."""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

from das.errors import ModelError
from das.models import DiffusionModel
from das.models.lora import Loaded
from das.models.lora.kinds import shown
from das.places import fingerprint
from das.schedules import VariancePreserving

_FAMILIES = (
    ("sdxl", "stable-diffusion-xl"),
    ("stable-diffusion-xl", "stable-diffusion-xl"),
    ("sd3", "stable-diffusion-3"),
    ("stable-diffusion-v3", "stable-diffusion-3"),
    ("stable-diffusion-3", "stable-diffusion-3"),
    ("sd_v1", "stable-diffusion"),
    ("sd_v2", "stable-diffusion"),
    ("stable-diffusion-v1", "stable-diffusion"),
    ("stable-diffusion-v2", "stable-diffusion"),
    ("flux", "flux"),
    ("networks.lora_flux", "flux"),
    ("networks.lora_sd3", "stable-diffusion-3"),
)
"""Beginnings of what stands under _FAMILY_KEYS, and the families that they name."""

_FAMILY_KEYS = ("ss_base_model_version", "modelspec.architecture", "ss_network_module")

_GENERATIONS = (
    ("ss_base_model_version", "sd_v1", 1),
    ("ss_base_model_version", "sd_v2", 2),
    ("modelspec.architecture", "stable-diffusion-v1", 1),
    ("modelspec.architecture", "stable-diffusion-v2", 2),
    ("ss_v2", "false", 1),
    ("ss_v2", "true", 2),
)
"""Keys, beginnings of their values, and the version of Stable Diffusion that they name."""

_TEXT_WIDTHS = {768: 1, 1024: 2}
"""How wide the text is that a U-Net takes, by which Stable Diffusion 1 and 2 are told apart."""

_PREDICTIONS = {"epsilon": "epsilon", "v": "v_prediction", "v_prediction": "v_prediction"}
"""What stands under `modelspec.prediction_type`, and what a schedule calls it."""

_CLIP_LAYERS = 12
"""Of the text encoder of Stable Diffusion 1. A pipeline that leaves out the last has the clip skip 2 built in."""

_PROMPT_TOKENS = 75
"""Of a prompt that Stable Diffusion 1, 2 and XL are given: 77 less the marks of beginning and end."""

_MODULES = re.compile(
    r"networks\.(lora|lora_fa|dylora|lora_flux|lora_sd3|loha|lokr)|lycoris\.kohya(\.\w+)?|locon\.locon_kohya"
)
"""The modules of trainers whose files are read (`ss_network_module`)."""

_OLD_HASH_AT, _OLD_HASH_BYTES = 0x100000, 0x10000
"""Which bytes of a checkpoint the first hash of A1111's is of, whose first eight digits are `ss_sd_model_hash`."""


def check_family(loaded: Loaded, model: DiffusionModel) -> None:
    """Raise ModelError where the header names a base of another family than the model's."""
    for key in _FAMILY_KEYS:
        said = loaded.metadata.get(key, "").lower()
        family = next((name for start, name in _FAMILIES if said.startswith(start)), None)
        if family is not None and family != model.family:
            raise ModelError(
                f"The header of {loaded.file} says that the LoRA was trained on {shown(said)} ({key}), and --model is"
                f" of the family {model.family}. Give the base that it was trained on."
            )


def base_disagreements(metadata: Mapping[str, str], model: DiffusionModel, source: str) -> list[str]:
    """Sentences of what a header says otherwise than the base is.

    Args:
        source: of the base.
    """
    found = [*_of_generation(metadata, model)]
    found += _of_objective(metadata, model)
    found += _of_clip_skip(metadata, model)
    found += _of_prompts(metadata, model)
    found += _of_hash(metadata, source)
    module = metadata.get("ss_network_module", "")
    if module and not _MODULES.fullmatch(module):
        found.append(
            f"it was made by the module {shown(module)}, which isn't known here, so that its tensors were read by"
            " their names alone"
        )
    return found


def _of_objective(metadata: Mapping[str, str], model: DiffusionModel) -> list[str]:
    """What it was trained to predict, and whether down to noise alone; families of flow matching have neither."""
    schedule = model.schedule
    if not isinstance(schedule, VariancePreserving):
        return []
    found = []
    version = metadata.get("ss_base_model_version", "").lower()
    said = metadata.get("modelspec.prediction_type", "")
    predicts = schedule.prediction_type
    theirs = _PREDICTIONS.get(said.lower())
    if version.startswith(("sd_v1", "sd_v2")) and version.endswith("_v") != (predicts == "v_prediction"):
        found.append(f"it was trained on {shown(version)}, and the base given predicts {predicts}")
    elif theirs is not None and theirs != predicts:
        found.append(
            f"it was trained to predict {theirs} (modelspec.prediction_type: {shown(said)}), and the base given"
            f" predicts {predicts}"
        )
    zero = {"true": True, "false": False}.get(metadata.get("ss_zero_terminal_snr", "").lower())
    if zero is not None and zero != schedule.ends_in_noise:
        found.append(
            "it was trained down to noise alone (ss_zero_terminal_snr), and the base's schedule leaves some of the"
            " picture: its scheduler lacks rescale_betas_zero_snr"
            if zero
            else "it was trained with some of the picture left in the most noise (ss_zero_terminal_snr: False), and"
            " the base's schedule ends in noise alone (rescale_betas_zero_snr)"
        )
    return found


def _of_clip_skip(metadata: Mapping[str, str], model: DiffusionModel) -> list[str]:
    """From which layer of the text encoder texts were taken, where trainers heed that: Stable Diffusion 1 and 2."""
    said = metadata.get("ss_clip_skip", "")
    layers = getattr(model, "text_layers", 0)
    if model.family != "stable-diffusion" or not re.fullmatch(r"[1-9]\d?", said) or not layers:
        return []
    theirs = int(said)
    needed = max(layers, _CLIP_LAYERS) + 1 - theirs
    if theirs == 1 or layers == needed or needed < 1:
        return []
    return [
        f"it was trained with the clip skip {theirs} (ss_clip_skip), and texts are taken from the last of the"
        f" {layers} layers that the base's text encoder has. A base whose text_encoder/config.json has"
        f" num_hidden_layers {needed} takes them as it was trained"
    ]


def _of_prompts(metadata: Mapping[str, str], model: DiffusionModel) -> list[str]:
    """Whether its trainer read on where prompts are cut here: kohya's encodes the rest of them in further pieces."""
    said = metadata.get("ss_max_token_length", "")
    if not isinstance(model.schedule, VariancePreserving) or not re.fullmatch(r"[1-9]\d{0,3}", said):
        return []
    if int(said) <= _PROMPT_TOKENS:
        return []
    return [
        f"it was trained on prompts of up to {said} tokens (ss_max_token_length), and of the works' and a question's"
        f" only the first {_PROMPT_TOKENS} reach the model"
    ]


def _of_generation(metadata: Mapping[str, str], model: DiffusionModel) -> list[str]:
    """Whether Stable Diffusion 1 is meant, or 2, where the base's sizes tell which it is."""
    if model.family != "stable-diffusion":
        return []
    width = getattr(getattr(model.network, "config", None), "cross_attention_dim", None)
    ours = _TEXT_WIDTHS.get(width) if isinstance(width, int) else None
    for key, start, theirs in _GENERATIONS:
        said = metadata.get(key, "")
        if ours is not None and theirs != ours and said.lower().startswith(start):
            return [
                f"it was trained on Stable Diffusion {theirs} ({key}: {shown(said)}), and the base given is Stable"
                f" Diffusion {ours} by the width of its text, {width}"
            ]
    return []


def _of_hash(metadata: Mapping[str, str], source: str) -> list[str]:
    """The base's hashes; trainers write words such as `IsADirectory` there where the base wasn't one file."""
    if not source.endswith(".safetensors") or not Path(source).is_file():
        return []
    told = metadata.get("ss_new_sd_model_hash", "").lower()
    if re.fullmatch(r"[0-9a-f]{8,64}", told):
        ours = fingerprint(source)
        same = ours.startswith(told)
        return [] if same else [f"its base had the SHA-256 {told[:12]}, and {source} has {ours[:12]}"]
    told = metadata.get("ss_sd_model_hash", "").lower()
    if re.fullmatch(r"[0-9a-f]{8}", told):
        ours = _old_hash(Path(source))
        return [] if ours == told else [f"its base had the old hash {told}, and {source} has {ours}"]
    return []


def _old_hash(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            opened.seek(_OLD_HASH_AT)
            return hashlib.sha256(opened.read(_OLD_HASH_BYTES)).hexdigest()[:8]
    except OSError as error:
        raise ModelError(f"{file} can't be read: {error.strerror}.") from error
