"""Where the model of an index is now, with its LoRA, checkpoints and CLIP: they may have moved since it was built.

Looked for in this order, each by what the manifest says of it:

1. the one under the model directory that has the name it had, if there is no other;
2. one there with the same files, whatever its name;
3. where it was when the index was built;
4. where it would be if it had moved together with the index;
5. the one under the model directory with its name, or the only one there.

Whoever loads it compares the weights' digest, so a wrong one is refused, never used.
"""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from das.errors import ModelError
from das.sources import is_pipeline
from das.works import file_digest


def is_model(path: Path) -> bool:
    """Whether a path may be a model: a pipeline, or a single file."""
    return is_pipeline(path) or (path.is_file() and path.suffix == ".safetensors")


def is_clip(path: Path) -> bool:
    """Whether a directory is an open_clip model in its own format."""
    return (path / "open_clip_config.json").is_file()


def is_lora(path: Path) -> bool:
    """Whether a file or directory may be a LoRA."""
    if path.is_file():
        return path.suffix == ".safetensors"
    return any(path.glob("*.safetensors")) and not is_pipeline(path) and not is_clip(path)


def is_torchscript(path: Path) -> bool:
    """Whether a path may be a TorchScript model."""
    return path.is_file() and path.suffix in (".pt", ".pth")


def fingerprint(source: str) -> str:
    """A digest of a local file or of a directory's files, or the id of a model on a hub.

    Equal fingerprints mean equal weights, and are had without loading a model; different ones mean nothing.

    Raises:
        ModelError: a file can't be read.
    """
    path = Path(source)
    try:
        if path.is_file():
            return file_digest(path)
        if not path.is_dir():
            return f"id:{source}"
        whole = hashlib.sha256()
        for folder, subfolders, names in os.walk(path):
            subfolders.sort()
            for name in sorted(names):
                file = Path(folder) / name
                line = f"{file.relative_to(path).as_posix()} {file_digest(file)}\n"
                whole.update(line.encode("utf-8", "surrogateescape"))
    except OSError as error:
        raise ModelError(f"{error.filename or source} can't be read: {error.strerror}.") from error
    return whole.hexdigest()


def find(
    source: str,
    recorded: str,
    kind: Callable[[Path], bool],
    model_dir: Path | None,
    together: Path | None = None,
) -> str | None:
    """Where a part of a model is, in the order above; None if it is nowhere. Hub ids are their own place.

    Args:
        source: where it was, an absolute path or a hub id.
        recorded: its fingerprint then.
        kind: tells what may be such a part.
        model_dir: the directory where models are kept, or the part itself; None: there is none.
        together: where it would be if it had moved together with the index.
    """
    there: list[Path] = []
    if model_dir is not None and model_dir.exists():
        inside = sorted(model_dir.iterdir()) if model_dir.is_dir() else []
        there = [path for path in (model_dir, *inside) if kind(path)]
    named = [path for path in there if path.name == Path(source).name]
    if named and len(there) == 1:
        return str(named[0])
    if not recorded.startswith("id:"):
        for path in (*named, *(path for path in there if path not in named)):
            if fingerprint(str(path)) == recorded:
                return str(path)
    elif not named:
        return source
    else:
        return str(named[0])
    for place in (Path(source), together):
        if place is not None and place.exists():
            return str(place)
    found = named or (there if len(there) == 1 else [])
    return str(found[0]) if found else None
