"""The page evaluation.md: every estimator, held against models that were trained again."""

from itertools import groupby
from pathlib import Path
from typing import Any

from measure.results.cells import both, difference, one, shown, span, table
from measure.results.figures import figures_of
from measure.results.groups import groups_section
from measure.results.prose import ABOUT, COLUMNS, CONTROL, CONTROLLED, DEFAULT, FITTED_ON, PICTURES, READING
from measure.results.published import beside_the_paper, setting
from measure.results.reports import UNTRAINED, Report, Row, is_part, main_rows, reports

COSTS = ["estimator", "λ", "λ chosen on half", "best λ", "timesteps", "k"]
COSTS += ["forward passes", "backward passes", "bytes/work"]


def evaluation_page(folder: Path) -> str:
    """The page, from the figures as they were printed by the commands named in it."""
    measured = reports(folder, "lds")
    parts = [READING]
    compared = {name: report for name, report in measured.items() if not is_part(report)}
    if compared:
        parts.append(beside_the_paper(compared))
    if controls := controls_of(measured):
        parts.append(controls)
    for name, report in measured.items():
        parts.append(lds_section(name, report))
    for name, report in reports(folder, "groups").items():
        parts.append(groups_section(name, report))
    for kind, columns in COLUMNS.items():
        for name, report in reports(folder, kind).items():
            parts.append(plain_section(kind, name, report, columns))
            if (folder / f"{kind}-{name}.png").exists():
                parts.append(f"![{PICTURES[kind]}]({kind}-{name}.png)\n")
    return "\n".join(parts)


def controls_of(measured: dict[str, Report]) -> str | None:
    """A table of what features are worth before a network's training; of reports NAME-untrained beside NAME-k1024."""
    pairs = {
        name: (measured[f"{name}-k1024"], measured[f"{name}-untrained"])
        for name in measured
        if {f"{name}-k1024", f"{name}-untrained"} <= measured.keys()
    }
    if not pairs:
        return None
    body = []
    for label in CONTROLLED:
        line = [label]
        for pair in pairs.values():
            for report in pair:
                row = next((row for row in main_rows(report) if row["label"] == label), None)
                line.append("–" if row is None else f"{one(row['lds'])} ({span(row['low'], row['high'])})")
        body.append(line)
    head = ["estimator", *(f"{name}, {state}" for name in pairs for state in ("trained", "untrained"))]
    return "\n".join([CONTROL, table(head, body)])


def lds_section(name: str, report: Report) -> str:
    """Tables and figures of one ground truth."""
    rows = main_rows(report)
    if not rows:
        return f"## LDS: {name}\n\n`{report['command']}`: nothing was measured.{missing(report)}\n"
    split = "lds_generated" in rows[0]
    head = ["estimator", "LDS", "95 % interval", "against das", "regret"]
    head += ["validation", "generated"] if split else []
    body = []
    for row in rows:
        line = [
            row["label"],
            one(row["lds"]),
            span(row["low"], row["high"]),
            difference(row),
            one(row.get("regret")),
        ]
        line += [one(row["lds_validation"]), one(row["lds_generated"])] if split else []
        body.append([f"**{cell}**" if row["label"] == DEFAULT else cell for cell in line])
    costs = [
        [
            row["label"],
            "–" if row["damping"] is None else f"{row['damping']:.1e}",
            one(row["chosen_lds"]),
            one(row["oracle_lds"]),
            str(len(row["timesteps"]) or "–"),
            f"{row['dimension']:,}",
            shown(row.get("forward_passes")),
            shown(row["backward_passes"]),
            f"{row['bytes_per_work']:,}",
        ]
        for row in rows
    ]
    text = [
        f"## LDS: {name}\n",
        f"{described(name, report)}{ceilings(rows[0], split)}{missing(report)}\n",
        f"`{report['command']}`, seed {report['seed']}, torch {report['versions']['torch']}.\n",
        table(head, body),
        "What each takes. LDS with λ chosen on the other half of the subsets, and with the best one; passes"
        " through the diffusion model for the features of one picture; k is the length of what is compared.\n",
        table(
            COSTS,
            costs,
        ),
    ]
    text += [f"![{alt}]({figure})\n" for figure, alt in figures_of(name, report)]
    return "\n".join(text)


def described(name: str, report: Report) -> str:
    """What the ground truth is, and whether choices were made on it."""
    fitted = [what for start, what in FITTED_ON.items() if name == start or name.startswith(f"{start}-")]
    text = f"**In-sample**: {fitted[0]}." if fitted else "The rule for λ was not fitted on it."
    if UNTRAINED in report["command"]:
        text += " A control: the features are those of the network before its training."
    truth = report.get("truth")
    if not truth:
        return text
    facts = setting(report)
    return (
        f"{facts['works']} works of {facts['pictures']}, queries: {facts['queries']}; {truth['models']} models"
        f" trained on {facts['subsets']}; the model has {facts['model']}. {text}"
    )


def ceilings(row: Row, split: bool) -> str:
    """What real retrainings score."""
    if row["ceiling"] is None:
        return " No subset was trained twice often enough to say what a second retraining scores."
    apart = ""
    if split and row["ceiling_validation"] is not None:
        apart = f" ({both(row, 'ceiling')} validation / generated)"
    return (
        f" A second real retraining scores {row['ceiling']:.1f}{apart},"
        f" a perfect prediction of the mean over seeds about {row['perfect']:.1f}."
    )


def plain_section(kind: str, name: str, report: Report, columns: dict[str, str]) -> str:
    """A table of the given columns."""
    rows = [cells(row, report.get("truth")) for row in report["rows"] if "skipped" not in row]
    body = [[shown(row.get(key)) for key in columns] for row in rows]
    title = kind.replace("-", " ").capitalize()
    command = f"`{report['command']}`, seed {report['seed']}.{trained(report)}{missing(report)}\n"
    return "\n".join(
        [f"## {title}: {name}\n", ABOUT[kind] + "\n", command, table(list(columns.values()), body)]
    )


def cells(row: Row, truth: dict[str, Any] | None) -> Row:
    """A row with figures as the page tells them."""
    told = dict(row)
    for name in ("lds", "screened_lds", "lds_lost", "clip_similarity"):
        told[name] = one(row.get(name))
    if "recall" in row:
        told["recall"] = f"{100 * row['recall']:.0f} %"
    if "candidates" in row:
        whole = truth is not None and row["candidates"] == truth["works"]
        told["candidates"] = f"{row['candidates']:,}" + (" (all)" if whole else "")
    return told


def missing(report: Report) -> str:
    """Which rows were not measured, and why."""
    skipped = sorted((row["skipped"], row["label"]) for row in report["rows"] if "skipped" in row)
    reasons = groupby(skipped, key=lambda pair: pair[0])
    told = [f"{', '.join(dict.fromkeys(label for _, label in pairs))} ({why})" for why, pairs in reasons]
    return f" Not measured: {'; '.join(told)}." if told else ""


def trained(report: Report) -> str:
    """How the models of the report's ground truth were trained: ground truths of one name may differ in it."""
    training = (report.get("truth") or {}).get("training")
    if not training:
        return ""
    steps = f"{training['full_steps']:,} steps of {training['batch_size']} pictures on all works"
    return f" The ground truth's models: {steps}, {training['steps']:,} on a subset."
