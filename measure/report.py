"""Rows of a measurement: JSON lines for machines, a table for people, a file that says where they come from."""

import json
import os
import platform
import shlex
import sys
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import psutil
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from das.durable import write_bytes

if TYPE_CHECKING:
    from measure.truth import Subject

PACKAGES = ("das-attribution", "torch", "diffusers", "numpy")
# What a table has room for; the rest is for machines.
SHOWN = frozenset(
    {"label", "lds", "95 %", "difference", "its 95 %", "regret", "ceiling"}
    | {"skipped", "removed", "queries", "l2", "clip_similarity", "function", "pearson"}
    | {"spearman", "pairs", "embedding", "candidates", "recall", "lds_lost"}
    | {
        "loss",
        "loss_top1",
        "loss_lead",
        "loss_perfect",
        "prediction",
        "prediction_top1",
        "prediction_perfect",
    }
)


class _Interval(NamedTuple):
    name: str
    high: str


_OF_LOW = {"low": _Interval("95 %", "high"), "difference_low": _Interval("its 95 %", "difference_high")}
_HIGH = frozenset(interval.high for interval in _OF_LOW.values())
_WORDS = frozenset({"label", "function", "embedding"})
NOTHING = "–"
_NOTE = "--note"


def command_line() -> str:
    """The command that is running. Where a directory lies is nobody's business but this machine's."""
    words = [
        word
        for before, word in zip(sys.argv, sys.argv[1:], strict=False)
        if before != _NOTE and not (word + "=").startswith(_NOTE + "=")
    ]
    return shlex.join(["das", *map(_without_place, words)])


def noted(note: str | None) -> dict[str, str]:
    """A report's `note`: what a person has to say of the run, if anything; the command is told without it."""
    return {"note": note} if note else {}


def _without_place(word: str) -> str:
    """The last name of a path, also in NAME=PATH."""
    name, separator, place = word.rpartition("=")
    return f"{name}{separator}{Path(place).name}" if "/" in place else word


def tell_report(report: dict[str, Any], lines: Iterable[str], out: Path | None, as_json: bool) -> None:
    """Write a report to `out`, and print it: as JSON, or the lines that say it."""
    if out is not None:
        write_bytes(out, (json.dumps(report, ensure_ascii=False, indent=1) + "\n").encode())
    if as_json:
        sys.stdout.write(json.dumps(report, ensure_ascii=False) + "\n")
        return
    console = Console(highlight=False, markup=False, soft_wrap=True)
    for line in lines:
        console.print(line)


def versions() -> dict[str, str]:
    """Of what computes the figures."""
    return {name: version(name) for name in PACKAGES} | {"python": platform.python_version()}


def machine() -> dict[str, Any]:
    """What computes: kind of processor, cores that this process may use, memory, and how busy it is already."""
    return {
        "processor": platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "load_average_before": round(os.getloadavg()[0], 1),
    }


def truth_record(truth: "Subject") -> dict[str, Any]:
    """What a reader has to know of the ground truth behind some figures.

    `plan` is all that the command was told that made the truth, where it says so, and `training` the steps and batch
    in it.
    """
    from das.gradients import attributed_parameters
    from measure.plan import PLAN
    from measure.truth import KINDS

    path = truth.directory / PLAN
    plan = json.loads(path.read_text()) if path.is_file() else None
    recipe = None if plan is None else plan.get("recipe")
    steps = ("steps", "full_steps", "batch_size")
    network = truth.model().network
    attributed = attributed_parameters(network, "auto").values()
    return {
        "works": len(truth.works),
        "stream": int(truth.repeats.sum()),
        "shape": list(truth.works.shape[1:]),
        "queries": {kind: len(truth.queries_of(kind)) for kind in KINDS},
        **_trained(truth),
        "parameters": sum(weights.numel() for weights in network.parameters()),
        "attributed": sum(weights.numel() for weights in attributed),
        "lora": truth.lora is not None,
        "training": None if recipe is None else {name: recipe.get(name) for name in steps},
        "plan": plan,
    }


def _trained(truth: "Subject") -> dict[str, Any]:
    """The models of a truth.

    `share` is the mean part of the works in a subset, `repeated` counts the subsets with several models (which the
    ceiling comes from).
    """
    import numpy as np

    from measure.groups import GroupTruth
    from measure.statistics import ceilings
    from measure.truth import GroundTruth

    if isinstance(truth, GroupTruth):
        models, seeds, _ = truth.losses.shape
        return {
            "groups": truth.without.shape[1],
            "sizes": np.bincount(truth.groups).tolist(),
            "seeds": seeds,
            "models": models * seeds,
        }
    assert isinstance(truth, GroundTruth)
    run = ~np.isnan(truth.losses).any(2)
    return {
        "subsets": len(truth.members),
        "share": float(truth.members.mean()),
        "seeds": int(run.any(0).sum()),
        "repeated": int((run.sum(1) > 1).sum()),
        "models": int(run.sum()),
        "ceiling": ceilings(truth.losses)["ceiling"],
    }


def write_report(
    path: Path, rows: list[dict[str, Any]], seed: int, truth: dict[str, Any] | None = None
) -> None:
    """Write the rows with the command that made them, its seed, the versions of what computed them and the truth."""
    report = {
        "command": command_line(),
        "seed": seed,
        "versions": versions(),
        "truth": truth,
        "rows": rows,
    }
    write_bytes(path, (json.dumps(report, indent=1, ensure_ascii=False) + "\n").encode())


def print_rows(rows: list[dict[str, Any]], as_json: bool) -> None:
    """Print the rows: one JSON object a line, or a table that 80 columns have room for.

    Intervals stand in one column behind what they are of. What is the same in all rows, and why a row has no figures,
    is said below.
    """
    if as_json:
        for row in rows:
            sys.stdout.write(json.dumps(row, ensure_ascii=False) + "\n")
        return
    shown = [{key: _shown(value) for key, value in _paired(row).items() if key in SHOWN} for row in rows]
    measured = [row for row in shown if "skipped" not in row]
    keys = list(dict.fromkeys(key for row in measured for key in row))
    same = [key for key in keys if len(measured) > 1 and len({row.get(key) for row in measured}) == 1]
    console = Console(highlight=False, markup=False)
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    columns = [key for key in keys if key not in same]
    for key in columns:
        table.add_column(key.replace("_", " "), justify="left" if key in _WORDS else "right", overflow="fold")
    for row in measured:
        table.add_row(*(row.get(key, NOTHING) for key in columns))
    if measured:
        console.print(table)
    for key in same:
        console.print(f"{key.replace('_', ' ')}: {measured[0][key]}")
    for row in shown:
        if "skipped" in row:
            console.print(f"{row['label']}: {row['skipped']}")


def _paired(row: dict[str, Any]) -> dict[str, Any]:
    """A row with each interval as one text, where its lower end stood."""
    paired: dict[str, Any] = {}
    for key, value in row.items():
        if key in _OF_LOW:
            high = row[_OF_LOW[key].high]
            paired[_OF_LOW[key].name] = None if value is None else f"{_shown(value)} to {_shown(high)}"
        elif key not in _HIGH:
            paired[key] = value
    return paired


def _shown(value: Any) -> str:
    if value is None:
        return NOTHING
    if isinstance(value, float):
        return f"{value:.2f}" if abs(value) < 1 else f"{value:.1f}"
    if isinstance(value, list):
        return "+".join(map(str, value))
    return str(value)
