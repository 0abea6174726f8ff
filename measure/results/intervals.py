"""The page intervals.md: how many intervals of shares hold (das evaluate intervals)."""

from pathlib import Path

from measure.results.cells import table
from measure.results.reports import Report, reports

KIND = "intervals"

_HEAD = """# Intervals of shares

Made by `das results write` from the JSON files beside it; each is what `das evaluate intervals` wrote.

An interval holds if it contains the share that the index of the same works and options has at 100 timesteps, on
generations that took no part in measuring the noise. They are meant to be 95 % intervals; 90 to 99 % is the aim.
*Width* is the mean distance of their ends, in points of share. How far they reach (z) was chosen on activations of
the demo's model and works; the other sections had no say in it, but for *repeats-cifar2-8*: that noise is taken as a
straight line in the share came of it. [How they are
made](../method.md#how-uncertain-a-share-is).
"""


def intervals_page(folder: Path) -> str:
    """The page, from every `intervals-NAME.json`."""
    return "\n".join([_HEAD, *(_section(name, report) for name, report in reports(folder, KIND).items())])


def _section(name: str, report: Report) -> str:
    stem, index = f"{KIND}-{name}", report["index"]
    channels, height, width = index["sample_shape"]
    return "\n".join(
        [
            f"## {name}\n",
            f"{index['works']:,} works, {width} × {height} × {channels}; {index['method']} with"
            f" {', '.join(index['sets'])} at {index['timesteps']} timesteps, held against {index['many_timesteps']};"
            f" {report['pictures']} pictures. [{stem}.json]({stem}.json)\n",
            f"`{report['command']}`, torch {report['versions']['torch']}.\n",
            table(
                ["shares", "number", "intervals that hold, %", "95 %", "width"],
                [
                    [
                        row["what"],
                        str(row["count"]),
                        f"{row['covered']:.1f}",
                        f"{row['low']:.1f} to {row['high']:.1f}",
                        f"{row['mean_width']:.1f}",
                    ]
                    for row in report["coverage"]
                ],
            ),
            "",
            table(
                ["the first work is", "number", "it is first at many timesteps too, %", "95 %"],
                [
                    [
                        "clearly first" if row["clearly_first"] else "close to the second",
                        str(row["count"]),
                        "–" if row["rate"] is None else f"{row['rate']:.1f}",
                        "–" if row["rate"] is None else f"{row['low']:.1f} to {row['high']:.1f}",
                    ]
                    for row in report["first_place"]
                ],
            ),
            "",
        ]
    )
