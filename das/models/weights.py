"""Files of weights: which of a folder's are read, and what a file that isn't what it is named is instead.

Only safetensors are read. What is wrong with one is told from its first bytes, before a library's own sentence
about a header or an unpickler's about a magic number would be all that a person hears.
"""

import json
import math
import re
import struct
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from das.errors import ModelError
from das.sources import PICKLES, refuse_pickle

LARGEST_HEADER_BYTES = 32 << 20
"""Of a safetensors file. FLUX's has 0.1 MB, a LoRA's with all that a trainer notes a few."""

_LENGTH = struct.Struct("<Q")
_STEMS = {"diffusers": "diffusion_pytorch_model", "transformers": "model"}
_PICKLED_STEMS = {"diffusers": "diffusion_pytorch_model", "transformers": "pytorch_model"}
_HALF = {"F16": "float16", "BF16": "bfloat16", "F8_E4M3": "float8", "F8_E5M2": "float8"}


class TensorHeader(NamedTuple):
    """Type and shape of a tensor, as a file's header says."""

    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Weights:
    """The files of one component.

    Attributes:
        variant: what stands in their names, such as fp16; None: nothing does.
        files: one, or its shards.
        dtype: of most of their numbers, as torch calls it.
    """

    variant: str | None
    files: tuple[Path, ...]
    dtype: str

    @property
    def described(self) -> str | None:
        """What is worth telling of them; None where they are plain files in single precision."""
        if self.variant is None and self.dtype not in _HALF.values():
            return None
        return self.dtype if self.variant is None else f"variant {self.variant}, {self.dtype}"


@dataclass(frozen=True)
class Header:
    """A safetensors file's header.

    Attributes:
        metadata: what its writer says, text by text.
        tensors: type and shape of each, by name.
    """

    metadata: dict[str, str]
    tensors: dict[str, TensorHeader]


def header_of(file: Path) -> dict[str, TensorHeader]:
    """The tensors of a safetensors file, from its header alone; raises like `read_header`."""
    return read_header(file).tensors


def read_header(file: Path) -> Header:
    """Read the header of a safetensors file, without its tensors.

    Raises:
        ModelError: it isn't one, or isn't whole; the message says what it is as far as that can be told.
    """
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            start = stream.read(1024)
            if (other := _something_else(file, start, size)) is not None:
                raise other
            (length,) = _LENGTH.unpack(start[: _LENGTH.size])
            if length > LARGEST_HEADER_BYTES:
                raise ModelError(
                    f"{file} isn't a safetensors file: the header would have {length:,} bytes, more than the"
                    f" {LARGEST_HEADER_BYTES:,} that are read."
                )
            if _LENGTH.size + length > size:
                raise _cut_short(file, size, f"its header alone takes {_LENGTH.size + length:,}")
            stream.seek(_LENGTH.size)
            raw = stream.read(length)
    except OSError as error:
        raise ModelError(f"{file} can't be read: {error.strerror}.") from error
    try:
        entries = json.loads(raw)
        metadata = entries.pop("__metadata__", None) or {}
        if not all(isinstance(value, str) for value in metadata.values()):
            raise ValueError("__metadata__")
        found, end = _parsed(entries)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError) as error:
        raise ModelError(
            f"{file} isn't a safetensors file, or is damaged: its header can't be read."
        ) from error
    if (expected := _LENGTH.size + length + end) > size:
        raise _cut_short(file, size, f"its header speaks of {expected:,}")
    return Header(metadata, found)


def _parsed(entries: Any) -> tuple[dict[str, TensorHeader], int]:
    found, end = {}, 0
    for name, entry in entries.items():
        shape = tuple(entry["shape"])
        first, last = entry["data_offsets"]
        if not isinstance(entry["dtype"], str) or not all(
            type(n) is int and n >= 0 for n in (*shape, first, last)
        ):
            raise ValueError(name)
        found[name] = TensorHeader(entry["dtype"], shape)
        end = max(end, last)
    return found, end


