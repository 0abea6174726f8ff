"""Makes evaluation.md and its figures from the JSON beside it: `python docs/results/evaluation.py [FOLDER]`.

Reads what `das evaluate ... --out` wrote: lds-NAME.json (with or without --curves), counterfactual-NAME.json,
output-function-NAME.json and screening-NAME.json; and paper.json, which has the paper's published figures. Reports of
older versions lack some figures; those show as –.
"""

import json
import sys
from itertools import groupby
from pathlib import Path
from typing import Any

import evaluation_figures
from evaluation_figures import Report, Row, figures_of, main_rows

HERE = Path(__file__).parent
KINDS = ("lds", "counterfactual", "output-function", "screening")
PUBLISHED = json.loads((HERE / "paper.json").read_text())
DEFAULT = "das-block loss+activation"
# What was fitted on a ground truth, which therefore flatters it; by the beginning of its name.
FITTED_ON = {
    "digits": "the rule for λ was fitted on these subsets",
    "cifar2-8": "the rule's number for activations was fitted on these subsets, too",
}

UNTRAINED = "--untrained"
CONTROL = """## Control: the network before its training

The same estimators with the same works, but with the features of a network whose weights are still random
(`--untrained`; with a LoRA, of the base alone). It shows how much of a ranking belongs to the works and the
architecture, and not to what this model has learnt. It is most of it: a network that has seen no work already tells
which works are close to a picture, and on so few works closeness decides much of what retraining changes. What
training adds is the difference between two columns.
"""
CONTROLLED = ("das", "das-block loss", "das-block activation", DEFAULT)

READING = """# Evaluation

Made by `python docs/results/evaluation.py` from the JSON files beside it. The commands are described in
[operations](../operations.md), the estimators in [method](../method.md).

## How to read this

The question is always the same: had the model been trained without these works, what would be different? Here it is
answered the expensive way, by training again, and the estimators are held against that answer.

- **LDS** (linear datamodeling score, times 100). Models are trained again on random halves of the works. From its
  scores alone an estimator predicts on which of them a picture will fare worse; LDS is the rank correlation of that
  with what the models really lost, mean over pictures. 100 is the right order, 0 is guessing. It judges sums over
  hundreds of works: it does not prove that one named work had influence.
- **A second real retraining** scores less than 100 too, since training depends on its seed: the losses of one seed,
  taken as the prediction of another's (*ceiling*). The truth is a mean over seeds, which a perfect prediction would
  meet with about the square root of that. Both come from the few subsets that were trained twice, and are rough.
- **95 % interval**: bootstrap over subsets. It is about the luck of the subsets, not about other data or models.
- **against das**: the difference to the row `das`, the paper's form with normalisation, from the same run. All rows
  are measured on the same subsets, so what moves one moves the others, and the differences are known better than
  the intervals suggest: theirs are from the same draws of subsets for both. An interval without 0 is a difference
  that the choice of subsets does not explain. With twenty rows one of them may do so by chance.
- **validation** pictures were held out, **generated** ones come from the model itself, as those that a service is
  asked about do.
- **λ** (damping, in units of tr(K)/N) is that of the default rule in every LDS unless a column says otherwise: the
  rule takes no retraining. **regret** is what the best λ of the grid, known only in hindsight, would add; it is
  below 0 where the rule's λ lies between two of the grid and is better.
- **In-sample and not**: the rule for λ was fitted on 8×8 digits, its number for activations on those and on
  *cifar2-8*. That das-block and the probes loss and activation are the default was decided on these two; the
  timesteps of *economical* on digits and CIFAR-2 pictures at 16×16
  (decisions [7](../decisions/0007-damping-by-effective-dimension.md),
  [8](../decisions/0008-what-else-was-tried-on-the-features.md) and [9](../decisions/0009-activations.md)). So the
  results on digits and *cifar2-8* say how well the choices fit.
  *lora-photographs* and *lora-photographs-long* say how well they carry over: no choice was made on them. The LoRA of
  the first knows its works little, that of the second well (decision 9). CLIP is the demo's small model, which has
  seen these photographs: its rows there are flattered. The figures of *cifar2-16* are older than the probe activation
  and have no row of it; *economical* has k = 512 there.

LDS, best λ and λ chosen on half are means over the reporting halves of random halvings of the subsets. Rows that
take no λ have one figure for all three. **Bold**: the method and probes of an index that is built without options
(its k is 1,024). *economical*: three timesteps, k = 1,024 and eight bits a number, as in the preset of that name,
whose probe is activation alone.
"""


