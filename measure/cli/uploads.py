"""`das evaluate uploads`: how an index's answers hold for pictures from elsewhere, and as its own arrive."""

from pathlib import Path
from typing import Annotated

import typer

from das.errors import SettingsError
from das.finite import LARGEST_SEED
from measure.cli.options import DeviceOption, JsonOption, named_folders, progress_bars, use_one_thread
from measure.report import command_line, tell_report, versions


def uploads(
    directory: Annotated[Path, typer.Argument(metavar="INDEX", help="The index directory.")],
    own: Annotated[Path, typer.Option(help="A folder of pictures that its model made; not the references.")],
    other: Annotated[
        list[str] | None,
        typer.Option(help="NAME=FOLDER of pictures that it didn't make; may be repeated."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="A JSON file for the figures.")] = None,
    seed: Annotated[
        int, typer.Option(help="Of the noise, flat colours and gradients.", min=0, max=LARGEST_SEED)
    ] = 0,
    device: DeviceOption = "cpu",
    as_json: JsonOption = False,
) -> None:
    """How often an index takes others' pictures for its model's, and what re-encoding does to its rankings.

    Besides the folders it asks about noise, grey noise, flat colours and gradients.
    """
    from das.attribution import Attributor
    from das.index import AttributionIndex
    from measure.uploads import measure_uploads, read_uploads

    use_one_thread()
    opened = AttributionIndex.open(directory)
    if opened.references is None:
        raise SettingsError(
            f"{opened.id} was built without --references, so it can't tell anything of origin."
        )
    sets = [read_uploads("own", own, own=True)]
    sets += [read_uploads(name, folder, own=False) for name, folder in named_folders(other)]
    attributor = Attributor(opened, device=device)
    with progress_bars(as_json) as progress:
        task = progress.add_task("pictures asked about", total=None)
        found = measure_uploads(attributor, sets, seed, lambda count: progress.advance(task, count))
    manifest = opened.manifest
    assert manifest.references is not None
    report = {
        "command": command_line(),
        "seed": seed,
        "versions": versions(),
        "index": {
            "name": manifest.name,
            "works": len(opened),
            "method": opened.methods[0],
            "sets": list(manifest.features.sets),
            "timesteps": len(manifest.timesteps),
            "sample_shape": list(manifest.model.sample_shape),
            "references": manifest.references.count,
        },
        **found,
    }
    lines = (
        f"{row['set']}, {row['arrival']}: likely {row['likely']}, unsure {row['unsure']}, unlikely {row['unlikely']}"
        f" of {row['count']}; a creator on top of {row['names_a_creator']}"
        for row in report["origin"]
    )
    tell_report(report, lines, out, as_json)
