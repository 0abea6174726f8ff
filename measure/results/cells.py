"""Figures as a page tells them: cells, and tables of them. A figure that an older report lacks shows as –."""

from typing import Any

from measure.results.reports import Row


def difference(row: Row) -> str:
    """Against the paper's DAS, with its interval."""
    if row.get("difference") is None:
        return "–"
    return f"{row['difference']:+.1f} ({span(row['difference_low'], row['difference_high'])})"


def span(low: float, high: float) -> str:
    """From one figure to another."""
    return f"{low:.1f} to {high:.1f}"


def both(row: Row | None, name: str) -> str:
    """A figure for validation and generated queries, or the one for all."""
    if row is None:
        return "–"
    if f"{name}_generated" in row:
        return f"{one(row[f'{name}_validation'])} / {one(row[f'{name}_generated'])}"
    return one(row[name])


def one(value: float | None) -> str:
    """A figure of a table of LDS."""
    return "–" if value is None else f"{value:.1f}"


def shown(value: Any) -> str:
    """A cell."""
    if value is None:
        return "–"
    if isinstance(value, list):
        return ", ".join(map(shown, value))
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def table(head: list[str], body: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"
