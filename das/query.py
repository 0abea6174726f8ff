"""`das query`: ask one picture on the command line."""

import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from das import registry
from das.answer import notes_of
from das.copies import summary_of
from das.device import check_device
from das.durable import write_bytes
from das.errors import DasError, SettingsError
from das.finite import LARGEST_SEED
from das.index import NO_SCREENING, AttributionIndex
from das.methods import SEEDED
from das.provenance import compare_model, defaults, notes_of_declared
from das.tables import print_whole

if TYPE_CHECKING:
    from das.images import NormalisedImage


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("query")(query)


def query(
    image: Annotated[Path, typer.Argument(help="The picture to attribute.")],
    index: Annotated[Path, typer.Option(help="The index directory.")],
    top_k: Annotated[int, typer.Option(help="How many works to list.", min=1)] = 20,
    method: Annotated[
        str | None, typer.Option(help="An estimator of the index; its first if left out.")
    ] = None,
    candidates: Annotated[str, typer.Option(help="'all', or a number: CLIP's nearest works.")] = "all",
    exact: Annotated[
        bool, typer.Option("--exact", help="Score every work also where the index has an approximate search.")
    ] = False,
    model: Annotated[
        Path | None,
        typer.Option(
            help="Where the model is now, if it was moved: the pipeline, or a directory with all it needs."
        ),
    ] = None,
    prompt: Annotated[
        str | None,
        typer.Option(
            help="What the picture was generated from, for models conditioned on text; else what it says itself."
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            help=f"What it was generated with, for {SEEDED}; else it is inverted.", min=0, max=LARGEST_SEED
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:N or mps.", callback=check_device)] = "cpu",
    report: Annotated[
        Path | None, typer.Option(help="Also write the answer here as evidence, for `das report verify`.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON for machines, on standard output.")] = False,
) -> None:
    """Rank the works that a picture owes most to.

    Prompt and seed are those that the picture's own metadata say, where they aren't given here.
    """
    opened = AttributionIndex.open(index, model_dir=model)
    count = _candidate_count(candidates)
    if count is not None and not opened.screened:
        raise SettingsError(f"--candidates {count} can't be chosen: {opened.id} {NO_SCREENING}")
    picture = _read_picture(image)
    pixels, declared = picture.pixels, picture.declared
    taken = defaults(declared, prompt, seed)
    prompt, seed = taken.prompt, taken.seed
    rows = _nearest(opened, pixels, count) if count is not None and count < len(opened) else None
    from das.attribution import Attributor

    attributor = Attributor(opened, device=device)
    answer = attributor.attribute(
        pixels, top_k=top_k, candidates=rows, method=method, prompt=prompt, seed=seed, exact=exact
    )
    quality = opened.quality_of(answer.method)
    notes = [*answer.caveats, *notes_of(measured=quality is not None, in_model=answer.in_model)]
    if not opened.screened:
        notes.append(f"{opened.id} {NO_SCREENING}")
    claim = None if declared is None else compare_model(declared, opened.manifest)
    if declared is not None:
        notes += notes_of_declared(
            declared,
            taken.fields,
            prompt=prompt,
            conditional=opened.manifest.model.conditional,
            seeded=registry.method(answer.method).along_trajectory,
        )
    copied = None if answer.copy is None else summary_of(answer.copy, opened, answer.in_model)
    if report is not None:
        asked = {"method": answer.method, "candidates": rows, "top_k": top_k, "prompt": prompt, "seed": seed}
        _write_report(report, opened, picture, asked, answer.as_result(), notes, copied)
    if as_json:
        result = answer.as_result()
        result["quality"] = None if quality is None else quality.model_dump()
        result["notes"] = notes if claim is None or claim.sentence is None else [claim.sentence, *notes]
        result["declared"] = None
        if declared is not None and claim is not None:
            result["declared"] = {
                **declared.as_json(),
                "taken": list(taken.fields),
                "is_model_of_index": claim.verdict,
                "summary": claim.sentence,
            }
        if result["copy"] is not None:
            result["copy"]["summary"] = copied
        result["works"] = [_told(place, opened) for place in result["works"]]
        sys.stdout.write(json.dumps({"index": opened.id, **result}, ensure_ascii=False) + "\n")
        return
    table = Table()
    for name in ("rank", "work_id", "title", "creator", "licence", "share", "score"):
        table.add_column(name, no_wrap=name == "work_id", overflow="fold")
    for work in answer.works:
        row = opened.works.row(work.row)
        table.add_row(
            str(work.rank),
            work.work_id,
            row["title"] or row["file"],
            row["creator"] or "–",
            row["licence"] or "–",
            f"{100 * work.share:.1f} %",
            f"{work.score:.3g}",
        )
    console = Console(highlight=False, markup=False)
    if claim is not None and claim.sentence is not None:
        console.print(claim.sentence)
    console.print(answer.summary)
    if copied is not None:
        console.print(copied)
    print_whole(table, console)
    for note in notes:
        console.print(note)
    if quality is not None:
        console.print(f"Quality of the ranking: {quality.describe()}.")


def _told(place: dict[str, Any], index: AttributionIndex) -> dict[str, Any]:
    """A work's place in the ranking with its metadata, whose columns may have any name but none of the ranking's."""
    about = index.works.row(index.works.row_of(place["work_id"]))
    metadata = {name: value for name, value in about.items() if name not in ("id", "digest", *place)}
    return {**place, **metadata}


def _write_report(
    file: Path,
    index: AttributionIndex,
    picture: "NormalisedImage",
    asked: dict[str, Any],
    result: dict[str, Any],
    notes: list[str],
    copied: str | None,
) -> None:
    from das.evidence.report import Asked, pixels_digest, report
    from das.evidence.seal import canonical, sealed

    about = {
        "sha256": picture.sha256,
        "width": picture.width,
        "height": picture.height,
        "format": picture.format,
        "normalisation": list(picture.steps),
        "declared": None if picture.declared is None else picture.declared.as_json(),
    }
    rows = asked.pop("candidates")
    question = Asked(
        id=None,
        asked_at=None,
        finished_at=None,
        candidates=None if rows is None else [index.works.row(int(row))["id"] for row in rows],
        picture=about,
        pixels=pixels_digest(picture.pixels),
        **asked,
    )
    made_by = f"das-attribution {version('das-attribution')}"
    try:
        write_bytes(file, canonical(sealed(report(index, question, result, notes, copied, made_by), None)))
    except OSError as error:
        raise SettingsError(f"{file} can't be written: {error.strerror}.") from error


def _candidate_count(text: str) -> int | None:
    if text == "all":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise SettingsError(f"--candidates is {text!r}; give 'all' or a number from 1.")
    return int(text)


def _read_picture(path: Path) -> "NormalisedImage":
    """The picture with what it says of itself, decoded in a process of its own, as the service does."""
    from das.images import IsolatedNormaliser

    try:
        data = path.read_bytes()
    except OSError as error:
        raise DasError(f"{path} can't be read: {error.strerror}.") from error
    with IsolatedNormaliser(processes=1) as normaliser:
        return normaliser.normalise(data)


def _nearest(index: AttributionIndex, pixels: Any, count: int) -> Any:
    """Rows of the works that CLIP finds most similar."""
    from das.screening import Embedder, Screen

    embedder = Embedder.load(index.clip)
    embedder.check(index.manifest.clip_digest, index.id)
    rows, _ = Screen.open(index.path).nearest(embedder.embed([pixels])[0], count)
    return rows
