"""All contenders in turn, round by round, each time in a process of its own after a plain pass."""

import gc
import json
import os
import platform
import resource
import signal
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import psutil
import torch

from das.errors import SettingsError
from measure.peers.contenders import CONTENDERS
from measure.peers.task import Pairs, pairs_of
from measure.report import versions

_CLEAR_PEAK = "5"
"""Written to `/proc/self/clear_refs`, sets the peak of resident memory to what is resident now (proc(5))."""

_IMPORTED = [
    *("measure.peers.contenders", "das.models.ddpm", "diffusers.models.unets.unet_2d", "torch._dynamo"),
    *("trak", "dattri.algorithm.trak", "dattri.algorithm.logra", "kronfluence.analyzer"),
]
"""What is imported once for all contenders, of the libraries that are installed."""

Progress = Callable[[int, str, str], None]


def side_by_side(
    models: Sequence[str],
    *,
    names: Sequence[str],
    images: Sequence[int],
    timesteps: int,
    dimension: int,
    batch_size: int,
    rounds: int,
    memory: float,
    limit_s: int,
    progress: Progress,
) -> Iterator[dict[str, Any]]:
    """Measure contenders at the same pairs of each network.

    Args:
        models: pipelines of pixels.
        images: of each model.
        names: of `CONTENDERS`.
        memory: gigabytes that a contender may allocate, so that one that asks for more fails and the machine doesn't.
        limit_s: seconds of CPU time after which a contender's process is ended.
        progress: called with the round, the model and the contender before each measurement.

    Yields:
        After each round, for each network and contender CPU and wall seconds a pair, the ratio of CPU time to a plain
        forward and backward pass, peak memory, and why it failed where it did. One that failed isn't tried again.

    Raises:
        SettingsError: a contender or a model can't be used.
    """
    unknown = sorted(set(names) - CONTENDERS.keys())
    if unknown:
        raise SettingsError(
            f"There are no contenders {', '.join(unknown)}; there are {', '.join(CONTENDERS)}."
        )
    if len(images) != len(models):
        raise SettingsError(f"{len(models)} models need as many numbers of images, not {len(images)}.")
    options = {"timesteps": timesteps, "dimension": dimension, "batch_size": batch_size}
    load = os.getloadavg()[0]
    found: dict[tuple[str, str], list[dict[str, Any]]] = {
        (model, name): [] for model in models for name in names
    }
    images_of = dict(zip(models, images, strict=True))
    for round_ in range(rounds):
        for (model, name), runs in found.items():
            if any("failed" in run for run in runs):
                continue
            progress(round_, model, name)
            library = CONTENDERS[name].library
            if library is not None and installed(library) is None:
                runs.append({"failed": "not installed"})
            else:
                asked = {"model": model, "contender": name, "images": images_of[model], **options}
                runs.append(_in_process(asked, memory=memory, limit_s=limit_s))
        yield {
            **options,
            "rounds": round_ + 1,
            "memory_limit_gb": memory,
            "limit_s": limit_s,
            "networks": [
                {
                    "parameters": _parameters([run for name in names for run in found[model, name]]),
                    "pairs": images_of[model] * timesteps,
                    "contenders": {name: _summary(name, found[model, name]) for name in names},
                }
                for model in models
            ],
            "libraries": {
                one.library: installed(one.library) for one in CONTENDERS.values() if one.library is not None
            },
            "machine": {
                "processor": platform.machine(),
                "cores": os.cpu_count(),
                "threads": torch.get_num_threads(),
                "memory_bytes": psutil.virtual_memory().total,
                "load_average_before": round(load, 1),
            },
            "versions": versions(),
        }


def installed(library: str) -> str | None:
    """The version of a distribution, or None where it isn't installed."""
    try:
        return version(library)
    except PackageNotFoundError:
        return None


def _parameters(runs: list[dict[str, Any]]) -> int | None:
    return next((run["parameters"] for run in runs if "parameters" in run), None)


