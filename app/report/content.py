"""What a sealed report says to people, in which order: the one place of its words, whatever it is drawn as."""

from collections.abc import Mapping, Sequence
from typing import Any

from app.language import ENGLISH
from app.redaction import hidden_id
from app.report.blocks import (
    SUBJECT,
    Block,
    Bullets,
    Cell,
    Column,
    Content,
    Fact,
    Facts,
    Figure,
    Paragraph,
    Run,
    Section,
    Table,
)
from app.wording import left_out, part, percent, rights, thousands
from das.plurals import counted
from das.rights.holders import UNKNOWN_HOLDER

SMALL_SIDE = 128
"""Pictures of up to so many pixels a side are shown larger, with hard pixels."""

CHECKED = (
    "report.json of this answer, which lies inside its PDF too, holds all that is said here. das report verify"
    " report.json --key operator.pem (or the PDF) checks that nothing of it was changed and who sealed it; with"
    " --recompute --index INDEX --image PICTURE it computes the answer again. The words and pictures of this document"
    " are drawn from it and aren't what is checked."
)
CHECKED_SEAL = (
    "report.json of this answer, which lies inside its PDF too, holds all that is said here. das report verify"
    " report.json --key operator.pem (or the PDF) checks that nothing of it was changed and who sealed it. The words"
    " and pictures of this document are drawn from it and aren't what is checked. The answer can't be computed again"
    " by this report: the index that gave it isn't served any more."
)
HANDED_ON = "This report was handed on by a link. Whoever did so has left out"
GROUPED = {"creator": ("By creator", "Creator"), "rights_holder": ("By rights holder", "Rights holder")}
"""The groups that are told, with the section's heading and the column's."""


def content(document: Mapping[str, Any], *, picture: bool) -> Content:
    """The content of a sealed report (`das.evidence.seal.sealed`).

    Args:
        picture: whether the picture that was asked about is there to be shown.
    """
    report, seal = document["report"], document["seal"]
    answer, question = report["answer"], report["question"]
    mode, copied = question["candidates"]["mode"], answer["copy"]
    lead = [] if copied is None or copied["summary"] is None else [copied["summary"]]
    shared = report.get("shared")
    if shared is not None:
        parts = left_out(shared["left_out"], shared["works"], ENGLISH)
        lead.append(f"{HANDED_ON}: {'; '.join(parts)}." if parts else f"{HANDED_ON} nothing of the answer.")
    sections = [
        Section("What this doesn't prove", (Bullets(tuple(report["limits"])),)),
        Section("The picture", _picture(report, picture)),
        Section("Works, by influence", _works(question, answer["works"])),
        *(
            Section(heading, (_groups(heading, column, answer["groups"][kind], mode),))
            for kind, (heading, column) in GROUPED.items()
            if any(group["name"] != UNKNOWN_HOLDER for group in answer["groups"].get(kind, ()))
        ),
        Section(
            "How to check it",
            (Paragraph(CHECKED if report["index"]["model"] else CHECKED_SEAL), _checking(report, seal)),
        ),
    ]
    return Content(
        name=f"Report {question['id']}",
        title=answer["summary"],
        lead=(*lead, *answer["notes"]),
        sections=tuple(sections),
        foot=(f"Report {question['id']}, {seal['digest']}", _signed(seal)),
    )


def _signed(seal: Mapping[str, Any]) -> str:
    signature = seal["signature"]
    return "not signed" if signature is None else f"signed with the key {signature['key_id']}"


def _picture(report: Mapping[str, Any], shown: bool) -> tuple[Block, ...]:
    told, question = report["picture"], report["question"]
    if told["sha256"] is None:
        return (Paragraph("It is left out, and so is all that could lead to it."),)
    block: Block = Paragraph("The picture is no longer kept.")
    if shown:
        block = Figure(SUBJECT, "The picture asked about", max(told["width"], told["height"]) <= SMALL_SIDE)
    declared = told.get("declared") or {}
    facts = [
        _fact("Size and format", f"{told['width']} × {told['height']}, {told['format']}"),
        _exact("SHA-256 of the file", told["sha256"]),
        _exact("Digest of the pixels that were asked about", told["pixels"] or "no longer known"),
        _fact("What was changed before", ", ".join(told["normalisation"]) or "nothing"),
    ]
    for term, value in (
        ("Prompt", question["prompt"]),
        ("Seed", question["seed"]),
        ("What the file says of itself", declared.get("summary")),
    ):
        if value:
            facts.append(_fact(term, value))
    return block, Facts(tuple(facts))


