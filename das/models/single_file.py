"""A checkpoint in one file, as a pipeline: what is in it from there, the rest from a pipeline's directory.

The naming of trainers is diffusers' to know: its `from_single_file` converts each component. What it doesn't find it
leaves without numbers, so here each component is complete or refused, and every number of the network is used.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from das.errors import ModelError
from das.models.checkpoint_kinds import TEXT_ENCODERS, VAES, Kind, kind_of, network_part
from das.models.weights import Header, header_of, read_header

Tell = Callable[[str], None]

# The first encoder is CLIP, or OpenCLIP in SD 2; the second of SDXL and SD3 is OpenCLIP.
_CLIPS = {
    "text_encoder": ("cond_stage_model.", "conditioner.embedders.0.", "text_encoders.clip_l."),
    "text_encoder_2": ("conditioner.embedders.1.", "text_encoders.clip_g."),
}
_T5 = "text_encoders.t5xxl."
_SCHEDULE = re.compile(
    r"(.*_)?(betas|alphas_cumprod(_prev)?|one_minus_alphas_cumprod|alphas_cumprod_minus_one|variance_clipped|coef[12])"
    r"|logvar|v_pred|ztsnr|denoiser\.sigmas|.*alphas_cumprod.*|posterior_.*"
)
# Empty tensors by which a file says what it was trained for, as ComfyUI reads them.
_VELOCITY = "v_pred"
_ZERO_SNR = "ztsnr"
_EDM = "edm_"

_OBJECTIVE = "modelspec.prediction_type"
_OBJECTIVES = {
    "epsilon": "epsilon",
    "v": "v_prediction",
    "v_prediction": "v_prediction",
    "sample": "sample",
}
"""What trainers write there, and what a scheduler's configuration calls it."""


def read_single_file(
    file: Path, folder: str, parts: Mapping[str, tuple[str, str]], network: str, family: str, tell: Tell
) -> dict[str, nn.Module]:
    """The components that a file holds, in single precision, by name.

    Args:
        folder: of the pipeline with their configurations.
        parts: library and class of each component with weights.
        network: the one that is attributed; it has to be in the file.
        family: of the pipeline, as its adapter calls it.
        tell: told which components came from the file, and what of it isn't used.

    Raises:
        ModelError: the file isn't whole, of another family, or doesn't fit the configurations.
    """
    from safetensors.torch import load_file

    header = read_header(file)
    kind = kind_of(file, header.tensors)
    if kind.family != family:
        raise ModelError(
            f"{file} is a checkpoint of {kind.name} by its tensors, and the pipeline {folder} is of the family"
            f" {family}; let --config name a pipeline of the same family."
        )
    _check_objective(file, header, folder)
    try:
        stored = load_file(file)
    except Exception as error:
        raise ModelError(f"{file} can't be read as safetensors: {_one_line(error)}") from error
    found = {network: _network(file, stored, folder, network, parts[network][1], kind)}
    used = {name for name in stored if name.startswith(kind.prefix)} if kind.prefix else set(stored)
    for name, (_, class_name) in parts.items():
        given = _text_encoder(name, class_name, stored) if name != "vae" else _vae(stored)
        if name == network or not given:
            continue
        used |= given.keys()
        found[name] = _component(file, given, folder, name, class_name)
    if unused := [name for name in stored if name not in used and not _SCHEDULE.fullmatch(name)]:
        if encoder := next((name for name in unused if name.startswith(TEXT_ENCODERS)), None):
            raise ModelError(
                f"{file} holds a text encoder in a naming that isn't known, or one that the pipeline {folder} lacks:"
                f" {encoder}."
            )
        what = "the moving average (EMA) of its network" if unused[0].startswith("model_ema.") else unused[0]
        tell(f"{len(unused):,} tensors of {file.name} aren't used: {what}.")
    named = ", ".join(found)
    others = ", ".join(name for name in parts if name not in found)
    tell(
        f"{file.name} is a checkpoint of {kind.name}: {named} from it"
        + (f", {others} from {folder}." if others else ".")
    )
    return found


