"""`das index add|remove|removed`: works come and go without a build, and who asks can see that one went."""

import hashlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from das.changes import digest_of_id, read_removed
from das.device import check_device
from das.errors import SettingsError
from das.index import AttributionIndex
from das.plurals import counted
from das.works import assign_ids
from index_build.inspection import CreatorFromOption, WorksFormatOption
from index_build.progress import ConsoleReporter, JsonReporter

if TYPE_CHECKING:
    from index_build.changing import VersionResult

EXIT_STILL_IN = 1
_COPIES = 1000
"""As many works with the same bytes are looked for among those removed."""

IndexArgument = Annotated[Path, typer.Argument(metavar="INDEX", help="The index to make a version of.")]
OutOption = Annotated[Path, typer.Option(help="Directory of the new version; the index stays as it is.")]
ModelOption = Annotated[
    Path | None,
    typer.Option(help="Where the model is now, if it was moved, or a directory that holds all it needs."),
]
DeviceOption = Annotated[str, typer.Option(help="cpu, cuda, cuda:N or mps.", callback=check_device)]
JsonOption = Annotated[bool, typer.Option("--json", help="JSON for machines, on standard output.")]


def register_changes(index: typer.Typer) -> None:
    """Add the commands to `das index`."""
    index.command("add")(add_command)
    index.command("remove")(remove_command)
    index.command("removed")(removed_command)


def add_command(
    index: IndexArgument,
    works: Annotated[
        Path,
        typer.Option(
            help="Folder, training set or parquet with the works to add; what the index has already is passed over."
        ),
    ],
    out: OutOption,
    model: ModelOption = None,
    device: DeviceOption = "cpu",
    strict: Annotated[bool, typer.Option(help="Stop at the first work that can't be used.")] = False,
    follow_links: Annotated[
        bool,
        typer.Option("--follow-links", help="Read also works outside the folder that links in it lead to."),
    ] = False,
    works_format: WorksFormatOption = "auto",
    creator_from: CreatorFromOption = None,
    again: Annotated[
        bool, typer.Option("--again", help="Take in also works that were removed from the index before.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Make a version of an index with further works that its model was trained on, without building it again."""
    from index_build.changing import add

    opened = AttributionIndex.open(index, model_dir=model)
    result = add(
        opened,
        works,
        out,
        device=device,
        strict=strict,
        follow_links=follow_links,
        works_format=works_format,
        creator_from=creator_from,
        again=again,
        reporter=JsonReporter() if as_json else ConsoleReporter(),
    )
    _tell(result, "added", as_json)


def remove_command(
    index: IndexArgument,
    out: OutOption,
    works: Annotated[
        list[Path] | None,
        typer.Option(
            help="File that names works: what `das opt-outs export` writes, a CSV with a column work_id, or one id a"
            " line; - is standard input. May be repeated."
        ),
    ] = None,
    creator: Annotated[
        list[str] | None, typer.Option(help="All works of this creator; may be repeated.")
    ] = None,
    group: Annotated[list[str] | None, typer.Option(help="All works of this group; may be repeated.")] = None,
    pictures: Annotated[
        Path | None,
        typer.Option(
            help="Where the pictures of these works are now. Default: where they were read from.", exists=True
        ),
    ] = None,
    model: ModelOption = None,
    device: DeviceOption = "cpu",
    as_json: JsonOption = False,
) -> None:
    """Make a version of an index without some of its works, such as opted-out ones, without building it again.

    The works' pictures and the model are needed once more: a kernel sums features of every timestep.
    """
    from index_build.changing import remove
    from index_build.chosen import choose

    opened = AttributionIndex.open(index, model_dir=model)
    chosen = choose(opened, works or [], creator or [], group or [])
    reporter = JsonReporter() if as_json else ConsoleReporter()
    if chosen.elsewhere:
        reporter.say(
            f"Passed over: {counted(chosen.elsewhere, 'work')} named, of other indexes than {opened.id}."
        )
    if chosen.gone:
        reporter.say(f"Removed before: {counted(chosen.gone, 'work')} named.")
    result = remove(opened, chosen.rows, out, pictures=pictures, device=device, reporter=reporter)
    _tell(result, "removed", as_json)


def removed_command(
    index: Annotated[Path, typer.Argument(metavar="DIR", help="The index directory.")],
    works: Annotated[
        list[str] | None, typer.Argument(metavar="WORK…", help="Ids of works, or their picture files.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Say what came and went of an index, and of some works whether they are in it or were removed.

    Exit code 1 if one of them is in the index.
    """
    opened = AttributionIndex.open(index)
    removed = read_removed(opened.path)
    found = {name: _state(opened, removed, name) for name in works or []}
    if as_json:
        changes = [change.model_dump(mode="json") for change in opened.manifest.changes]
        body = {"id": opened.id, "changes": changes, "removed": len(removed), "works": found}
        sys.stdout.write(json.dumps(body, ensure_ascii=False) + "\n")
    else:
        console = Console(highlight=False, markup=False, soft_wrap=True)
        for change in opened.manifest.changes:
            console.print(
                f"{change.at}: {counted(change.works, 'work')} {change.kind}, of the {change.before:,} of"
                f" {change.parent}"
            )
        if not found:
            console.print(f"{opened.id}: {counted(len(opened), 'work')}, {len(removed):,} removed")
        said = {"in": "is in", "removed": "was removed from", "unknown": "isn't in, and wasn't removed from,"}
        for name, state in found.items():
            console.print(f"{name} {said[state]} {opened.id}")
    if "in" in found.values():
        raise typer.Exit(EXIT_STILL_IN)


def _state(index: AttributionIndex, removed: frozenset[str], name: str) -> str:
    """Whether a work, by id or file, is `in` the index, was `removed`, or neither: `unknown`."""
    ids = [name]
    path = Path(name)
    if path.is_file():
        try:
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError as error:
            raise SettingsError(f"{path} can't be read: {error.strerror}.") from error
        ids = assign_ids([digest] * _COPIES)
    if any(index.works.find(work_id) is not None for work_id in ids):
        return "in"
    return "removed" if any(digest_of_id(work_id) in removed for work_id in ids) else "unknown"


def _tell(result: "VersionResult", done: str, as_json: bool) -> None:
    if as_json:
        body: dict[str, Any] = {
            "index": result.index_id,
            "parent": result.parent,
            "path": None if result.state == "unchanged" else str(result.path),
            "state": result.state,
            "works": result.works,
            done: result.changed,
            "unreadable": list(result.refused),
            "in_place_of": list(result.later),
            "seconds": {name: round(value, 3) for name, value in result.seconds.items()},
        }
        sys.stdout.write(json.dumps(body, ensure_ascii=False) + "\n")
        return
    console = Console(highlight=False, markup=False, soft_wrap=True)
    for entry in result.refused:
        console.print(f"  {entry['file']}: {entry['message']}")
    if result.state == "unchanged":
        console.print(f"{result.index_id} stays as it is: there is no work to be {done}.")
        return
    console.print(
        f"{result.path}: {result.index_id}, {counted(result.works, 'work')}, {result.changed:,} {done};"
        f" of {result.parent}{in_place_of(result.later)}"
    )


def in_place_of(later: tuple[str, ...]) -> str:
    """What a version is served instead of though it isn't made of that, for the end of a line; "" for nothing."""
    return f"; served in the place of {', '.join(later)}, which is newer than that" if later else ""
