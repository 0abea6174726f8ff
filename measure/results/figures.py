"""The figures of evaluation.md: SVG that come out the same every time."""

from pathlib import Path
from typing import Any

from measure.results.reports import Report, Row, main_rows, varied_rows

OURS, OTHERS, LINE = "#1b6ca8", "#a0a0a0", "#b03030"
# Forms of one method share a colour and differ in the stroke: a dozen colours can't be told apart.
COLOURS = {
    "trak": "#8c8c8c",
    "relative-influence": "#b5651d",
    "renormalised-influence": "#c9a227",
    "journey-trak": "#7a5195",
    "d-trak": "#2f7d4f",
    "das": "#d1495b",
    "das-block": OURS,
}
STROKES = ("-", "--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)))
# What one bar, and one line of a legend, takes in inches.
BAR, ENTRY = 0.26, 0.16


def figures_of(name: str, report: Report) -> list[tuple[str, str]]:
    """File names and alternative texts of a report's figures."""
    figures = []
    if main_rows(report):
        figures.append((f"lds-{name}-bars.svg", f"LDS of every estimator on {name}, with 95 % intervals"))
    if any("curve" in row for row in main_rows(report)):
        figures.append((f"lds-{name}-damping.svg", f"LDS on {name} for every λ of the grid"))
    for varied in ("dimension", "timesteps"):
        if varied_rows(report, varied):
            figures.append((f"lds-{name}-{varied}.svg", f"LDS on {name} by {varied}"))
    return figures


def draw(folder: Path, reports: dict[str, Report]) -> list[Path]:
    """Draw every figure of the reports of `das evaluate lds`."""
    import matplotlib

    matplotlib.use("svg")
    # Names of clip paths are drawn at random otherwise.
    matplotlib.rcParams |= {"svg.hashsalt": "das", "svg.fonttype": "path", "font.size": 9}
    matplotlib.rcParams |= {"axes.spines.top": False, "axes.spines.right": False}
    drawn = []
    for name, report in reports.items():
        for figure, _ in figures_of(name, report):
            varied = figure.removesuffix(".svg").rpartition("-")[2]
            painter = {"bars": bars, "damping": damping_curves}.get(varied)
            picture = painter(report) if painter else varied_curves(report, varied)
            picture.axes[0].set_title(name, loc="left", fontsize=9)
            picture.savefig(folder / figure, metadata={"Date": None}, bbox_inches="tight")
            drawn.append(folder / figure)
    return drawn


def bars(report: Report) -> Any:
    """LDS of every row with its interval; what real retrainings score as lines."""
    from matplotlib.figure import Figure

    rows = main_rows(report)[::-1]
    picture = Figure(figsize=(7, BAR * len(rows) + 1.2))
    axes = picture.subplots()
    values = [row["lds"] for row in rows]
    errors = [
        [max(0.0, row["lds"] - row["low"]) for row in rows],
        [max(0.0, row["high"] - row["lds"]) for row in rows],
    ]
    colours = [OURS if row["method"].startswith("das") else OTHERS for row in rows]
    axes.barh([row["label"] for row in rows], values, xerr=errors, color=colours, ecolor="#333333", capsize=2)
    if rows[0]["ceiling"] is not None:
        axes.axvline(rows[0]["ceiling"], color=LINE, linestyle="--", label="a second real retraining")
        axes.axvline(rows[0]["perfect"], color=LINE, linestyle=":", label="a perfect prediction, about")
        axes.legend(
            loc="upper left", bbox_to_anchor=(0, -0.6 / (BAR * len(rows) + 0.4)), ncols=2, frameon=False
        )
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.set_xlabel("LDS × 100")
    return picture


def damping_curves(report: Report) -> Any:
    """LDS against λ; the default rule's λ as a point."""
    from matplotlib.figure import Figure

    rows = [row for row in main_rows(report) if "curve" in row and row["preset"] is None]
    picture = Figure(figsize=(7, max(4.5, ENTRY * len(rows) + 0.5)))
    axes = picture.subplots()
    for row, (colour, stroke) in zip(rows, styles(rows), strict=True):
        axes.plot(*zip(*row["curve"], strict=True), color=colour, linestyle=stroke, label=row["label"])
        axes.plot(row["damping"], row["lds"], "o", color=colour, markersize=5)
    axes.set_xscale("log")
    axes.set_xlabel("λ in units of tr(K)/N; points: the default rule")
    return _with_legend(picture, axes)


def varied_curves(report: Report, varied: str) -> Any:
    """LDS against the sketch's dimension, or the number of timesteps."""
    from matplotlib.figure import Figure

    picture = Figure(figsize=(7, 4))
    axes = picture.subplots()
    curves = varied_rows(report, varied)
    looks = styles([rows[0] for rows in curves.values()])
    for (label, rows), (colour, stroke) in zip(curves.items(), looks, strict=True):
        places = [
            row["dimension"] if varied == "dimension" else timesteps_name(row["timesteps"]) for row in rows
        ]
        values = [row["lds"] for row in rows]
        axes.plot(places, values, marker="o", markersize=4, color=colour, linestyle=stroke, label=label)
    if varied == "dimension":
        places = sorted({row["dimension"] for rows in curves.values() for row in rows})
        axes.set_xscale("log", base=2)
        axes.set_xticks(places, [str(place) for place in places])
    axes.set_xlabel("k" if varied == "dimension" else "timesteps: number, first–last")
    return _with_legend(picture, axes)


def styles(rows: list[Row]) -> list[tuple[str, Any]]:
    """A colour for each method, and a stroke for each of its forms."""
    seen: dict[str, int] = {}
    found = []
    for row in rows:
        place = seen.setdefault(row["method"], 0)
        seen[row["method"]] += 1
        found.append((COLOURS.get(row["method"], "black"), STROKES[place % len(STROKES)]))
    return found


def timesteps_name(timesteps: list[int]) -> str:
    """Their number, with first and last."""
    if len(timesteps) == 1:
        return f"1\n{timesteps[0]}"
    return f"{len(timesteps)}\n{timesteps[0]}–{timesteps[-1]}"


def _with_legend(picture: Any, axes: Any) -> Any:
    axes.set_ylabel("LDS × 100")
    axes.legend(frameon=False, fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5), handlelength=3.5)
    return picture
