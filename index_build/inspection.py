"""`das works inspect`: the table that a build would make of a training set, before it starts."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from das.rights.holders import check_holders
from das.rights.table import signals_beside
from das.works import FORMATS, SourceWorks, read_works

_ROWS = 5
_LONGEST = 60

WorksFormatOption = Annotated[
    str, typer.Option(help=f"How the works are described: {', '.join(FORMATS)}. auto tells by what is there.")
]
CreatorFromOption = Annotated[
    str | None,
    typer.Option(
        help="folder: a work whose creator nothing else names has the name of its folder as creator."
    ),
]


def register_works(app: typer.Typer) -> None:
    """Add `das works` to `app`."""
    works = typer.Typer(help="Look at training works before an index is built.", no_args_is_help=True)
    works.callback()(_works)
    works.command("inspect")(inspect)
    app.add_typer(works, name="works")


def _works() -> None:
    """Look at training works before an index is built."""


def inspect(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="What --works of das build would be given.")],
    works_format: WorksFormatOption = "auto",
    creator_from: CreatorFromOption = None,
    follow_links: Annotated[
        bool, typer.Option("--follow-links", help="Read also works outside the folder that links lead to.")
    ] = False,
    rows: Annotated[int, typer.Option(help="How many rows of the table to show.", min=0)] = _ROWS,
    as_json: Annotated[bool, typer.Option("--json", help="JSON for machines, on standard output.")] = False,
) -> None:
    """Show what a build would take from a training set: captions, repeats, creators, what is left out, first rows."""
    source = read_works(path, follow_links=follow_links, format=works_format, creator_from=creator_from)
    # What ends a build before it begins ends this.
    signals_beside(source.table)
    check_holders(source.table)
    if as_json:
        body: dict[str, Any] = {
            **source.account(),
            "first_rows": source.table.slice(0, rows).to_pylist(),
            "left_out_files": [remark.__dict__ for remark in source.left_out],
            "remarks_on_files": [remark.__dict__ for remark in source.remarks],
        }
        sys.stdout.write(json.dumps(body, ensure_ascii=False, default=str) + "\n")
        return
    console = Console(highlight=False, markup=False)
    for line in source.describe():
        console.print(line)
    if rows:
        console.print(_first_rows(source, rows))


def _first_rows(source: SourceWorks, count: int) -> Table:
    table = Table(box=None)
    first = source.table.slice(0, count).to_pylist()
    names = [
        "file",
        *(name for name in source.table.column_names if any(row[name] is not None for row in first)),
    ]
    names = list(dict.fromkeys(names))
    for name in names:
        table.add_column(name, overflow="fold")
    for row in first:
        table.add_row(*(_cell(row[name]) for name in names))
    return table


def _cell(value: Any) -> str:
    text = "" if value is None else " ".join(str(value).split())
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