def _summary(name: str, runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians over the rounds of one contender."""
    told: dict[str, Any] = {"what": CONTENDERS[name].what, "library": CONTENDERS[name].library}
    failed = next((run["failed"] for run in runs if "failed" in run), None)
    if failed is not None:
        return {**told, "failed": failed}
    ratios = [run["cpu_s"] / run["plain_cpu_s"] for run in runs]
    pairs = runs[0]["pairs"]
    return {
        **told,
        "ratio": round(statistics.median(ratios), 3),
        "ratio_low": round(min(ratios), 3),
        "ratio_high": round(max(ratios), 3),
        **{
            f"{key}_per_pair": round(statistics.median(run[key] for run in runs) / pairs, 4)
            for key in ("cpu_s", "wall_s", "plain_cpu_s")
        },
        "prepare_cpu_s": round(statistics.median(run["prepare_cpu_s"] for run in runs), 2),
        "memory_bytes": round(statistics.median(run["memory_bytes"] for run in runs)),
        "plain_memory_bytes": round(statistics.median(run["plain_memory_bytes"] for run in runs)),
        "differs": max((run["differs"] for run in runs if run["differs"] is not None), default=None),
        "runs": len(runs),
    }


def _in_process(asked: dict[str, Any], *, memory: float, limit_s: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "told.json"
        # Forked from a process that has only imported, so that the start isn't paid for each contender and round.
        context = get_context("forkserver")
        context.set_forkserver_preload(_IMPORTED)
        process = context.Process(target=measure_one, args=(asked, memory, limit_s, Path(folder), out))
        process.start()
        process.join()
        if out.is_file():
            told: dict[str, Any] = json.loads(out.read_text())
            return told
        code = process.exitcode or 0
    if code == -signal.SIGXCPU:
        return {"failed": f"not done after {limit_s} s of CPU time"}
    return {
        "failed": f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    }


def measure_one(asked: dict[str, Any], memory: float, limit_s: int, parent: Path, out: Path) -> None:
    """Measure one contender once, in this process, and write what was found to `out`.

    The limits of memory and CPU time stay on the process, and its output goes nowhere: libraries print on both
    channels.
    """
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    contender = CONTENDERS[asked["contender"]]
    gigabytes = int(memory * 1e9)
    resource.setrlimit(resource.RLIMIT_DATA, (gigabytes, gigabytes))
    resource.setrlimit(resource.RLIMIT_CPU, (limit_s, limit_s + 5))
    folder = parent / "library"
    folder.mkdir()
    options = {key: asked[key] for key in ("images", "timesteps", "dimension", "batch_size")}
    pairs = pairs_of(asked["model"], folder, probes=contender.probes, **options)
    # Once without a clock, as allocators and kernels are slower at first.
    pairs.plain()
    plain = _measured(pairs.plain)
    parameters = sum(weights.numel() for weights in pairs.network.parameters())
    cpu = time.process_time()
    try:
        work = contender.prepare(pairs)
        prepare_cpu_s = time.process_time() - cpu
        told = _measured(work)
    # What a library can't do is the finding.
    except Exception as error:  # noqa: BLE001
        first = (str(error).strip() or "no reason told").splitlines()[0]
        out.write_text(json.dumps({"failed": f"{type(error).__name__}: {' '.join(first.split())}"}))
        return
    found = told.pop("found")
    told |= {
        "prepare_cpu_s": prepare_cpu_s,
        "plain_cpu_s": plain["cpu_s"],
        "plain_memory_bytes": plain["memory_bytes"],
        "differs": None if found is None else _difference(pairs, found),
        "pairs": len(pairs.t),
        "parameters": parameters,
    }
    out.write_text(json.dumps(told))


def _measured(work: Callable[[], Any]) -> dict[str, Any]:
    gc.collect()
    Path("/proc/self/clear_refs").write_text(_CLEAR_PEAK)
    cpu, wall = time.process_time(), time.perf_counter()
    found = work()
    return {
        "cpu_s": time.process_time() - cpu,
        "wall_s": time.perf_counter() - wall,
        "memory_bytes": _peak_memory(),
        "found": found,
    }


def _peak_memory() -> int:
    """The largest resident memory of this process since the peak was cleared, in bytes."""
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def _difference(pairs: Pairs, found: torch.Tensor) -> float:
    """How far sketched gradients are from das's, as a part of the norm, at the worst pair."""
    ours = pairs.extractor.features(pairs.x0).by_probe["loss"].flatten(0, 1)
    return float(((found - ours).norm(dim=1) / ours.norm(dim=1)).max())
