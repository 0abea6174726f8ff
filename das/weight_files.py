"""The hashes that other programs name a checkpoint or a LoRA by, of files as they lie on the disk.

A1111 and its forks name a checkpoint by the first ten digits of its file's SHA-256 (before 2023: eight digits of a
piece of it), and a LoRA by eight to twelve digits of the SHA-256 of its file, or of what follows the header of a
safetensors file, which stays the same when notes in the header change.
"""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from das.manifest import WeightFileRecord

_SUFFIXES = (".safetensors", ".ckpt", ".pt", ".bin")
_CHUNK = 1 << 22
_HEADER_LENGTH = 8
_MAX_HEADER = 100_000_000
_OLD_PIECE = (0x100000, 0x10000)  # where it begins, how long it is
_OLD_DIGITS = 8
_MOST_IN_A_FOLDER = 4


def weight_files(model: str, loras: Sequence[str] = ()) -> tuple[WeightFileRecord, ...]:
    """The records of a model that is a single file, and of LoRAs that are files or folders with one.

    Args:
        model: as `das build --model` takes it.
        loras: as `--lora` takes each.
    """
    found = [hashed(path, "model") for path in [Path(model)] if _is_weights(path)]
    for source in loras:
        found += [hashed(path, "lora") for path in _lora_files(Path(source))]
    return tuple(found)


def hashed(path: Path, role: Literal["model", "lora"]) -> WeightFileRecord:
    """Hash one file, in one pass. Raises OSError where it can't be read."""
    whole, tensors, old = hashlib.sha256(), hashlib.sha256(), hashlib.sha256()
    begin, length = _OLD_PIECE
    at = 0
    with path.open("rb") as stream:
        behind = _header_end(stream.read(_HEADER_LENGTH), path)
        stream.seek(0)
        while chunk := stream.read(_CHUNK):
            whole.update(chunk)
            if behind is not None:
                tensors.update(chunk[max(behind - at, 0) :])
            old.update(chunk[max(begin - at, 0) : max(begin + length - at, 0)])
            at += len(chunk)
    return WeightFileRecord(
        role=role,
        name=path.name,
        sha256=whole.hexdigest(),
        tensors_sha256=None if behind is None else tensors.hexdigest(),
        old_hash=old.hexdigest()[:_OLD_DIGITS] if at > begin else None,
    )


def _header_end(start: bytes, path: Path) -> int | None:
    """Where the tensors of a safetensors file begin; None for another file."""
    length = int.from_bytes(start, "little")
    good = path.suffix == ".safetensors" and len(start) == _HEADER_LENGTH and length <= _MAX_HEADER
    return _HEADER_LENGTH + length if good else None


def _lora_files(source: Path) -> Iterator[Path]:
    if source.is_dir():
        yield from sorted(path for path in source.iterdir() if _is_weights(path))[:_MOST_IN_A_FOLDER]
    elif _is_weights(source):
        yield source


def _is_weights(path: Path) -> bool:
    return path.suffix.lower() in _SUFFIXES and path.is_file()