def _cut_short(file: Path, size: int, why: str) -> ModelError:
    return ModelError(f"{file} is cut short: it has {size:,} bytes, and {why}. Download or copy it again.")


def _something_else(file: Path, start: bytes, size: int) -> ModelError | None:
    """What a file that can't be safetensors is, from its first bytes."""
    if start[_LENGTH.size : _LENGTH.size + 1] == b"{":
        # A safetensors header's first letter. What stands before it is its length, which may look like anything.
        return None
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith(b"version https://git-lfs"):
        return ModelError(
            f"{file} is a Git LFS pointer of {size} bytes and not the weights: run `git lfs pull` in its repository,"
            " or download the file itself."
        )
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head", b"<body", b"<script")):
        return ModelError(
            f"{file} is a web page that was saved under this name, such as a log-in or an error: download the file"
            " itself."
        )
    if start.startswith(b"GGUF"):
        return ModelError(
            f"{file} is a GGUF file, whose weights are quantised; give the model in safetensors."
        )
    if start.startswith((b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")):
        return (
            refuse_pickle(file)
            if file.suffix in PICKLES
            else ModelError(
                f"{file} is a pickle or an archive named like a safetensors file; what can run code isn't read."
            )
        )
    if text.startswith((b'{"', b"{'")):
        return ModelError(
            f"{file} is text, such as a server's error, and not weights: download the file itself."
        )
    if size < _LENGTH.size:
        return ModelError(f"{file} is {'empty' if not size else 'cut short'}: it has {size} bytes.")
    return None


def weights_of(folder: Path, library: str, what: str) -> Weights:
    """The files of the component in `folder`: those without a variant, or the only variant that there is.

    Args:
        library: diffusers or transformers, which name their files differently.
        what: the component's name, for messages.

    Raises:
        ModelError: there are none, only pickled ones, several variants and none without; or one isn't whole.
    """
    if not folder.is_dir():
        raise ModelError(f"There is no {what}: {folder} isn't a directory.")
    stem = re.escape(_STEMS[library])
    pattern = re.compile(rf"{stem}(?:\.(\w+))?(?:-(\d{{5}})-of-(\d{{5}}))?(?:\.(\w+))?\.safetensors")
    variants: dict[str | None, list[Path]] = {}
    shards: dict[str | None, int] = {}
    for file in sorted(folder.iterdir()):
        if (match := pattern.fullmatch(file.name)) is not None:
            variant = match[1] or match[4]
            variants.setdefault(variant, []).append(file)
            if match[3]:
                shards[variant] = int(match[3])
    if not variants:
        raise _without(folder, library, what)
    variant = None if None in variants else next(iter(variants))
    if variant is not None and len(variants) > 1:
        raise ModelError(
            f"The {what} in {folder} comes in the variants {' and '.join(sorted(map(str, variants)))}, and none"
            " without; move all but one of them away."
        )
    files = variants[variant]
    if len(files) < shards.get(variant, 1):
        raise ModelError(
            f"The {what} in {folder} lacks {shards[variant] - len(files)} of its {shards[variant]} files of weights;"
            " download it again."
        )
    return Weights(variant, tuple(files), _usual_dtype(files))


def _without(folder: Path, library: str, what: str) -> ModelError:
    pickled = [f for f in sorted(folder.iterdir()) if f.is_file() and f.suffix in PICKLES]
    stem = _PICKLED_STEMS[library]
    if pickled:
        return refuse_pickle(next((f for f in pickled if f.name.startswith(stem)), pickled[0]))
    return ModelError(
        f"The {what} in {folder} has no weights, no {_STEMS[library]}.safetensors, with a variant or without."
    )


def _usual_dtype(files: list[Path]) -> str:
    sizes: Counter[str] = Counter()
    for file in files:
        for header in header_of(file).values():
            sizes[header.dtype] += math.prod(header.shape)
    most = sizes.most_common(1)
    dtype = most[0][0] if most else "F32"
    return _HALF.get(dtype, {"F32": "float32", "F64": "float64"}.get(dtype, dtype))
