"""Putting a LoRA on a pipeline's network, completely or not at all.

diffusers and peft skip what doesn't fit and warn. An index of the base model would then pass for one of the LoRA, so
here every tensor of the file must have found its place.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from das.errors import ModelError
from das.models.loading import told

PEFT_CONFIG, PEFT_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
DIFFUSERS_WEIGHTS = "pytorch_lora_weights.safetensors"
ADAPTER = "default"  # its name in the parameters' names: lora_A.default.weight


def add_lora(pipeline: Any, network_name: str, source: str) -> None:
    """Put a LoRA on the pipeline's network, in place; nothing else changes.

    Args:
        network_name: the pipeline's component that it belongs to, such as "unet".
        source: a safetensors file as `load_lora_weights` reads it (of diffusers or kohya), a directory with one, a
            peft adapter's directory (`adapter_config.json`, `adapter_model.safetensors`), or a hub id of either;
            `owner/name/file.safetensors` is a file of a hub repository.

    Raises:
        ModelError: there is no such LoRA; or it belongs to another network, to text encoders too, or does more than
            add low-rank matrices.
    """
    file = _find(source)
    network = getattr(pipeline, network_name)
    try:
        if file.name == PEFT_WEIGHTS:
            _add_peft(network, file)
        else:
            _add_diffusers(pipeline, network_name, file)
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(
            f"The LoRA {source!r} can't be put on the {type(network).__name__}: {told(error)} "
            "The file is damaged, or was trained on another model."
        ) from error
    # Half-precision LoRAs compute like the network that they are on, with the same values.
    network.float().eval()


@contextmanager
def without_lora(network: nn.Module) -> Iterator[None]:
    """The network as its base alone: every LoRA counts for nothing until the end of the block."""
    found = [getattr(module, "scaling", None) for module in network.modules()]
    scalings: list[dict[str, float]] = [scaling for scaling in found if isinstance(scaling, dict)]
    kept = [dict(scaling) for scaling in scalings]
    for scaling in scalings:
        scaling.update(dict.fromkeys(scaling, 0.0))
    try:
        yield
    finally:
        for scaling, before in zip(scalings, kept, strict=True):
            scaling.update(before)


def _find(source: str) -> Path:
    """The file of weights, downloaded if `source` is a hub id."""
    path = Path(source)
    if path.is_dir():
        return _find_in(path)
    if path.is_file():
        if path.suffix != ".safetensors":
            raise ModelError(f"{source!r} isn't a safetensors file; other formats can run code when read.")
        return path
    owner, name, *inside = [*source.split("/"), ""]
    if not name or not owner or owner.startswith((".", "~")):
        raise ModelError(
            f"There is no LoRA {source!r}: no such file or directory, nor a hub id (owner/name)."
        )
    return _download(f"{owner}/{name}", "/".join(inside).rstrip("/"), source)


def _find_in(folder: Path) -> Path:
    if (folder / PEFT_CONFIG).is_file():
        if not (folder / PEFT_WEIGHTS).is_file():
            raise ModelError(f"The peft adapter {folder} has no {PEFT_WEIGHTS}.")
        return folder / PEFT_WEIGHTS
    if (folder / DIFFUSERS_WEIGHTS).is_file():
        return folder / DIFFUSERS_WEIGHTS
    files = sorted(folder.glob("*.safetensors"))
    if len(files) != 1:
        listed = ", ".join(file.name for file in files) or "none"
        raise ModelError(f"{folder} should hold one LoRA in a safetensors file; there is {listed}.")
    return files[0]


def _download(repository: str, inside: str, source: str) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    try:
        if inside:
            return Path(hf_hub_download(repository, inside))
        try:
            return Path(hf_hub_download(repository, DIFFUSERS_WEIGHTS))
        except EntryNotFoundError:
            hf_hub_download(repository, PEFT_CONFIG)
            return Path(hf_hub_download(repository, PEFT_WEIGHTS))
    except Exception as error:
        raise ModelError(
            f"There is no LoRA {source!r}: it is no local path, and as a hub id: {told(error)} "
            f"Name a file of the repository as {repository}/file.safetensors unless it is {DIFFUSERS_WEIGHTS} or a "
            "peft adapter."
        ) from error


def _add_diffusers(pipeline: Any, network_name: str, file: Path) -> None:
    """Load by the pipeline's own loader, which knows the naming of several trainers."""
    from safetensors import safe_open

    network = getattr(pipeline, network_name)
    if not hasattr(pipeline, "load_lora_weights"):
        raise ModelError(
            f"A {type(pipeline).__name__} takes LoRAs as peft adapters only; {file.name} isn't one."
        )
    with safe_open(file, framework="pt") as stored:
        names = list(stored.keys())
    if dropped := [name for name in names if "dora_scale" in name or ".lokr_" in name or ".hada_" in name]:
        raise ModelError(f"{file} isn't a plain LoRA but a DoRA, LoKr or LoHa: it has {dropped[0]}.")
    options: dict[str, Any] = {"weight_name": file.name, "local_files_only": True}
    if network_name == "unet":
        options["unet_config"] = network.config  # to read the block numbers of other trainers
    found = pipeline.lora_state_dict(str(file.parent), **options)
    given = [name for name in (found[0] if isinstance(found, tuple) else found) if "alpha" not in name]
    if elsewhere := [name for name in given if name.startswith("text_encoder")]:
        raise ModelError(
            f"{file} also trains a text encoder ({len(elsewhere)} tensors, such as {elsewhere[0]}). Only LoRAs of "
            f"the {network_name} alone are attributed; train one without the text encoder."
        )
    ours = [name for name in given if name.startswith(f"{network_name}.")]
    if not ours or len(ours) != len(given):
        stray = next((name for name in given if name not in ours), "none at all")
        raise ModelError(
            f"{len(given) - len(ours)} of the {len(given)} tensors in {file} belong to no part of the "
            f"{network_name}, such as {stray}. The LoRA was trained on another model."
        )
    pipeline.load_lora_weights(
        str(file.parent), weight_name=file.name, adapter_name=ADAPTER, local_files_only=True
    )
    _check_complete(network, len(ours), file)


