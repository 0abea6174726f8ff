"""The page copies.md: which copies of works are found, and what is taken for one (das evaluate copies)."""

from pathlib import Path
from typing import Any

from das.copies import COPY_BITS, LEAST_QUALITY, NEAR_BITS
from measure.results.cells import table
from measure.results.reports import Report, Row, reports

KIND = "copies"

_HEAD = f"""# Copies of works

Made by `das results write` from the JSON files beside it; each is what `das evaluate copies` wrote.

A picture is compared with all works by PDQ hashes, as it is and mirrored: *copy* up to {COPY_BITS} different bits of
256, *near* up to {NEAR_BITS}; *unclear*, and no verdict, where PDQ's quality of the picture is below {LEAST_QUALITY}.
Rates are in percent with 95 % intervals (Wilson). What the verdicts mean, and how the limits came about, is in
[decision 21](../decisions/0021-copies-are-another-verdict.md).
"""

_FOUND = """### Copies that are found

*Told*: called a copy, with the right work among those that are named. *Of the clear*: the same among pictures that
have enough structure.
"""

_OTHERS = """### Pictures that are no copies

*Called a copy* and *at least near* are false alarms here, as far as the sets hold no copies. *Most alike*: the
highest score of any of them, the part of equal bits with the work that is most like it.
"""


def copies_page(folder: Path) -> str:
    """The page, from every `copies-NAME.json`."""
    return "\n".join([_HEAD, *(_section(name, report) for name, report in reports(folder, KIND).items())])


def _section(name: str, report: Report) -> str:
    stem = f"{KIND}-{name}"
    index = report["index"]
    least, most = index["shortest_sides"]
    sides = f"{least}" if least == most else f"{least} to {most}"
    counts = ["pictures", "as they arrive", "number", "copy", "near", "none", "unclear"]
    return "\n".join(
        [
            f"## {name}\n",
            f"{index['works']:,} works, shorter sides of {sides} pixels. [{stem}.json]({stem}.json)\n",
            f"`{report['command']}`, seed {report['seed']}.\n",
            _FOUND,
            table(
                [*counts, "told, %", "at least near, %", "told of the clear, %"],
                [
                    [
                        *_counts(row),
                        *(_rate(row[rate]) for rate in ("told", "at_least_near", "told_of_clear")),
                    ]
                    for row in report["copies"]
                ],
            ),
            "",
            _OTHERS,
            table(
                [*counts, "called a copy, %", "at least near, %", "most alike"],
                [
                    [
                        *_counts(row),
                        *(_rate(row[rate]) for rate in ("told", "at_least_near")),
                        "–" if row["highest_score"] is None else f"{row['highest_score']:.2f}",
                    ]
                    for row in report["others"]
                ],
            ),
            "",
        ]
    )


def _counts(row: Row) -> list[str]:
    names = ("count", "copy", "near", "none", "unclear")
    return [row["set"], row["arrival"], *(str(row[name]) for name in names)]


def _rate(rate: dict[str, Any] | None) -> str:
    return "–" if rate is None else f"{rate['rate']:.1f} ({rate['low']:.1f} to {rate['high']:.1f})"
