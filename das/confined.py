"""Processes of ours that may die, so that the service doesn't: what they are started with, and their limits."""

import os
import resource
import sys
from pathlib import Path

# `-I` keeps the environment and the working directory out; the module path of the service is handed over
# instead, made absolute now, because the service may change its directory before a process is started.
MODULE_PATH = [str(Path(path).resolve()) for path in sys.path]


def bare_environment() -> dict[str, str]:
    """Nothing of the service's settings and secrets, and no threads for NumPy, which cost address space."""
    kept = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "LANG", "TMPDIR")
    environment = {name: os.environ[name] for name in kept if name in os.environ}
    return environment | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


def limit_resources(memory_bytes: int) -> None:
    """Bound this process's memory; it can write no file and leaves no core."""
    for limit, value in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_DATA, memory_bytes),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
    ):
        _, hard = resource.getrlimit(limit)
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(limit, (value, value))
