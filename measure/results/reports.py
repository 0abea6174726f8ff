"""What the commands of `das evaluate` wrote with `--out`: lds-NAME.json, counterfactual-NAME.json and so on."""

import json
from pathlib import Path
from typing import Any

Report = dict[str, Any]
Row = dict[str, Any]

KINDS = ("lds", "groups", "counterfactual", "output-function", "screening")
UNTRAINED = "--untrained"


def reports(folder: Path, kind: str) -> dict[str, Report]:
    """The reports of a kind, by the name after it, in the order of names."""
    found = {path.stem.removeprefix(f"{kind}-"): path for path in folder.glob(f"{kind}-*.json")}
    return {name: json.loads(found[name].read_text()) for name in sorted(found)}


def main_rows(report: Report) -> list[Row]:
    """The rows of the comparison that were measured."""
    return [row for row in report["rows"] if "skipped" not in row and "varied" not in row]


def varied_rows(report: Report, varied: str) -> dict[str, list[Row]]:
    """The rows of a curve by estimator."""
    found: dict[str, list[Row]] = {}
    for row in report["rows"]:
        if row.get("varied") == varied and "skipped" not in row:
            found.setdefault(row["label"], []).append(row)
    return found


def is_part(report: Report) -> bool:
    """Whether only some of the rows were asked for, or of a network before its training."""
    return "--method" in report["command"] or UNTRAINED in report["command"]
