"""The section of the results about approximate search, as `das bench approximate` told of it."""

import json
from pathlib import Path
from typing import Any

from measure.results.cells import table

APPROXIMATE = "approximate*.json"
"""What `das bench approximate` wrote, a file for each number of works."""


def approximate_section(folder: Path) -> str:
    """Recall against time, and group shares from samples; nothing where it wasn't measured."""
    files = sorted(folder.glob(APPROXIMATE))
    if not files:
        return ""
    return "\n".join(["", "## Approximate search", *(_section(file) for file in files)])


def _section(file: Path) -> str:
    told: dict[str, Any] = json.loads(file.read_text())
    head = [
        "engine",
        "candidates of a sign",
        "recall at 20",
        "p50",
        "p95",
        "CPU, p50",
        "bytes a work",
        "made in",
    ]
    body = [
        [
            row["factory"],
            f"{row['depth']:,}",
            f"{row['recall_at_20']:.3f}",
            _ms(row["p50_ms"]),
            _ms(row["p95_ms"]),
            _ms(row["cpu_p50_ms"]),
            f"{row['bytes_per_work']:.0f}",
            f"{row['build_cpu_s']:,.0f} s of CPU",
        ]
        for row in told["approximate"]
    ]
    exact = told["exact"]
    sampled = [
        [
            f"{row['sample']:,}",
            f"{row['groups']}",
            f"{100 * row['median_relative_error']:.1f} %",
            f"{100 * row['inside_95']:.1f} %",
        ]
        for row in told["groups"]
    ]
    return f"""
`das bench approximate` ([{file.name}]({file.name})): {told["works"]:,} works of k = {told["dimension"]:,} in \
eight bits, {told["base_works"]:,} of them real
ones' whitened features and the others mixed of two; {told["queries"]} real queries, one at a time, on \
{told["threads"]} thread of a machine that was busy with other things.
The exact pass takes {exact["p50_ms"]:,.0f} ms ({exact["cpu_p50_ms"]:,.0f} ms of CPU). Candidates come from product \
quantisation, searched with the query and its negative, and the
stored features rank them. The 20 works ranked highest have {100 * told["share_of_top_works"]:.2f} % of the measured \
influence.

{table(head, body)}

Shares of groups, from a sample of the works and the exact sum over all of them, which is a quadratic form of the \
query and needs none:

{table(["sample", "groups", "relative error, median", "95 % intervals that hold"], sampled)}"""


def _ms(value: float) -> str:
    return f"{value:,.0f} ms" if value >= 10 else f"{value:.1f} ms"