def _add_peft(network: nn.Module, file: Path) -> None:
    from peft import PeftConfig, PeftType, inject_adapter_in_model, set_peft_model_state_dict
    from safetensors.torch import load_file

    if not (file.parent / PEFT_CONFIG).is_file():
        raise ModelError(f"Beside {file} there is no {PEFT_CONFIG}.")
    config = PeftConfig.from_pretrained(str(file.parent))
    if config.peft_type != PeftType.LORA:
        raise ModelError(
            f"{file.parent} is a peft adapter of type {PeftType(config.peft_type).value}; only LORA is attributed."
        )
    if config.bias != "none" or config.modules_to_save:
        raise ModelError(
            f"{file.parent} also trains parameters of the network itself (bias={config.bias!r}, "
            f"modules_to_save={config.modules_to_save}); only low-rank matrices are attributed."
        )
    state = {name.removeprefix("base_model.model."): tensor for name, tensor in load_file(file).items()}
    inject_adapter_in_model(config, network, ADAPTER)
    result: Any = set_peft_model_state_dict(network, state, ADAPTER)
    if result.unexpected_keys:
        raise ModelError(
            f"{len(result.unexpected_keys)} of the tensors in {file} have no place in the "
            f"{type(network).__name__}, such as {result.unexpected_keys[0]}. It was trained on another model."
        )
    _check_complete(network, len(state), file)


def _check_complete(network: nn.Module, expected: int, file: Path) -> None:
    """Every tensor of the file became a parameter, and no parameter of the LoRA was left at random."""
    found = sum(".lora_" in name for name, _ in network.named_parameters())
    if found != expected:
        raise ModelError(
            f"{file} has {expected} LoRA tensors for a {type(network).__name__}, but {found} fit this one. "
            "It was trained on another model."
        )
