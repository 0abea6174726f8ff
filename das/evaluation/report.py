"""Rows of a measurement: JSON lines for machines, a table for people, a file that says where they come from."""

import json
import platform
import shlex
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

PACKAGES = ("das-attribution", "torch", "diffusers", "numpy")
# What a table has room for; the rest is for machines.
SHOWN = frozenset(
    {"label", "lds", "low", "high", "chosen_lds", "oracle_lds", "ceiling", "damping", "backward_passes"}
    | {"bytes_per_work", "skipped", "removed", "queries", "l2", "clip_similarity", "function", "pearson"}
    | {"spearman", "pairs", "embedding", "candidates", "recall", "lds_lost"}
)


def write_report(path: Path, rows: list[dict[str, Any]], seed: int) -> None:
    """Write the rows with the command that made them, its seed and the versions of what computed them."""
    # Where a directory lay is nobody's business but this machine's.
    words = [Path(word).name if "/" in word else word for word in sys.argv[1:]]
    report = {
        "command": shlex.join(["das", *words]),
        "seed": seed,
        "versions": {name: version(name) for name in PACKAGES} | {"python": platform.python_version()},
        "rows": rows,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")


def print_rows(rows: list[dict[str, Any]], as_json: bool) -> None:
    """Print the rows: one JSON object a line, or a table with a column for everything that a row says."""
    if as_json:
        for row in rows:
            sys.stdout.write(json.dumps(row, ensure_ascii=False) + "\n")
        return
    keys = dict.fromkeys(key for row in rows for key in row if key in SHOWN)
    table = Table(*(key.replace("_", " ") for key in keys))
    for row in rows:
        table.add_row(*(_shown(row.get(key)) for key in keys))
    Console(highlight=False, markup=False).print(table)


def _shown(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1 else f"{value:.1f}"
    if isinstance(value, list):
        return "+".join(map(str, value))
    return str(value)