def _works(question: Mapping[str, Any], works: Sequence[Mapping[str, Any]]) -> tuple[Block, ...]:
    columns = (
        Column("Rank", 12),
        Column("", 22),
        Column("Work", 94),
        Column("Share", 26, numeric=True),
        Column("Score", 20, numeric=True),
    )
    rows = tuple(
        (
            Cell((Run(str(work["rank"])),)),
            Cell((), picture=work["work_id"]),
            Cell(_about(work)),
            _share(work),
            Cell((Run("–" if work["score"] is None else f"{work['score']:.6g}"),)),
        )
        for work in works
    )
    candidates = question["candidates"]
    shares = f"Shares of {counted(candidates['count'], 'work that was scored', 'works that were scored')}."
    if candidates["mode"] == "approximate":
        shares = (
            f"Shares of what all {counted(candidates['count'], 'work')} hold. Those that rank highest were searched"
            f" for, and {candidates['scored']:,} scored."
        )
    return (
        Paragraph(shares),
        Table("Works, by influence", columns, rows),
    )


def _about(work: Mapping[str, Any]) -> tuple[Run, ...]:
    if hidden_id(work["work_id"]):
        return Run("A work that isn't shown"), Run(work["work_id"], exact=True)
    lines = [work["title"] or work["work_id"], work["creator"] or "Creator not recorded"]
    if work["licence"]:
        lines.append(work["licence"])
    if work["rights_holder"]:
        lines.append(f"© {work['rights_holder']}")
    if work["tdm"]:
        lines.append(rights(work["tdm"]))
    return (*map(Run, lines), Run(work["sha256"] or work["work_id"], exact=True))


def _groups(heading: str, column: str, groups: Sequence[Mapping[str, Any]], mode: str) -> Table:
    columns = (
        Column(column, 94),
        Column("Share", 32, numeric=True),
        Column("Works", 22, numeric=True),
        Column("Of those scored" if mode == "screened" else "Of the works", 26, numeric=True),
    )
    rows = tuple(
        (
            Cell((Run(group["name"]),), heads_row=True),
            _share(group),
            Cell((Run(thousands(group["works"])),)),
            Cell((Run(percent(group["share_of_index"])),)),
        )
        for group in groups
    )
    return Table(heading, columns, rows)


def _share(one: Mapping[str, Any]) -> Cell:
    lines = [Run(part(one))]
    if one.get("low") is not None and one.get("high") is not None:
        low, high = percent(one["low"]), percent(one["high"])
        lines.append(Run(low if low == high else f"{low} to {high}"))
    return Cell(tuple(lines))


def _checking(report: Mapping[str, Any], seal: Mapping[str, Any]) -> Facts:
    question, index, quality = report["question"], report["index"], report["quality"]
    measured = "not measured" if index["model"] is not None else "not known any more"
    if quality is not None:
        measured = (
            f"linear datamodelling score {quality['lds']} ({quality['low']} to {quality['high']}) over"
            f" {counted(quality['queries'], 'picture')}"
        )
    return Facts(
        (
            Fact(
                "Question",
                (
                    Run(question["id"] or "", exact=True),
                    Run(f", asked {question['asked_at']}, answered {question['finished_at']}"),
                ),
            ),
            *_computed_by(question["method"], index),
            _fact("Quality of the ranking", measured),
            _fact("Made by", report["made_by"]),
            Fact("Seal", (Run(seal["digest"], exact=True), Run(f", {_signed(seal)}"))),
        )
    )


def _computed_by(method: str, index: Mapping[str, Any]) -> tuple[Fact, ...]:
    model = index["model"]
    if model is None:
        gone = "this version isn't served any more, so its model and digests aren't told"
        return _fact("Method", method), _fact("Index", f"{index['id']}; {gone}")
    loras = "".join(f" with the LoRA {lora['source']}" for lora in model["loras"])
    return (
        _fact(
            "Method",
            f"{method}, {counted(len(index['timesteps']), 'timestep')},"
            f" {index['features']['dimension']} dimensions, seed {index['seed']}",
        ),
        Fact("Index", (Run(f"{index['id']}, "), Run(index["content_digest"], exact=True))),
        Fact("Model", (Run(f"{model['source']}{loras}, weights "), Run(model["digest"], exact=True))),
    )


def _fact(term: str, value: str) -> Fact:
    return Fact(term, (Run(value),))


def _exact(term: str, value: str) -> Fact:
    return Fact(term, (Run(value, exact=True),))
