"""`das results write|check`: the pages and figures of a folder of results, made from its JSON."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

EXIT_OUT_OF_STEP = 1
FolderArgument = Annotated[
    Path, typer.Argument(metavar="FOLDER", help="Where das evaluate and das bench wrote their JSON.")
]
HERE = Path("docs/results")


def write(folder: FolderArgument = HERE) -> None:
    """Make README.md, evaluation.md and the figures of a folder of results from the JSON in it."""
    from measure.results.pages import write as write_pages

    for path in write_pages(folder):
        _say(str(path))


def check(folder: FolderArgument = HERE) -> None:
    """Exit with 1 and name the pages that aren't what the JSON makes, and the figures that are missing."""
    from measure.results.pages import out_of_step

    wrong = out_of_step(folder)
    for name in wrong:
        _say(f"{folder / name} is out of step with its JSON; run: das results write {folder}")
    if wrong:
        raise typer.Exit(EXIT_OUT_OF_STEP)


def _say(line: str) -> None:
    Console(highlight=False, markup=False, soft_wrap=True).print(line)
