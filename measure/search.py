"""What it takes to ask an index: opening it, the first answer, later ones, and several that share a pass."""

import io
import os
import resource
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image

from das.attribution import Attributor
from das.index import AttributionIndex
from measure.report import versions

T = TypeVar("T")

TOGETHER = (1, 2, 4, 8)
"""Questions in a pass, if nobody says how many; 8 is what a worker takes at most by default."""


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
        pixels = _picture(index, row)
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


def measure_questions(
    path: Path, together: Sequence[int], method: str | None, rounds: int, threads: int | None, device: str
) -> dict[str, Any]:
    """Ask for the index's own works among all works, so many at once as each of `together` says, round by round.

    Returns:
        For each of `together` wall and CPU time of a question in milliseconds, its parts, and the wall time's ratio
        to that of one alone, or of the first number given: medians over the rounds, ratios with their range.
    """
    index = AttributionIndex.open(path)
    attributor = Attributor(index, device=device, threads=threads)
    pictures = [_picture(index, row) for row in range(max(together))]
    # The first answers load what later ones find loaded.
    attributor.attribute_batch(pictures[: together[0]], method=method)
    steps: dict[int, list[dict[str, float]]] = {count: [] for count in together}
    for _ in range(rounds):
        for count in together:
            answers, step = _timed(partial(attributor.attribute_batch, pictures[:count], method=method))
            parts = {f"{name}_ms": value for name, value in answers[0].timings_ms.items()}
            times = {"wall_ms": step["wall_ms"], "cpu_ms": step["cpu_ms"], **parts}
            steps[count].append({name: value / count for name, value in times.items()})
    rows = []
    for count, taken in steps.items():
        ratios = [
            one["wall_ms"] / alone["wall_ms"] for one, alone in zip(taken, steps[together[0]], strict=True)
        ]
        medians = {name: round(statistics.median(one[name] for one in taken), 2) for name in taken[0]}
        rows.append(
            {
                "together": count,
                **medians,
                "ratio": round(statistics.median(ratios), 3),
                "ratio_low": round(min(ratios), 3),
                "ratio_high": round(max(ratios), 3),
            }
        )
    manifest = index.manifest
    return {
        "versions": versions(),
        "works": len(index),
        "parameters": manifest.model.attributed_parameters,
        "method": answers[0].method,
        "sets": list(manifest.features.sets),
        "dimension": manifest.features.dimension,
        "timesteps": len(manifest.timesteps),
        "threads": torch.get_num_threads(),
        "device": device,
        "rounds": rounds,
        "rows": rows,
    }


def _picture(index: AttributionIndex, row: int) -> np.ndarray:
    """(H, W, 3) uint8: the thumbnail of a work, from the first again after the last."""
    with Image.open(io.BytesIO(index.thumbnail(row % len(index)))) as image:
        return np.asarray(image.convert("RGB"))


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
