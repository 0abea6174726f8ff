"""Makes evaluation.md and its figures from the JSON beside it: `python docs/results/evaluation.py [FOLDER]`.

Reads what `das evaluate ... --out` wrote: lds-NAME.json (with or without --curves), counterfactual-NAME.json,
output-function-NAME.json and screening-NAME.json. Figures are SVG that come out the same every time.
"""

import json
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
KINDS = ("lds", "counterfactual", "output-function", "screening")
Report = dict[str, Any]
Row = dict[str, Any]


def reports(folder: Path, kind: str) -> dict[str, Report]:
    """The reports of a kind, by the name after it."""
    return {
        path.stem.removeprefix(f"{kind}-"): json.loads(path.read_text())
        for path in sorted(folder.glob(f"{kind}-*.json"))
    }


def page(folder: Path = HERE) -> str:
    """The page, from the figures as they were printed by the commands named in it."""
    parts = [
        "# Evaluation\n\nMade by `python docs/results/evaluation.py` from the JSON files beside it. LDS, ceiling and"
        " CLIP similarity are\ntimes 100; λ is in units of tr(K)/N. The commands are described in"
        " [operations](../operations.md).\n"
    ]
    for name, report in reports(folder, "lds").items():
        parts.append(lds_section(name, report))
    for kind, columns in COLUMNS.items():
        for name, report in reports(folder, kind).items():
            parts.append(plain_section(kind, name, report, columns))
    return "\n".join(parts)


def lds_section(name: str, report: Report) -> str:
    """Table and figures of one ground truth."""
    rows, skipped = main_rows(report), [row for row in report["rows"] if "skipped" in row]
    first = rows[0]
    split = "lds_generated" in first
    head = ["estimator", "LDS", "95 % interval", "λ chosen on half", "best λ"]
    head += ["validation", "generated"] if split else []
    head += ["λ", "timesteps", "k", "backward passes", "bytes/work"]
    body = []
    for row in rows:
        line = [row["label"], f"**{row['lds']:.1f}**", f"{row['low']:.1f} to {row['high']:.1f}"]
        line += [f"{row['chosen_lds']:.1f}", f"{row['oracle_lds']:.1f}"]
        line += [f"{row['lds_validation']:.1f}", f"{row['lds_generated']:.1f}"] if split else []
        line += [
            "–" if row["damping"] is None else f"{row['damping']:.1e}",
            str(len(row["timesteps"]) or "–"),
        ]
        body.append([*line, str(row["dimension"]), str(row["backward_passes"]), f"{row['bytes_per_work']:,}"])
    ceiling = ""
    if first["ceiling"] is not None:
        ceiling = (
            f" A second real retraining scores {first['ceiling']:.1f},"
            f" a perfect prediction of the mean over seeds about {first['perfect']:.1f}."
        )
    missing = "".join(f" Without {row['label']}: {row['skipped']}." for row in skipped)
    text = [
        f"## LDS: {name}\n",
        f"`{report['command']}`, seed {report['seed']}, torch {report['versions']['torch']}.{ceiling}"
        " λ is that of the default rule, which takes no retraining; all figures are means over the reporting"
        f" halves of random halvings, the interval is a bootstrap over all subsets.{missing}\n",
        table(head, body),
    ]
    text += [f"![{alt}]({figure})\n" for figure, alt in figures_of(name, report)]
    return "\n".join(text)


COLUMNS = {
    "counterfactual": {
        "label": "removed by",
        "removed": "works",
        "queries": "queries",
        "l2": "L2 distance",
        "clip_similarity": "CLIP similarity",
    },
    "output-function": {
        "function": "output function",
        "pearson": "Pearson",
        "spearman": "Spearman",
        "pairs": "pairs",
        "models": "models",
    },
    "screening": {
        "label": "estimator",
        "embedding": "look-alikes by",
        "candidates": "candidates",
        "recall": "recall of top 20",
        "lds": "LDS",
        "lds_lost": "LDS lost",
    },
}


def plain_section(kind: str, name: str, report: Report, columns: dict[str, str]) -> str:
    """A table of the given columns."""
    body = [[shown(row.get(key)) for key in columns] for row in report["rows"] if "skipped" not in row]
    title = kind.replace("-", " ").capitalize()
    command = f"`{report['command']}`, seed {report['seed']}.\n"
    return "\n".join([f"## {title}: {name}\n", command, table(list(columns.values()), body)])


