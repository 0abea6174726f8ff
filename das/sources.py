"""What a person names as a model: a pipeline, a single file, a bare network on a base, a training run's folder.

Told from names and configurations alone, without torch, so that a build refuses at once what it can't load.
"""

import json
import re
import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from das.errors import ModelError

PICKLES = (".ckpt", ".pt", ".pth", ".bin", ".pkl")
"""Endings of files that can run code when they are read."""

LARGEST_CONFIG_BYTES = 1 << 20
_NETWORKS = ("unet", "transformer")
_CHECKPOINT = re.compile(r"checkpoint-(\d{1,12})")
_LORAS = ("pytorch_lora_weights.safetensors", "adapter_config.json")
_HUB_ID = re.compile(r"[\w][\w.-]*/[\w][\w.-]*")
_CONVERT = (
    "import sys, torch; from safetensors.torch import save_file; "
    'd = torch.load(sys.argv[1], map_location="cpu", weights_only=True); d = d.get("state_dict", d); '
    "save_file({k: v.clone().contiguous() for k, v in d.items() if isinstance(v, torch.Tensor)}, sys.argv[2], "
    'metadata={"format": "pt"})'
)


@dataclass(frozen=True)
class ModelSource:
    """Where a model is read from.

    Attributes:
        model: a pipeline's directory or hub id, or a single safetensors file.
        config: the pipeline whose configuration, and whatever else the file lacks, a single file is read with.
        network: a directory whose network takes the place of the pipeline's own.
        size: height and width in pixels of the model's pictures; None: what its configuration says.
    """

    model: str
    config: str | None = None
    network: str | None = None
    size: tuple[int, int] | None = None

    @property
    def pipeline(self) -> str:
        """The pipeline that names the family and has the configuration."""
        return self.model if self.config is None else self.config

    def of_checkpoint(self, checkpoint: str) -> "ModelSource":
        """The same model at another `checkpoint`, which may be a pipeline, a single file or a bare network."""
        if Path(checkpoint).is_dir() and not is_pipeline(Path(checkpoint)):
            return replace(self, network=checkpoint)
        single = Path(checkpoint).suffix == ".safetensors"
        config = (self.config or self.model) if single else None
        return replace(self, model=checkpoint, config=config, network=None)


def is_pipeline(path: Path) -> bool:
    """Whether a directory is a diffusers pipeline."""
    return (path / "model_index.json").is_file()


def is_network(path: Path) -> bool:
    """Whether a directory holds one network in diffusers' format, and no pipeline."""
    return path.is_dir() and not is_pipeline(path) and _class_of(path) is not None


def conversion(file: Path) -> str:
    """The line that turns a pickle into a safetensors file, reading nothing but tensors from it."""
    return f"python -c {shlex.quote(_CONVERT)} {shlex.quote(str(file))} {shlex.quote(str(converted(file)))}"


def converted(file: Path) -> Path:
    """The name that a pickle's tensors get, by which a folder's reader finds them."""
    name = file.name.replace("pytorch_model", "model") if file.name.startswith("pytorch_model") else file.name
    target = file.with_name(name).with_suffix(".safetensors")
    return target if not target.exists() else target.with_name(f"{target.stem}-converted.safetensors")


def refuse_pickle(file: Path) -> ModelError:
    """The refusal of a pickle, with the line that converts it."""
    return ModelError(
        f"{file} is a pickled file, which can run any code when it is read, so it isn't. Convert it once, and give"
        f" the new file: {conversion(file)}"
    )


def check_source(source: ModelSource) -> ModelSource:
    """The source with a training run's folder narrowed to the network in it.

    Raises:
        ModelError: what is named can't be a model; the message says what it is instead, and what to give.
    """
    _check_model(source)
    if source.config is not None and Path(source.config).is_file():
        raise ModelError(f"--config {source.config!r} is a file; give a pipeline directory or a hub id.")
    if source.network is None:
        return source
    return replace(source, network=str(find_network(Path(source.network))))


def _check_model(source: ModelSource) -> None:
    path = Path(source.model)
    if path.is_file():
        if path.suffix in PICKLES:
            raise refuse_pickle(path)
        if path.suffix != ".safetensors":
            raise ModelError(
                f"{source.model!r} is a file of another kind; give a .safetensors file, a pipeline directory (as"
                " save_pretrained writes it) or a hub id."
            )
        if source.config is None:
            raise ModelError(
                f"{source.model!r} is a single file, which has weights and no configuration: add --config PIPELINE,"
                " the directory of a pipeline of the same family (its weights are read only for what the file lacks)."
            )
        return
    if source.config is not None:
        raise ModelError(
            f"--config goes with a single file, and {source.model!r} "
            + ("is a directory." if path.is_dir() else "isn't a file that is here.")
        )
    if path.is_dir():
        if not is_pipeline(path):
            raise ModelError(_described(path))
    elif not may_be_hub_id(source.model):
        raise ModelError(f"There is no model {source.model!r}: no such file or directory. {GIVE}")


