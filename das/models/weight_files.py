"""What a file of weights is, told from its first bytes: safetensors, or what is often found in their place."""

import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from das.errors import ModelError

MOST_HEADER_BYTES = 100_000_000
"""As the safetensors library allows."""

PICKLED = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl"})
_LFS = b"version https://git-lfs.github.com/spec/"
_PICKLES = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


@dataclass(frozen=True)
class Header:
    """A safetensors file's header.

    Attributes:
        metadata: what its writer says, text by text.
        shapes: of the tensors, by name.
    """

    metadata: dict[str, str]
    shapes: dict[str, tuple[int, ...]]


def read_header(path: Path) -> Header:
    """Read the header of a safetensors file, without its tensors.

    Raises:
        ModelError: it isn't one, or isn't whole; the message says what it is and what to do.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            start = stream.read(1024)
            # The size of a header can have the bytes that other formats begin with, so its brace comes first.
            begun = start[8:9] == b"{" and struct.unpack("<Q", start[:8])[0] <= MOST_HEADER_BYTES
            if not begun and (told := _in_its_place(path, start)) is not None:
                raise ModelError(told)
            (length,) = struct.unpack("<Q", start[:8])
            if length > MOST_HEADER_BYTES:
                raise ModelError(
                    f"{path} isn't a safetensors file: it doesn't begin with the size of a header."
                )
            if 8 + length > size:
                raise _cut_off(path, size, 8 + length)
            stream.seek(8)
            body = json.loads(stream.read(length))
        return _checked(path, body, size - 8 - length)
    except OSError as error:
        raise ModelError(f"{path} can't be read: {error.strerror or error}.") from error
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} isn't a safetensors file, or is damaged: its header isn't JSON.") from error


def converting_line(path: Path) -> str:
    """The command that turns a pickled file of tensors into a safetensors one, without running what it holds."""
    out = path.with_suffix(".safetensors").name
    return (
        'python -c "import torch, safetensors.torch as s;'
        f" d = torch.load({path.name!r}, map_location='cpu', weights_only=True); d = d.get('state_dict', d);"
        f' s.save_file({{k: v.contiguous() for k, v in d.items() if torch.is_tensor(v)}}, {out!r})"'
    )


def _in_its_place(path: Path, start: bytes) -> str | None:
    """What a file that isn't safetensors is, as a sentence; None where nothing speaks against it."""
    if not start:
        return f"{path} is empty; the copy or download of it failed."
    if start.startswith(_LFS):
        return (
            f"{path} is a Git LFS pointer, not the weights: the repository was cloned without them. Fetch them with"
            " `git lfs pull`."
        )
    if start.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"<":
        return (
            f"{path} is a web page (HTML or XML), not weights: a download that ended at a login or an error. Download"
            " it again."
        )
    if path.suffix in PICKLED or start.startswith(_PICKLES):
        return (
            f"{path} is a pickled file, which can run code when it is read, and so it isn't. Convert it to"
            f" safetensors in its folder with: {converting_line(path)}"
        )
    if len(start) < 8:
        return f"{path} isn't a safetensors file: it has {len(start)} bytes."
    return None


def _cut_off(path: Path, size: int, needed: int) -> ModelError:
    return ModelError(
        f"{path} is cut off: it has {size:,} bytes, and its header speaks of {needed:,}. Copy or download it again."
    )


def _checked(path: Path, body: Any, data_bytes: int) -> Header:
    wrong = ModelError(
        f"{path} isn't a safetensors file, or is damaged: its header doesn't describe tensors."
    )
    if not isinstance(body, dict):
        raise wrong
    metadata = body.pop("__metadata__", None) or {}
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise wrong
    shapes, end = {}, 0
    for name, entry in body.items():
        match entry:
            case {"dtype": str(), "shape": [*shape], "data_offsets": [int(), int(stop)]}:
                if not all(isinstance(side, int) and side >= 0 for side in shape):
                    raise wrong
                shapes[name] = tuple(shape)
                end = max(end, stop)
            case _:
                raise wrong
    if end > data_bytes:
        raise _cut_off(path, path.stat().st_size, path.stat().st_size - data_bytes + end)
    return Header(metadata, shapes)
