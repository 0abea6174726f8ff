"""Where a LoRA's file is: a file, a directory with one, or a hub id of either."""

from pathlib import Path

from das.errors import ModelError
from das.models.loading import told
from das.sources import PICKLES, conversion

PEFT_CONFIG, PEFT_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
DIFFUSERS_WEIGHTS = "pytorch_lora_weights.safetensors"


def find(source: str) -> Path:
    """The file of weights, downloaded if `source` is a hub id.

    Raises:
        ModelError: there is none, several, or one of a format that isn't read.
    """
    path = Path(source)
    try:
        if path.is_dir():
            return _find_in(path)
        if path.is_file():
            return path
    except (OSError, ValueError) as error:
        raise ModelError(f"The LoRA {source!r} can't be read: {error}.") from error
    owner, name, *inside = [*source.split("/"), ""]
    if not name or not owner or owner.startswith((".", "~")) or "\\" in source:
        raise ModelError(
            f"There is no LoRA {source!r}: no such file or directory, nor a hub id (owner/name)."
        )
    return _download(f"{owner}/{name}", "/".join(inside).rstrip("/"), source)


def _find_in(folder: Path) -> Path:
    if (folder / PEFT_CONFIG).is_file():
        if not (folder / PEFT_WEIGHTS).is_file():
            pickled = folder / "adapter_model.bin"
            hint = f" Convert {pickled.name} with: {conversion(pickled)}" if pickled.is_file() else ""
            raise ModelError(f"The peft adapter {folder} has no {PEFT_WEIGHTS}.{hint}")
        return folder / PEFT_WEIGHTS
    if (folder / DIFFUSERS_WEIGHTS).is_file():
        return folder / DIFFUSERS_WEIGHTS
    files = sorted(folder.glob("*.safetensors"))
    if len(files) == 1:
        return files[0]
    pickled_files = sorted(file for file in folder.iterdir() if file.suffix in PICKLES and file.is_file())
    if not files and len(pickled_files) == 1:
        return pickled_files[0]  # whose refusal has the line that converts it
    listed = ", ".join(file.name for file in files[:10]) or "none"
    more = f" and {len(files) - 10} more; name one of them" if len(files) > 10 else ""
    raise ModelError(f"{folder} should hold one LoRA in a safetensors file; there is {listed}{more}.")


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