GIVE = (
    "Give a pipeline directory (as save_pretrained writes it), a .safetensors file or a hub id (owner/name)."
)


def may_be_hub_id(text: str) -> bool:
    """Whether this can name a model of a hub, and not only a path."""
    if not _HUB_ID.fullmatch(text) or text.endswith((*PICKLES, ".safetensors")):
        return False
    # `models/sd` where a folder models is here: the path was meant.
    return not Path(text).parent.is_dir()


def _described(path: Path) -> str:
    """What a directory without model_index.json is, and what to do with it."""
    if (kind := _class_of(path)) is not None:
        return (
            f"{str(path)!r} is a {kind} alone, without the scheduler and the other parts of a pipeline. Give the"
            f" pipeline that it was trained from as --model, and this directory as --network."
        )
    if found := sorted(name for name in _networks_in(path)):
        return (
            f"{str(path)!r} is a training run's folder with {', '.join(found)} and no model_index.json. Give the"
            " pipeline that was trained from as --model, and this folder, or one in it, as --network."
        )
    if any((path / name).is_file() for name in _LORAS):
        return f"{str(path)!r} is a LoRA: give the pipeline that it is for as --model, and this as --lora."
    if files := sorted(file.name for file in path.glob("*.safetensors")):
        return (
            f"{str(path)!r} has no model_index.json, so it is no pipeline. To use a single file in it, give"
            f" --model {path / files[0]} --config PIPELINE."
        )
    if pickles := sorted(file for file in path.iterdir() if file.is_file() and file.suffix in PICKLES):
        return str(refuse_pickle(pickles[0]))
    return f"No diffusion model could be loaded from {str(path)!r}: the directory has no model_index.json. {GIVE}"


def find_network(folder: Path) -> Path:
    """The directory of the network that a person names: that itself, or the one in a training run's folder.

    A finished run's `unet` or `transformer` comes before its checkpoints, of which the newest by number is taken.

    Raises:
        ModelError: there is none, or several of which none comes first.
    """
    if folder.is_file():
        if folder.suffix in PICKLES:
            raise refuse_pickle(folder)
        raise ModelError(
            f"--network {str(folder)!r} is a file; give the directory that holds it and its config.json, or the"
            " whole model as --model with --config."
        )
    if not folder.is_dir():
        raise ModelError(f"There is no directory {str(folder)!r}, which --network names.")
    if _class_of(folder) is not None:
        return folder
    if inside := _components_in(folder):
        return _only(folder, inside)
    numbered = sorted(
        (int(match[1]), child)
        for child in folder.iterdir()
        if (match := _CHECKPOINT.fullmatch(child.name)) and child.is_dir()
    )
    with_networks = [child for _, child in numbered if _components_in(child)]
    if with_networks:
        return _only(with_networks[-1], _components_in(with_networks[-1]))
    loras = [
        child for child in (folder, *(c for _, c in numbered)) if any((child / n).is_file() for n in _LORAS)
    ]
    if loras:
        raise ModelError(
            f"{str(loras[-1])!r} holds a LoRA and no network: give it as --lora instead of --network."
        )
    raise ModelError(
        f"--network {str(folder)!r} holds no network: neither config.json with weights, nor unet, unet_ema or"
        " transformer, nor checkpoint-N folders with one of these."
    )


def _only(folder: Path, inside: list[Path]) -> Path:
    if len(inside) > 1:
        raise ModelError(
            f"--network {str(folder)!r} holds {' and '.join(child.name for child in inside)}, which differ; name"
            f" one of them, such as --network {inside[0]}."
        )
    return inside[0]


def _components_in(folder: Path) -> list[Path]:
    names = [name + end for name in _NETWORKS for end in ("", "_ema")]
    return [folder / name for name in names if _class_of(folder / name) is not None]


def _networks_in(path: Path) -> list[str]:
    checkpoints = (child for child in path.iterdir() if _CHECKPOINT.fullmatch(child.name))
    return [child.name for child in _components_in(path)] + [c.name for c in checkpoints if _components_in(c)]


def _class_of(folder: Path) -> str | None:
    """The class that a directory's config.json names, if it is one of diffusers'; None: it holds no component."""
    try:
        with (folder / "config.json").open("rb") as stream:
            config: Any = json.loads(stream.read(LARGEST_CONFIG_BYTES))
    except (OSError, ValueError, RecursionError):
        return None
    kind = config.get("_class_name") if isinstance(config, dict) else None
    return kind if isinstance(kind, str) and kind.isidentifier() else None
