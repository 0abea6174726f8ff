"""`das index push|mirror|withdraw`: finished indexes in an object store, and folders that are kept like it."""

import time
from pathlib import Path
from typing import Annotated

import typer

from das.finite import finite
from index_build.progress import ConsoleReporter, JsonReporter

UrlArgument = Annotated[
    str,
    typer.Argument(
        metavar="URL", help="Where indexes are kept, such as s3://bucket/indexes; or a directory."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Progress as JSON lines, on standard error.")]


def register_storage(index: typer.Typer) -> None:
    """Add the commands to `das index`."""
    index.command("push")(push_command)
    index.command("mirror")(mirror_command)
    index.command("withdraw")(withdraw_command)


def push_command(
    index: Annotated[Path, typer.Argument(metavar="DIR", help="The index directory.")],
    url: UrlArgument,
    as_json: JsonOption = False,
) -> None:
    """Send a finished index to a store, as URL/NAME@DIGITS; what is there already isn't sent again."""
    # fsspec takes a moment to import.
    from index_build.storage import IndexStore

    reporter = JsonReporter() if as_json else ConsoleReporter()
    name = IndexStore(url).push(index, reporter)
    reporter.say(f"{name} is in {url}")


def mirror_command(
    url: UrlArgument,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="What DAS_INDEX_DIR names.")],
    every: Annotated[
        float | None,
        typer.Option(
            help="Go on, and look again after so many seconds, a day's at most.",
            min=1.0,
            max=86_400.0,
            callback=finite,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Keep a folder like a store: fetch the newest version of each index, remove what is over.

    What it fetches is whole before it gets its name, so a service may read the folder all the while; what is in the
    folder already, also as a part of another version, isn't fetched again. It removes only what it fetched itself:
    all but the newest version in the store and the one before it, and never the last one of an index.
    """
    from index_build.storage import IndexStore, Mirror, keep_looking

    reporter = JsonReporter() if as_json else ConsoleReporter()
    keep_looking(Mirror(IndexStore(url), folder), reporter, every, time.sleep)


def withdraw_command(
    url: UrlArgument,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The index, such as photographs@3f9c2a.")],
) -> None:
    """Remove an index from a store, also one sent in part; mirrors follow where another is in its place."""
    from index_build.storage import IndexStore

    IndexStore(url).withdraw(name)