def reports(folder: Path, kind: str) -> dict[str, Report]:
    """The reports of a kind, by the name after it, in the order of names."""
    found = {path.stem.removeprefix(f"{kind}-"): path for path in folder.glob(f"{kind}-*.json")}
    return {name: json.loads(found[name].read_text()) for name in sorted(found)}


def page(folder: Path = HERE) -> str:
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
    for kind, columns in COLUMNS.items():
        for name, report in reports(folder, kind).items():
            parts.append(plain_section(kind, name, report, columns))
            if (folder / f"{kind}-{name}.png").exists():
                parts.append(f"![{PICTURES[kind]}]({kind}-{name}.png)\n")
    return "\n".join(parts)


def is_part(report: Report) -> bool:
    """Whether only some of the rows were asked for, or of a network before its training."""
    return "--method" in report["command"] or UNTRAINED in report["command"]


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
    return "\n".join(
        [
            CONTROL,
            table(head, body),
        ]
    )


def beside_the_paper(measured: dict[str, Report]) -> str:
    """The paper's table with ours, and what differs between them."""
    ours = {name: {row["label"]: row for row in main_rows(report)} for name, report in measured.items()}
    head = ["validation / generated", *(f"paper: {name}" for name in PUBLISHED["sets"])]
    head += [f"here: {name}" for name in measured]
    body = []
    for published in PUBLISHED["rows"]:
        line = [published["name"], *(" / ".join(map(one, pair)) for pair in published["lds"])]
        body.append(line + [both(rows.get(published["label"]), "lds") for rows in ours.values()])
    nothing = ["–"] * len(PUBLISHED["sets"])
    body.append([f"`{DEFAULT}`", *nothing, *(both(rows.get(DEFAULT), "lds") for rows in ours.values())])
    body.append(
        [
            "a second real retraining",
            *nothing,
            *(both(next(iter(rows.values()), None), "ceiling") for rows in ours.values()),
        ]
    )
    described = [setting(report) for report in measured.values()]
    differs = [
        [label, PUBLISHED["setting"].get(key, "–"), *(one_of_ours[key] for one_of_ours in described)]
        for key, label in SETTING.items()
    ]
    return "\n".join(
        [
            "## Beside the paper\n",
            f"LDS as published ([{PUBLISHED['source']}]({PUBLISHED['link']})) and as measured"
            " here. A single figure here is over all queries, of the kind that the next table names.\n",
            table(head, body),
            "The columns are not one experiment: compare the order of rows within a column, not figures across"
            " columns. What differs:\n",
            table(["", "paper", *(f"here: {name}" for name in measured)], differs),
            "The paper's λ is the best on the very subsets that its LDS is measured on; here the rule chooses"
            " it without any retraining.\n",
        ]
    )


COSTS = ["estimator", "λ", "λ chosen on half", "best λ", "timesteps", "k"]
COSTS += ["forward passes", "backward passes", "bytes/work"]
SETTING = {
    "works": "works",
    "pictures": "pictures",
    "queries": "queries",
    "model": "model",
    "subsets": "subsets",
    "training": "training of a subset",
    "timesteps": "timesteps",
    "k": "k",
    "damping": "λ",
}


