"""The page uploads.md: pictures from elsewhere, and the model's own as they arrive (das evaluate uploads)."""

from pathlib import Path

from measure.results.cells import table
from measure.results.reports import Report, Row, reports

KIND = "uploads"

_HEAD = """# What people upload

Made by `das results write` from the JSON files beside it; each is what `das evaluate uploads` wrote.

*Error*: the part of the model's own pictures that aren't found `likely` to be, and of others' that are, with its
95 % interval (Wilson). *Named*: on how many the headline names a creator. No picture here took part in the fit: the
index's references are others. How the rule came about, and on what, is in
[decision 20](../decisions/0020-whether-the-model-made-the-picture.md).
"""

_ROBUST = """What the ranking of one of the model's own pictures becomes when it is re-encoded or changed on its way:
rank correlation of the scores of the 100 works that came first (aim: 0.9 for JPEG 75 and half size), the part of the
first 20 that stay among them, how often the first stays first, and how much of the creators' shares moves from one to
another. Means over the pictures with 95 % intervals.
"""


def uploads_page(folder: Path) -> str:
    """The page, from every `uploads-NAME.json`."""
    return "\n".join([_HEAD, *(_section(name, report) for name, report in reports(folder, KIND).items())])


def _section(name: str, report: Report) -> str:
    stem = f"{KIND}-{name}"
    index = report["index"]
    channels, height, width = index["sample_shape"]
    features = f"{', '.join(index['sets'])} at {index['timesteps']} timesteps"
    return "\n".join(
        [
            f"## {name}\n",
            f"{index['works']:,} works, {width} × {height} × {channels}; {index['method']} with {features};"
            f" {index['references']} references. [{stem}.json]({stem}.json)\n",
            f"`{report['command']}`, seed {report['seed']}, torch {report['versions']['torch']}.\n",
            table(
                [
                    "pictures",
                    "as they arrive",
                    "number",
                    "likely",
                    "unsure",
                    "unlikely",
                    "error, %",
                    "95 %",
                    "named",
                ],
                [_origin(row) for row in report["origin"]],
            ),
            "",
            _ROBUST,
            table(
                ["as they arrive", "rank correlation", "first 20 kept", "first kept", "shares moved"],
                [_robust(row) for row in report["robustness"]],
            ),
            "",
        ]
    )


def _origin(row: Row) -> list[str]:
    counts = [str(row[name]) for name in ("count", "likely", "unsure", "unlikely")]
    error = [f"{row['error']:.1f}", f"{row['low']:.1f} to {row['high']:.1f}"]
    name = "**the model's own**" if row["own"] else row["set"]
    return [name, row["arrival"], *counts, *error, str(row["names_a_creator"])]


def _robust(row: Row) -> list[str]:
    measures = ("correlation", "overlap", "same_first", "shares_moved")
    return [
        row["arrival"],
        *(f"{row[m]:.2f} ({row[f'{m}_low']:.2f} to {row[f'{m}_high']:.2f})" for m in measures),
    ]
