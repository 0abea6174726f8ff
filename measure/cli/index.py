"""`das evaluate index`: measure an index's own ranking and write the figure into it."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from measure.cli.options import DeviceOption, JsonOption, TruthOption, progress_bars, use_one_thread
from measure.report import command_line


def index(
    directory: Annotated[Path, typer.Argument(metavar="INDEX", help="The index directory.")],
    truth: TruthOption,
    works: Annotated[
        Path | None, typer.Option(help="Where the index's works are now, if they were moved.")
    ] = None,
    device: DeviceOption = "cpu",
    as_json: JsonOption = False,
) -> None:
    """Measure an index's own ranking (LDS) against a ground truth of its model, and write it into its card."""
    from das.index import AttributionIndex
    from measure.index_quality import measure, record_quality
    from measure.truth import load_truth

    use_one_thread()
    with progress_bars(as_json) as progress:
        task = progress.add_task("works", total=None)
        opened = AttributionIndex.open(directory)
        quality = measure(
            opened,
            load_truth(truth),
            works=works,
            device=device,
            command=command_line(),
            progress=lambda stage, done, total: progress.update(
                task, description=stage, completed=done, total=total
            ),
        )
        record_quality(opened, quality)
    if as_json:
        sys.stdout.write(json.dumps({"index": opened.id, **quality.model_dump(mode="json")}) + "\n")
    else:
        Console(highlight=False, markup=False, soft_wrap=True).print(f"{opened.id}: {quality.describe()}")
