"""What this process takes where its indexes lie, measured, and giving back what nothing needs any more."""

import ctypes
import gc
import re
from collections.abc import Collection
from functools import lru_cache
from pathlib import Path
from typing import Any

import psutil

_MAPPINGS = Path("/proc/self/smaps")
# Addresses, rights, offset, device, inode, and the file's path, if it is of one.
_MAPPING = re.compile(r"[0-9a-f]+-[0-9a-f]+ \S+ \S+ \S+ \d+ *(.*)")
_KIB = 1024
_OWN, _WHOLE = ("Anonymous:", "Swap:"), ("Size:",)
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")

# What PyTorch, CUDA's libraries and the C library say, in errors of any class.
_RAN_OUT = ("out of memory", "can't allocate memory", "cannot allocate memory", "cublas_status_alloc_failed")


def settled(device: str, apart: Collection[Path] = ()) -> int:
    """Give back what nothing needs any more, and return the bytes that are taken then.

    On a GPU these are the bytes of tensors there, on a CPU what `resident_bytes` says.
    """
    # Models and hooks refer to each other in circles.
    gc.collect()
    if device.startswith("cuda"):
        import torch

        torch.cuda.empty_cache()
        return int(torch.cuda.memory_allocated(device))
    if device == "mps":
        import torch

        torch.mps.empty_cache()
        return int(torch.mps.current_allocated_memory())
    if (trim := getattr(_c_library(), "malloc_trim", None)) is not None:
        # glibc keeps what was freed between pieces that are in use.
        trim(0)
    return resident_bytes(apart)


def resident_bytes(apart: Collection[Path] = ()) -> int:
    """What this process needs in memory, in bytes, without files in the directories `apart`.

    Counted are memory that no file backs, swapped out or not, and mapped files of weights with all their bytes: every
    pass needs all of those. How much of a file is in memory says nothing, as the system drops pages and reads them
    again; of an index's features that is as much as may be needed.
    """
    try:
        lines = _MAPPINGS.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return int(psutil.Process().memory_info().rss)
    places = tuple(f"{place}/" for place in apart)
    taken, counted = 0, _OWN
    for line in lines:
        if found := _MAPPING.match(line):
            weights = found[1].endswith(_WEIGHTS) and not (places and found[1].startswith(places))
            counted = _WHOLE if weights else _OWN
        elif line.startswith(counted):
            taken += int(line.split()[1]) * _KIB
    return taken


def ran_out(error: BaseException | None) -> bool:
    """Whether memory that there wasn't is behind an error, also where a library or ours made another of it."""
    while error is not None:
        said = str(error).lower()
        if isinstance(error, MemoryError) or any(words in said for words in _RAN_OUT):
            return True
        error = error.__cause__ or error.__context__
    return False


@lru_cache(maxsize=1)
def _c_library() -> Any:
    try:
        return ctypes.CDLL(None)
    except (OSError, TypeError):
        return None
