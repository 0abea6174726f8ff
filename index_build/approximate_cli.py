"""`das index approximate`: give an index an approximate search, and say how much it finds."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from das.approximation import still_screened
from das.finite import LARGEST_SEED
from das.index import AttributionIndex
from das.manifest import read_manifest
from index_build.changes_cli import DeviceOption, JsonOption, ModelOption, in_place_of
from index_build.progress import ConsoleReporter, JsonReporter


def register_approximate(index: typer.Typer) -> None:
    """Add the command to `das index`."""
    index.command("approximate")(approximate_command)


def approximate_command(
    index: Annotated[Path, typer.Argument(metavar="INDEX", help="The index; it stays as it is.")],
    out: Annotated[Path, typer.Option(help="Directory of the index with the search; it shares the files.")],
    size: Annotated[
        int, typer.Option("--bytes", help="Of the search for each work and feature set, at most.", min=1)
    ] = 64,
    depth: Annotated[
        int, typer.Option(help="Candidates of each sign and feature set, which are scored exactly.")
    ] = 4000,
    sample: Annotated[
        int, typer.Option(help="Works, drawn at random, that shares of groups are estimated from.")
    ] = 100_000,
    pictures: Annotated[
        Path | None,
        typer.Option(
            help="Folder of pictures to measure with. Default: those of --references or --held-out of the build,"
            " where their folder is still there, else the works' own thumbnails.",
            exists=True,
            file_okay=False,
        ),
    ] = None,
    seed: Annotated[
        int,
        typer.Option(help="Of the sample, and of what the search is trained on.", min=0, max=LARGEST_SEED),
    ] = 0,
    model: ModelOption = None,
    device: DeviceOption = "cpu",
    as_json: JsonOption = False,
) -> None:
    """Make an index that finds works without scoring all of them, and measure how many of the 20 highest it finds.

    For millions of works: answers come sooner; shares of creators and rights holders are estimates with intervals.
    """
    from index_build.approximating import approximate

    made = approximate(
        AttributionIndex.open(index, model_dir=model),
        out,
        size=size,
        depth=depth,
        sample=sample,
        pictures=pictures,
        seed=seed,
        device=device,
        reporter=JsonReporter() if as_json else ConsoleReporter(),
    )
    if as_json:
        body = {
            "index": made.index_id,
            "parent": made.parent,
            "path": str(made.path),
            "state": made.state,
            "in_place_of": list(made.later),
            **made.record.model_dump(mode="json", exclude={"parent"}),
            "seconds": {name: round(value, 3) for name, value in made.seconds.items()},
        }
        sys.stdout.write(json.dumps(body, ensure_ascii=False) + "\n")
        return
    console = Console(highlight=False, markup=False, soft_wrap=True)
    there = "" if made.state == "made" else " (there already)"
    console.print(f"{made.path}: {made.index_id} of {made.parent}{there}{in_place_of(made.later)}")
    console.print(made.record.describe())
    if (told := still_screened(read_manifest(made.path))) is not None:
        console.print(told)
