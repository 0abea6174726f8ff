"""`das evaluate copies`: how many copies of its works an index finds, and how many others it takes for some."""

from pathlib import Path
from typing import Annotated

import typer

from das.errors import SettingsError
from das.finite import LARGEST_SEED
from measure.cli.options import JsonOption, named_folders, progress_bars, use_one_thread
from measure.report import command_line, tell_report, versions


def copies(
    directory: Annotated[Path, typer.Argument(metavar="INDEX", help="The index directory.")],
    other: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME=FOLDER of pictures to ask about; metadata.csv names the file of the work that one is a copy of"
            " in its column copy_of. The others are copies of none. May be repeated."
        ),
    ] = None,
    works: Annotated[
        Path | None, typer.Option(help="Where the index's works are now; default: where they were.")
    ] = None,
    count: Annotated[int, typer.Option(help="How many works are asked about as they arrive.", min=1)] = 300,
    out: Annotated[Path | None, typer.Option(help="A JSON file for the figures.")] = None,
    seed: Annotated[
        int, typer.Option(help="Of the noise, flat colours and gradients.", min=0, max=LARGEST_SEED)
    ] = 0,
    as_json: JsonOption = False,
) -> None:
    """How many copies of its works an index finds as they arrive, and how many others it takes for copies.

    Besides the folders it asks about works themselves, re-encoded, resized, cut and mirrored, and about noise,
    grey noise, flat colours and gradients.
    """
    from das.index import AttributionIndex
    from measure.copies import chosen_works, measure_copies, read_asked

    use_one_thread()
    opened = AttributionIndex.open(directory)
    if opened.hashes is None:
        raise SettingsError(f"{opened.id} was built before works were hashed; build it again.")
    manifest = opened.manifest
    sets = [read_asked(name, folder) for name, folder in named_folders(other)]
    asked = chosen_works(opened, works, count)
    with progress_bars(as_json) as progress:
        task = progress.add_task("pictures asked about", total=None)
        found = measure_copies(opened, asked, sets, seed, lambda number: progress.advance(task, number))
    sides = sorted({min(pixels.shape[:2]) for pixels in asked.pixels})
    report = {
        "command": command_line(),
        "seed": seed,
        "versions": versions(),
        "index": {"name": manifest.name, "works": len(opened), "shortest_sides": [sides[0], sides[-1]]},
        **found,
    }
    counted = (
        (kind, row, ", ".join(f"{name} {row[name]}" for name in ("copy", "near", "none", "unclear")))
        for kind in ("copies", "others")
        for row in report[kind]
    )
    lines = (
        f"{kind}: {row['set']}, {row['arrival']}: {counts} of {row['count']}" for kind, row, counts in counted
    )
    tell_report(report, lines, out, as_json)
