"""The sections on questions to an index: alone and together in one process, and among a million works."""

import statistics
from typing import Any

from measure.results.cells import table


def questions_section(told: list[dict[str, Any]]) -> str:
    """Questions alone and several in a pass, as `das bench query` told of an index each; nothing where none did."""
    if not told:
        return ""
    head = ["sets", "together", "wall", "of one alone", "CPU", "features", "scores", "load before"]
    body = [
        [
            f"{' and '.join(one['sets'])}, {one['timesteps']} timesteps",
            str(row["together"]),
            f"{row['wall_ms']:.0f} ms",
            f"{row['ratio']:.2f} ({row['ratio_low']:.2f} to {row['ratio_high']:.2f})",
            f"{row['cpu_ms']:.0f} ms",
            f"{row['gradients_ms']:.0f} ms",
            f"{row['scoring_ms']:.1f} ms",
            f"{one['machine']['load_average_before']:.1f}",
        ]
        for one in told
        for row in one["rows"]
    ]
    first = told[0]
    return f"""
## Questions in one process

`{first["command"]}`: {first["works"]:,} works, {first["threads"]} threads; what a question takes of a pass that so \
many share, the medians of {first["rounds"]} rounds.

{table(head, body)}"""


def search_section(told: list[dict[str, Any]]) -> str:
    """A large index asked in one process, as `das bench search` told of one each; nothing where none did."""
    if not told:
        return ""
    head = [
        "works",
        "features",
        "opening",
        "first answer",
        "scores and groups",
        "beside features",
        "load before",
    ]
    body = [
        [
            f"{one['works']:,}",
            f"{one['sets']} × {one['dimension']:,} in {one['dtype']}, {one['feature_bytes'] / 1e9:.1f} GB",
            f"{one['opening']['wall_ms']:.0f} ms, {_mib(one['opening'])}",
            f"{one['first']['wall_ms'] / 1e3:.1f} s, {_mib(one['first'])}",
            f"{statistics.median(step['scoring_ms'] for step in one['later']):.0f} ms",
            f"**{one['after_gradients_ms']:.0f} ms**",
            f"{one['load']:.1f}",
        ]
        for one in told
    ]
    first = told[0]
    return f"""
## Among all works of a large index

`{first["command"]}`, {first["threads"]} threads, features in the page cache; the median of \
{len(first["later"])} answers after the first, each exact over all works, with the shares of creators. MiB is by
how much memory that no file backs grew. The aim for a million works of k = 1,024 and two sets: 600 ms.

{table(head, body)}"""


def _mib(step: dict[str, Any]) -> str:
    return f"{step['grew_bytes'] / 2**20:+,.0f} MiB"
