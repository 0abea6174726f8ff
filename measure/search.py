"""What it takes to ask an index: time and memory of opening it, of the first answer, and of later ones."""

import io
import os
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image

from das.attribution import Attributor
from das.index import AttributionIndex
from measure.report import versions

T = TypeVar("T")


def anonymous_bytes() -> int:
    """Memory of this process that no file backs; mapped features and works aren't in it."""
    rollup = Path("/proc/self/smaps_rollup").read_text()
    line = next(line for line in rollup.splitlines() if line.startswith("Anonymous:"))
    return int(line.split()[1]) * 1024


def measure_search(path: Path, answers: int, device: str) -> dict[str, Any]:
    """Open an index and ask for its own works' thumbnails among all works, one after another.

    Args:
        answers: how many after the first.

    Returns:
        Of each step wall and CPU time in milliseconds and by how many bytes anonymous memory grew; of the answers
        without the gradients, which don't depend on how many works there are, the median of those after the first.
    """
    load = os.getloadavg()[0]
    index, opening = _timed(lambda: AttributionIndex.open(path))
    attributor, loading = _timed(lambda: Attributor(index, device=device))
    after_gradients, steps = [], []
    for row in range(answers + 1):
        with Image.open(io.BytesIO(index.thumbnail(row % len(index)))) as image:
            pixels = np.asarray(image.convert("RGB"))
        answer, step = _timed(lambda pixels=pixels: attributor.attribute(pixels))  # type: ignore[misc]
        after_gradients.append(step["wall_ms"] - answer.timings_ms["gradients"])
        steps.append({**step, **{f"{name}_ms": value for name, value in answer.timings_ms.items()}})
    record = index.manifest.features
    return {
        "versions": versions(),
        "works": len(index),
        "dimension": record.dimension,
        "dtype": record.dtype,
        "sets": len(record.sets),
        "feature_bytes": sum(
            entry.bytes for name, entry in index.manifest.files.items() if name.startswith("features/")
        ),
        "threads": torch.get_num_threads(),
        "load": round(load, 2),
        "device": device,
        "opening": opening,
        "loading": loading,
        "first": steps[0],
        "later": steps[1:],
        "after_gradients_ms": round(statistics.median(after_gradients[1:]), 1),
    }


def _timed(work: Callable[[], T]) -> tuple[T, dict[str, Any]]:
    memory, cpu, began = anonymous_bytes(), _cpu_s(), time.perf_counter()
    found = work()
    return found, {
        "wall_ms": round((time.perf_counter() - began) * 1e3, 1),
        "cpu_ms": round((_cpu_s() - cpu) * 1e3, 1),
        "grew_bytes": anonymous_bytes() - memory,
    }


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
