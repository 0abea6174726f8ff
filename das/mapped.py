"""Files of numbers that are only ever mapped, read-only: arrays (.npy) and named tensors (.safetensors).

What is mapped stays what it was, wherever its file goes meanwhile. No file is held open for it: an index of a million
works has thousands of them, and a process may often open a thousand.
"""

import errno
import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa

from das.errors import IndexFormatError

_LONGEST_HEADER = 1 << 16
"""Of an array's header in bytes; numpy's own are a hundred."""
_MAPPINGS = Path("/proc/self/maps")
_MOST_MAPPINGS = Path("/proc/sys/vm/max_map_count")
_NEARLY = 100
"""Mappings that may be gone again when it is looked why one was refused."""
_TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I8": "|i1", "U8": "|u1"}


def map_array(path: Path) -> np.ndarray:
    """The array of a .npy file; raises OSError or ValueError where it can't be read as one."""
    data = _bytes_of(path)
    wide = bytes(data[6:7]) != b"\x01"
    start = 12 + int.from_bytes(data[8:12], "little") if wide else 10 + int.from_bytes(data[8:10], "little")
    shape, fortran, dtype = _header(bytes(data[: min(start, _LONGEST_HEADER)]))
    if len(data) - start != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"it has {len(data)} bytes, and its header tells of {dtype} in {shape}")
    return np.ndarray(shape, dtype, data, start, order="F" if fortran else "C")


def open_array(path: Path) -> np.ndarray:
    """The same; raises IndexFormatError."""
    try:
        return map_array(path)
    except (OSError, ValueError) as error:
        raise IndexFormatError(f"{path} can't be read as an array: {error}.") from error


@contextmanager
def enough_mappings(folder: Path, files: int) -> Iterator[None]:
    """Where the system refuses to map a file of the index in `folder`, which has so many, say what to do about it.

    Raises:
        IndexFormatError: as a block did that mapped too much.
    """
    try:
        yield
    except IndexFormatError as error:
        if not _was_refused(error):
            raise
        raise IndexFormatError(
            f"{folder}, an index of {files:,} files, can't be mapped into memory: {_what_to_do()}"
        ) from error


def _was_refused(error: BaseException | None) -> bool:
    """Whether the system's refusal to map something is behind an error."""
    while error is not None:
        if os.strerror(errno.ENOMEM) in str(error):
            return True
        error = error.__cause__
    return False


def _what_to_do() -> str:
    try:
        most = int(_MOST_MAPPINGS.read_text())
        with _MAPPINGS.open("rb") as lines:
            mapped = sum(1 for _ in lines)
    except (OSError, ValueError):
        return "the system has no room for it."
    if mapped < most - _NEARLY:
        return (
            f"memory or address space is short (ulimit -v): this process has {mapped:,} mappings of the {most:,} that"
            " vm.max_map_count lets it have."
        )
    return (
        f"this process has {mapped:,} mappings, and may have no more by vm.max_map_count. Raise that (sysctl -w"
        f" vm.max_map_count={4 * most}), or build with a larger --shard-size, which makes fewer files."
    )


def expect_array(path: Path, what: str, array: np.ndarray, shape: tuple[int, ...], dtype: str) -> None:
    """Raise IndexFormatError unless an array has the shape and type."""
    if array.shape != shape or array.dtype != np.dtype(dtype):
        raise IndexFormatError(f"{path}: {what} is {array.shape} {array.dtype} instead of {shape} {dtype}.")


class Tensors(Mapping[str, np.ndarray]):
    """The tensors of a .safetensors file by their names, mapped."""

    def __init__(self, path: Path) -> None:
        """Map a file; raises OSError or ValueError where it isn't one, or a tensor doesn't lie in it."""
        data = _bytes_of(path)
        start = 8 + int.from_bytes(data[:8], "little")
        try:
            entries = json.loads(bytes(data[8:start]))
            entries.pop("__metadata__", None)
            places = sorted((tuple(entry["data_offsets"]), name) for name, entry in entries.items())
            end = 0
            self._tensors = {}
            for (first, last), name in places:
                shape, dtype = tuple(entries[name]["shape"]), np.dtype(_TYPES[entries[name]["dtype"]])
                if (
                    first != end
                    or last - first != math.prod(shape) * dtype.itemsize
                    or min(shape, default=0) < 0
                ):
                    raise ValueError(f"{name} doesn't lie where its header says")
                self._tensors[name] = np.ndarray(shape, dtype, data, start + first)
                end = last
        except (KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"its header can't be read: {error!r}") from error
        if start + end != len(data):
            raise ValueError(f"it has {len(data)} bytes instead of {start + end}")

    def __getitem__(self, name: str) -> np.ndarray:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


def _bytes_of(path: Path) -> memoryview:
    with pa.memory_map(str(path)) as file:
        return memoryview(file.read_buffer())


@lru_cache(maxsize=64)
def _header(head: bytes) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, order and type from the head of a .npy file: the same for most of an index's shards."""
    stream = BytesIO(head)
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    elif version == (2, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_2_0(stream)
    else:
        raise ValueError(f"it is an array of format {version}")
    if dtype.hasobject:
        raise ValueError("it holds objects, not numbers")
    return shape, fortran, dtype