def _check_objective(file: Path, header: Header, folder: str) -> None:
    """Refuse a file that says of itself that it was trained otherwise than the pipeline's scheduler has it.

    What it predicts, and of which noise, is in no weight: under another objective or schedule a model computes as
    fluently, of pictures as it never saw them.
    """
    from diffusers import DDPMScheduler

    if (edm := next((name for name in header.tensors if name.startswith(_EDM)), None)) is not None:
        raise ModelError(
            f"{file} says that it was trained with EDM's noise ({edm}), as Playground 2.5 and CosXL are: that isn't"
            " the noise of a scheduler with ᾱ, and isn't supported."
        )
    scheduler = DDPMScheduler.load_config(folder, subfolder="scheduler")
    if str(scheduler.get("_class_name", "")).startswith("FlowMatch"):
        return
    ours = scheduler.get("prediction_type", "epsilon")
    said = header.metadata.get(_OBJECTIVE, "")
    theirs, where = _OBJECTIVES.get(said.lower()), f"{_OBJECTIVE}: {said}"
    if _VELOCITY in header.tensors:
        theirs, where = "v_prediction", _VELOCITY
    if theirs is not None and theirs != ours:
        what = "velocity" if theirs == "v_prediction" else theirs
        raise ModelError(
            f"{file} says that it predicts {what} ({where}), and the scheduler of {folder} says {ours}; let"
            f" --config name a pipeline whose scheduler has the prediction_type {theirs}"
            + (f" and rescale_betas_zero_snr true ({_ZERO_SNR})." if _ZERO_SNR in header.tensors else ".")
        )
    if _ZERO_SNR in header.tensors and not scheduler.get("rescale_betas_zero_snr"):
        raise ModelError(
            f"{file} says that it was trained down to a signal-to-noise ratio of zero ({_ZERO_SNR}), and the"
            f" scheduler of {folder} leaves some signal; let --config name a pipeline whose scheduler has"
            " rescale_betas_zero_snr true."
        )


def _network(
    file: Path, stored: Mapping[str, Tensor], folder: str, name: str, class_name: str, kind: Kind
) -> nn.Module:
    names = network_part(header_of(file))[1]
    given = {inside: stored[kind.prefix + inside] for inside in names}
    numbers = sum(tensor.numel() for tensor in given.values())
    if kind.original:
        given = {f"model.diffusion_model.{inside}": tensor for inside, tensor in given.items()}
    module = _component(file, given, folder, name, class_name)
    taken = sum(tensor.numel() for tensor in module.state_dict().values())
    if taken != numbers:
        raise ModelError(
            f"{file} doesn't fit the {name} of {folder}: it has {numbers:,} numbers, and the configuration has room"
            f" for {taken:,}. Let --config name the pipeline that it was trained from."
        )
    return module


def _vae(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    for prefix in VAES:
        if found := {name: tensor for name, tensor in stored.items() if name.startswith(prefix)}:
            return found
    return {}


def _text_encoder(name: str, class_name: str, stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    prefixes = (_T5,) if class_name.startswith("T5") else _CLIPS.get(name, ())
    return {key: tensor for key, tensor in stored.items() if prefixes and key.startswith(prefixes)}


def _component(file: Path, given: dict[str, Tensor], folder: str, name: str, class_name: str) -> nn.Module:
    """One component; `given` has its tensors by the names that diffusers converts from, or has itself."""
    try:
        module: nn.Module = _converted(given, folder, name, class_name)
    except NotImplementedError as error:  # torch's, of tensors that were never given numbers
        raise _incomplete(file, folder, name) from error
    except Exception as error:
        raise ModelError(
            f"The {name} in {file} doesn't fit the configuration in {folder}: {_one_line(error)} Let --config name a"
            " pipeline of the same architecture."
        ) from error
    if any(tensor.is_meta for tensor in module.state_dict().values()):
        raise _incomplete(file, folder, name)
    return module.float().eval()


def _incomplete(file: Path, folder: str, name: str) -> ModelError:
    return ModelError(
        f"{file} lacks tensors of the {name}, which would be random. It is incomplete, or {folder} is the"
        " configuration of another model."
    )


def _converted(given: dict[str, Tensor], folder: str, name: str, class_name: str) -> Any:
    import diffusers
    import transformers
    from diffusers.loaders.single_file_utils import (
        create_diffusers_clip_model_from_ldm,
        create_diffusers_t5_model_from_checkpoint,
    )

    if class_name.startswith("CLIP"):
        encoder = create_diffusers_clip_model_from_ldm(
            getattr(transformers, class_name), given, subfolder=name, config=folder, local_files_only=True
        )
        _keep_projection(encoder, given)
        return encoder
    if class_name.startswith("T5"):
        return create_diffusers_t5_model_from_checkpoint(
            transformers.T5EncoderModel, given, subfolder=name, config=folder, local_files_only=True
        )
    named_by_diffusers = {
        key.removeprefix("vae.").removeprefix("first_stage_model."): t for key, t in given.items()
    }
    if any(".resnets." in key or key.startswith("transformer_blocks.") for key in named_by_diffusers):
        given = named_by_diffusers
    kind = getattr(diffusers, class_name)
    return kind.from_single_file(given, config=folder, subfolder=name, local_files_only=True)


def _keep_projection(encoder: Any, given: Mapping[str, Tensor]) -> None:
    """The projection of SD3's CLIP L that a file has, where diffusers takes the identity whatever it has."""
    own = given.get("text_encoders.clip_l.transformer.text_projection.weight")
    if own is not None and hasattr(encoder, "text_projection"):
        with torch.no_grad():
            encoder.text_projection.weight.copy_(own)


def _one_line(error: Exception) -> str:
    said = " ".join(str(error).split()).partition(" If you want to")[0]
    return said.rstrip(".") + "."
