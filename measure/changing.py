"""What it takes to add works to an index and to remove some, against building it again: the same commands, timed."""

import json
import os
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from PIL import Image

from das.durable import write_bytes
from das.errors import SettingsError
from das.index import AttributionIndex
from measure.report import versions


def measure_changes(
    model: str, folder: Path, *, works: int, part: float, size: int, preset: str, device: str
) -> dict[str, Any]:
    """Build an index of random pictures, remove a part of them, and add as many others, each by its command.

    Args:
        folder: where works and indexes are put; it is empty, or isn't there yet.
        part: how many come and go, as a part of `works`.
        size: side of a picture.

    Returns:
        Wall and CPU time of each command with its start and its loading, and its stages; as parts of the build's
        each, and, `loaded`, those of the stages alone after the model was loaded.

    Raises:
        SettingsError: there is something in the folder, too little changes, or a command failed.
    """
    count = round(part * works)
    if not 1 <= count <= works - 2:
        raise SettingsError(
            f"{part:.3g} of {works:,} works are {count:,}; that is too few, or too many, to change."
        )
    if folder.exists() and any(folder.iterdir()):
        raise SettingsError(f"{folder} isn't empty; choose another --folder.")
    _write_pictures(folder / "works", range(works), size)
    _write_pictures(folder / "further", range(works, works + count), size)
    load = os.getloadavg()[0]
    building: list[str | Path] = [
        "build",
        "--model",
        model,
        "--works",
        folder / "works",
        "--out",
        folder / "index",
    ]
    building += ["--preset", preset, "--no-screening", "--references", "0"]
    built = _timed(*building, "--device", device)
    index = AttributionIndex.open(folder / "index")
    rows = [place * works // count for place in range(count)]
    listed = folder / "list.txt"
    write_bytes(listed, "".join(f"{index.works.id_of(row)}\n" for row in rows).encode())
    removing: list[str | Path] = [
        "index",
        "remove",
        folder / "index",
        "--works",
        listed,
        "--out",
        folder / "without",
    ]
    removed = _timed(*removing, "--device", device)
    adding: list[str | Path] = [
        "index",
        "add",
        folder / "index",
        "--works",
        folder / "further",
        "--out",
        folder / "more",
    ]
    added = _timed(*adding, "--device", device)
    manifest = index.manifest
    return {
        "model": {
            "class": manifest.model.identity.get("class"),
            "attributed": manifest.model.attributed_parameters,
        },
        "works": works,
        "changed": count,
        "size": size,
        "preset": preset,
        "sets": list(manifest.features.sets),
        "dimension": manifest.features.dimension,
        "timesteps": list(manifest.timesteps),
        "build": built,
        "remove": removed,
        "add": added,
        "remove_to_build": round(removed["wall_s"] / built["wall_s"], 4),
        "add_to_build": round(added["wall_s"] / built["wall_s"], 4),
        "remove_to_build_cpu": round(removed["cpu_s"] / built["cpu_s"], 4),
        "add_to_build_cpu": round(added["cpu_s"] / built["cpu_s"], 4),
        "remove_to_build_loaded": round(_work_s(removed) / _work_s(built), 4),
        "add_to_build_loaded": round(_work_s(added) / _work_s(built), 4),
        "device": device,
        "machine": {
            "processor": platform.machine(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "memory_bytes": psutil.virtual_memory().total,
            "load_average_before": round(load, 1),
        },
        "versions": versions(),
    }


def _write_pictures(folder: Path, numbers: range, size: int) -> None:
    folder.mkdir(parents=True)
    for number in numbers:
        pixels = np.random.default_rng(number).integers(0, 256, (size, size, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"work-{number:06d}.png")


def _timed(*words: str | Path) -> dict[str, Any]:
    """Run a `das` command to its end; its wall and CPU time and the seconds of its stages."""
    command = [sys.executable, "-c", "from das.cli import main; main()", *map(str, words), "--json"]
    began, cpu = time.monotonic(), _cpu_of_children()
    ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    wall = time.monotonic() - began
    if ended.returncode:
        raise SettingsError(f"das {' '.join(map(str, words[:2]))} ended with {ended.returncode}.")
    seconds = json.loads(ended.stdout.splitlines()[-1])["seconds"]
    return {
        "wall_s": round(wall, 2),
        "cpu_s": round(_cpu_of_children() - cpu, 2),
        "stages_s": {name: round(value, 2) for name, value in seconds.items()},
    }


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _work_s(told: dict[str, Any]) -> float:
    """Seconds of the stages that do something with works: all but loading the model."""
    return float(sum(value for name, value in told["stages_s"].items() if name != "loading"))
