"""The sections of groups: which creator's works a picture owes most to, held against training without them."""

from measure.results.cells import one, span, table
from measure.results.prose import DEFAULT, GROUPS
from measure.results.reports import Report, Row

_CHOSEN = f"{DEFAULT}, sum"
_TARGETS = {"loss": "the query's loss rises", "prediction": "the prediction on it moves (Eq. 9)"}


def groups_section(name: str, report: Report) -> str:
    """Tables of one ground truth: one for each target."""
    rows = [row for row in report["rows"] if "skipped" not in row]
    truth = report["truth"]
    queries = ", ".join(f"{count} {kind}" for kind, count in truth["queries"].items() if count)
    sizes = sorted(truth["sizes"])
    text = [
        f"## Groups: {name}\n",
        GROUPS,
        f"{truth['works']:,} works in {truth['groups']} groups of {sizes[0]} to {sizes[-1]};"
        f" {truth['models']} models, {truth['seeds']} for each group left out; queries: {queries}.\n",
        f"`{report['command']}`, seed {report['seed']}, torch {report['versions']['torch']}.\n",
    ]
    for target, meaning in _TARGETS.items():
        if target in rows[0]:
            text.append(f"How much {meaning}. {_reliability(rows[0], target)}\n")
            text.append(_table(rows, target))
    return "\n".join(text)


def _table(rows: list[Row], target: str) -> str:
    head = ["predicted by", "rank correlation", "95 %", "lead of the default", "validation", "generated"]
    head += ["first right", "MRR", "NDCG@3"]
    body = []
    for row in rows:
        lead = f"{row[f'{target}_lead']:+.1f} ({span(row[f'{target}_lead_low'], row[f'{target}_lead_high'])})"
        line = [
            row["label"],
            one(row[target]),
            span(row[f"{target}_low"], row[f"{target}_high"]),
            "–" if row["label"] == _CHOSEN else lead,
            one(row.get(f"{target}_validation")),
            one(row.get(f"{target}_generated")),
            f"{row[f'{target}_top1']:.0f} %",
            one(row[f"{target}_mrr"]),
            one(row[f"{target}_ndcg3"]),
        ]
        body.append([f"**{cell}**" if row["label"] == _CHOSEN else cell for cell in line])
    return table(head, body)


def _reliability(row: Row, target: str) -> str:
    if row[f"{target}_half"] is None:
        return "One seed was trained, or two: nothing is known of how far the truth agrees with itself."
    return (
        f"Half of the seeds predicts the other half with {row[f'{target}_half']:.1f} and names the same first group"
        f" for {row[f'{target}_half_top1']:.0f} % of the queries; by that, a perfect prediction would score"
        f" {row[f'{target}_perfect']:.1f}."
    )