def setting(report: Report) -> dict[str, str]:
    """How a report's figures came about, by the keys of SETTING."""
    rows = [row for row in main_rows(report) if row["timesteps"] and not row.get("preset")]
    found = dict.fromkeys(SETTING, "–")
    found["damping"] = "by the rule"
    if rows:
        found["timesteps"] = str(max(len(row["timesteps"]) for row in rows))
        found["k"] = f"{max(row['dimension'] for row in rows):,}"
    truth = report.get("truth")
    if truth:
        found["works"] = f"{truth['works']:,}"
        found["pictures"] = "×".join(map(str, truth["shape"]))
        found["queries"] = queries_of(truth)
        found["model"] = f"{truth['parameters'] / 1e6:.2f} M parameters"
        if truth.get("lora"):
            found["model"] += f", {truth['attributed'] / 1e6:.3f} M of them a LoRA's"
        found["subsets"] = f"{truth['subsets']} subsets of {100 * truth['share']:.0f} % of the works"
        found["subsets"] += f", {truth['repeated']} of them trained with several seeds"
        if truth["training"]:
            steps, batch = truth["training"]["steps"], truth["training"]["batch_size"]
            found["training"] = f"{steps:,} steps of {batch} pictures"
    return found


def queries_of(truth: dict[str, Any]) -> str:
    """How many of each kind there are."""
    return ", ".join(f"{count} {kind}" for kind, count in truth["queries"].items() if count) or "–"


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


def missing(report: Report) -> str:
    """Which rows were not measured, and why."""
    skipped = sorted((row["skipped"], row["label"]) for row in report["rows"] if "skipped" in row)
    reasons = groupby(skipped, key=lambda pair: pair[0])
    told = [f"{', '.join(dict.fromkeys(label for _, label in pairs))} ({why})" for why, pairs in reasons]
    return f" Not measured: {'; '.join(told)}." if told else ""


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


COLUMNS = {
    "counterfactual": {
        "label": "removed by",
        "removed": "works removed",
        "queries": "queries",
        "l2": "L2 distance",
        "l2_of_sets": "of each set",
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
        "candidates": "works scored",
        "recall": "recall of top 20",
        "lds": "LDS, all works",
        "screened_lds": "LDS, look-alikes",
        "lds_lost": "LDS lost",
    },
}
ABOUT = {
    "counterfactual": "The works ranked highest for a set of generated pictures are removed, the model is"
    " trained again and the same seeds are generated. The further the pictures move (L2,"
    " pixels in [-1, 1]) and the less they look like before (CLIP cosine, times 100), the"
    " more those works mattered; *random* says how far they move anyway. Every set is one"
    " training again, so a difference smaller than those between sets means nothing.",
    "output-function": "The model is trained again without random works. Does the change of a generated"
    " picture go with the change of its loss, or with the change of the prediction on it,"
    " which is what DAS estimates? In the paper: 0.257 and 0.485.",
    "screening": "Only the works that look most like a query are scored. Recall: the part of the 20"
    " works ranked highest among all that is still there. LDS: the others' scores set to 0."
    " It is over all subsets and has no halves, so it can differ a little from the table of"
    " LDS.",
}

PICTURES = {
    "counterfactual": "Generated pictures, and the same seeds from models trained without the works of each estimator"
}


def plain_section(kind: str, name: str, report: Report, columns: dict[str, str]) -> str:
    """A table of the given columns."""
    rows = [cells(row, report.get("truth")) for row in report["rows"] if "skipped" not in row]
    body = [[shown(row.get(key)) for key in columns] for row in rows]
    title = kind.replace("-", " ").capitalize()
    command = f"`{report['command']}`, seed {report['seed']}.{trained(report)}{missing(report)}\n"
    return "\n".join(
        [f"## {title}: {name}\n", ABOUT[kind] + "\n", command, table(list(columns.values()), body)]
    )


def trained(report: Report) -> str:
    """How the models of the report's ground truth were trained: ground truths of one name may differ in it."""
    training = (report.get("truth") or {}).get("training")
    if not training:
        return ""
    steps = f"{training['full_steps']:,} steps of {training['batch_size']} pictures on all works"
    return f" The ground truth's models: {steps}, {training['steps']:,} on a subset."


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


def draw(folder: Path = HERE) -> list[Path]:
    """Draw every figure that the page shows."""
    return evaluation_figures.draw(folder, reports(folder, "lds"))


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE
    draw(target)
    (target / "evaluation.md").write_text(page(target))
