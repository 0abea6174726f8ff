"""The paper's published figures beside ours, and what differs between the experiments."""

import json
from importlib.resources import files
from typing import Any

from measure.results.cells import both, one, table
from measure.results.prose import DEFAULT
from measure.results.reports import Report, main_rows

PUBLISHED = json.loads((files("measure.results") / "paper.json").read_text())
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
        if truth.get("stream", truth["works"]) != truth["works"]:
            found["works"] += f", {truth['stream']:,} with their repeats"
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