def shown(value: Any) -> str:
    """A cell."""
    if value is None:
        return "–"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def table(head: list[str], body: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


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


def figures_of(name: str, report: Report) -> list[tuple[str, str]]:
    """File names and alternative texts of a report's figures."""
    figures = [(f"lds-{name}-bars.svg", f"LDS of every estimator on {name}, with 95 % intervals")]
    if any("curve" in row for row in main_rows(report)):
        figures.append((f"lds-{name}-damping.svg", f"LDS on {name} for every λ of the grid"))
    for varied in ("dimension", "timesteps"):
        if varied_rows(report, varied):
            figures.append((f"lds-{name}-{varied}.svg", f"LDS on {name} by {varied}"))
    return figures


def draw(folder: Path = HERE) -> list[Path]:
    """Draw every figure that the page shows."""
    import matplotlib

    matplotlib.use("svg")
    # Names of clip paths are drawn at random otherwise.
    matplotlib.rcParams |= {"svg.hashsalt": "das", "svg.fonttype": "path", "font.size": 9}
    drawn = []
    for name, report in reports(folder, "lds").items():
        for figure, _ in figures_of(name, report):
            varied = figure.removesuffix(".svg").rpartition("-")[2]
            painter = {"bars": bars, "damping": damping_curves}.get(varied)
            picture = painter(report) if painter else varied_curves(report, varied)
            picture.savefig(folder / figure, metadata={"Date": None}, bbox_inches="tight")
            drawn.append(folder / figure)
    return drawn


def bars(report: Report) -> Any:
    """LDS of every row with its interval; the ceiling as a line."""
    from matplotlib.figure import Figure

    rows = main_rows(report)[::-1]
    picture = Figure(figsize=(7, 0.26 * len(rows) + 1))
    axes = picture.subplots()
    values = [row["lds"] for row in rows]
    errors = [
        [max(0.0, row["lds"] - row["low"]) for row in rows],
        [max(0.0, row["high"] - row["lds"]) for row in rows],
    ]
    colours = ["#1b6ca8" if row["method"].startswith("das") else "#a0a0a0" for row in rows]
    axes.barh([row["label"] for row in rows], values, xerr=errors, color=colours, ecolor="#333333", capsize=2)
    if rows[0]["ceiling"] is not None:
        axes.axvline(rows[0]["ceiling"], color="#b03030", linestyle="--", label="a second real retraining")
        axes.legend(loc="lower right", frameon=False)
    axes.set_xlabel("LDS × 100")
    return picture


def damping_curves(report: Report) -> Any:
    """LDS against λ; the default rule's λ as a point."""
    from matplotlib.figure import Figure

    picture = Figure(figsize=(7, 4.5))
    axes = picture.subplots()
    for row in main_rows(report):
        if "curve" in row and row["preset"] is None:
            (line,) = axes.plot(*zip(*row["curve"], strict=True), label=row["label"])
            axes.plot(row["damping"], row["lds"], "o", color=line.get_color())
    axes.set_xscale("log")
    axes.set_xlabel("λ in units of tr(K)/N; points: the default rule")
    return _with_legend(picture, axes)


def varied_curves(report: Report, varied: str) -> Any:
    """LDS against the sketch's dimension, or the number of timesteps."""
    from matplotlib.figure import Figure

    picture = Figure(figsize=(7, 4))
    axes = picture.subplots()
    for label, rows in varied_rows(report, varied).items():
        if varied == "dimension":
            points = [(row["dimension"], row["lds"]) for row in rows]
            axes.plot(*zip(*points, strict=True), marker="o", label=label)
        else:
            names = [timesteps_name(row["timesteps"]) for row in rows]
            axes.plot(names, [row["lds"] for row in rows], marker="o", label=label)
    if varied == "dimension":
        axes.set_xscale("log", base=2)
    axes.set_xlabel("k" if varied == "dimension" else "timesteps")
    return _with_legend(picture, axes)


def timesteps_name(timesteps: list[int]) -> str:
    """Their number, with first and last."""
    return f"{len(timesteps)}\n{timesteps[0]}–{timesteps[-1]}"


def _with_legend(picture: Any, axes: Any) -> Any:
    axes.set_ylabel("LDS × 100")
    axes.legend(frameon=False, fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    return picture


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE
    draw(target)
    (target / "evaluation.md").write_text(page(target))
