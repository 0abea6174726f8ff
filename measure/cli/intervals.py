"""`das evaluate intervals`: how many of an index's intervals of shares hold."""

from pathlib import Path
from typing import Annotated

import typer

from measure.cli.options import DeviceOption, JsonOption, progress_bars, use_one_thread
from measure.report import command_line, tell_report, versions


def intervals(
    directory: Annotated[Path, typer.Argument(metavar="INDEX", help="The index directory.")],
    many: Annotated[
        Path, typer.Option(help="The index of the same works and options with --timesteps 100: the truth.")
    ],
    own: Annotated[Path, typer.Option(help="A folder of pictures that its model made; not the references.")],
    out: Annotated[Path | None, typer.Option(help="A JSON file for the figures.")] = None,
    device: DeviceOption = "cpu",
    as_json: JsonOption = False,
) -> None:
    """How many of an index's 95 % intervals hold the share that the same index has at many timesteps."""
    from das.attribution import Attributor
    from das.index import AttributionIndex
    from measure.intervals import measure_intervals
    from measure.uploads import read_uploads

    use_one_thread()
    index, richer = AttributionIndex.open(directory), AttributionIndex.open(many)
    asked = read_uploads("own", own, own=True)
    ours = Attributor(index, device=device)
    theirs = Attributor(richer, model=ours.model, device=device)
    with progress_bars(as_json) as progress:
        task = progress.add_task("pictures asked about", total=len(asked.pixels))
        found = measure_intervals(ours, theirs, asked, lambda count: progress.advance(task, count))
    manifest = index.manifest
    report = {
        "command": command_line(),
        "versions": versions(),
        "index": {
            "name": manifest.name,
            "works": len(index),
            "method": index.methods[0],
            "sets": list(manifest.features.sets),
            "timesteps": len(manifest.timesteps),
            "many_timesteps": len(richer.manifest.timesteps),
            "sample_shape": list(manifest.model.sample_shape),
        },
        **found,
    }
    lines = (f"{row['what']}: {row['covered']:.1f} % of {row['count']:,} hold" for row in report["coverage"])
    tell_report(report, lines, out, as_json)
