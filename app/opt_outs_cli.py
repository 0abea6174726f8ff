"""`das opt-outs`: look through opt-outs, say what becomes of each, and export the works for the next build."""

import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from das.errors import SettingsError
from das.plurals import counted
from das.tables import print_table
from jobs.settings import get_settings

if TYPE_CHECKING:
    from jobs.opt_outs import OptOut, OptOuts

OptOutId = Annotated[str, typer.Argument(help="The opt-out's id, as `das opt-outs list` shows it.")]
COLUMNS = ("index", "work_id", "file", "sha256", "creator", "opt_out")
AT_ONCE = 200


class State(StrEnum):
    """As of an opt-out."""

    RECEIVED = "received"
    VERIFIED = "verified"
    APPLIED = "applied"
    REJECTED = "rejected"
    WITHDRAWN = "withdrawn"


def register(app: typer.Typer) -> None:
    """Add `das opt-outs` to `das`."""
    opt_outs = typer.Typer(help="Requests that works be left out.", no_args_is_help=True)
    opt_outs.command("list")(list_command)
    opt_outs.command("verify")(verify_command)
    opt_outs.command("apply")(apply_command)
    opt_outs.command("reject")(reject_command)
    opt_outs.command("export")(export_command)
    app.add_typer(opt_outs, name="opt-outs")


def list_command(
    state: Annotated[State | None, typer.Option(help="Only those in this state.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object a line, with contact and statement.")
    ] = False,
) -> None:
    """List opt-outs, the newest first."""
    rows = _all(_opt_outs(), None if state is None else str(state))
    if as_json:
        for row in rows:
            typer.echo(json.dumps(described(row)))
        return
    shown = [
        (
            row.id, row.state, "yes" if row.hides else "no", row.index_name,
            row.creator if row.creator is not None else counted(len(row.works or ()), "work"),
            row.contact or "erased", f"{row.created_at:%Y-%m-%d %H:%M}",
        )
        for row in rows
    ]  # fmt: skip
    columns = ("Opt-out", "State", "Hidden", "Index", "Of", "Contact", "Received")
    print_table(columns, shown, whole=("Opt-out",))


def verify_command(opt_out: OptOutId) -> None:
    """Say that it is right: its works are hidden from now on, in every process of the API within a second."""
    from jobs.audit import SHELL

    row = _opt_outs().verify(opt_out, SHELL)
    typer.echo(f"{row.id} is verified; its works are hidden since {row.hidden_at:%Y-%m-%d %H:%M} UTC.")


def apply_command(
    opt_out: OptOutId,
    left_out: Annotated[
        str | None, typer.Option(help="When an index was built without its works: 2026-02-03, or `now`.")
    ] = None,
    removed: Annotated[
        str | None, typer.Option(help="When a model that wasn't trained on them replaced the old one.")
    ] = None,
) -> None:
    """Say what was done about it."""
    from jobs.audit import SHELL

    row = _opt_outs().apply(opt_out, SHELL, moment(left_out, "--left-out"), moment(removed, "--removed"))
    done = {"left out": row.left_out_at, "gone from the model": row.removed_at}
    said = ", ".join(f"{name} since {at:%Y-%m-%d}" for name, at in done.items() if at is not None)
    typer.echo(f"{row.id} is applied: {said}.")
    if left_out is not None:
        for index_id, count in _still_there(row):
            typer.echo(
                f"But {index_id}, as it is in DAS_INDEX_DIR now, still has {counted(count, 'work')} of it:"
                " whoever asked is told so until an index without them takes its place.",
                err=True,
            )


def reject_command(
    opt_out: OptOutId,
    reason: Annotated[str, typer.Option(help="Why, for whoever asked to read.")],
) -> None:
    """Refuse it; what it hid is shown again."""
    from jobs.audit import SHELL
    from jobs.opt_outs import MAX_REASON

    if not reason.strip() or len(reason) > MAX_REASON:
        raise SettingsError(f"--reason has 1 to {MAX_REASON} characters")
    typer.echo(f"{_opt_outs().reject(opt_out, SHELL, reason.strip()).id} is rejected.")


def export_command(
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object a line in place of CSV, for machines.")
    ] = False,
) -> None:
    """Write a line for each work of the indexes here that a verified opt-out is about, for the next build."""
    from app.spreadsheets import csv_lines

    rows = _works(_opt_outs())
    if as_json:
        for row in rows:
            typer.echo(json.dumps(row))
        return
    for line in csv_lines(COLUMNS, rows):
        sys.stdout.write(line)


def moment(text: str | None, option: str) -> datetime | None:
    """The moment that a date, a date with time, or `now` means, in UTC where nothing else is said; not in the future.

    Raises:
        SettingsError: it means none.
    """
    if text is None:
        return None
    now = datetime.now(UTC)
    try:
        at = now if text == "now" else datetime.fromisoformat(text)
        at = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
        at = at.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise SettingsError(f"{option} {text!r} isn't a moment: write it as 2026-02-03, or now") from error
    if at > now:
        raise SettingsError(f"{option} {text!r} lies in the future: say it once it is done")
    return at


def described(row: "OptOut") -> dict[str, Any]:
    """What is told of an opt-out: everything but the digest of its token."""
    names = [column.key for column in row.__table__.columns if column.key != "token_digest"]
    told = {name: getattr(row, name) for name in names}
    return {
        name: value.isoformat(timespec="seconds") if isinstance(value, datetime) else value
        for name, value in told.items()
    } | {"hidden": row.hides}


def _opt_outs() -> "OptOuts":
    from jobs.database import Database, upgrade
    from jobs.opt_outs import OptOuts

    settings = get_settings()
    upgrade(settings)
    return OptOuts(Database(settings, pooled=False))


def _all(opt_outs: "OptOuts", state: str | None) -> Iterator["OptOut"]:
    cursor: str | None = None
    while True:
        page = opt_outs.list(None, state, cursor, AT_ONCE)
        yield from page.opt_outs
        if page.next_cursor is None:
            return
        cursor = page.next_cursor


def _still_there(row: "OptOut") -> list[tuple[str, int]]:
    """The indexes here that have works which an opt-out is about, and how many."""
    from app.catalogue import Catalogue
    from app.visibility import Levels
    from jobs.opt_outs import Hiding

    settings = get_settings()
    about = Hiding(row.index_name, frozenset(row.works or ()), row.creator)
    found = [
        (served.id, len(Levels(served, settings.work_visibility).rows_of(about)))
        for served in Catalogue.open(settings)
    ]
    return [(index_id, count) for index_id, count in found if count]


def _works(opt_outs: "OptOuts") -> Iterator[dict[str, Any]]:
    from app.catalogue import Catalogue
    from app.visibility import Levels
    from jobs.opt_outs import Hiding

    settings = get_settings()
    catalogue = Catalogue.open(settings)
    if catalogue.missing is not None:
        raise SettingsError(catalogue.missing)
    levels = [Levels(served, settings.work_visibility) for served in catalogue]
    for state in (State.VERIFIED, State.APPLIED):
        for row in _all(opt_outs, state):
            about = Hiding(row.index_name, frozenset(row.works or ()), row.creator)
            for one in levels:
                for number in map(int, one.rows_of(about)):
                    work = one.served.work(number)
                    yield {
                        "index": one.served.name,
                        "work_id": work["id"],
                        "file": work["file"],
                        "sha256": work["digest"],
                        "creator": work["creator"],
                        "opt_out": row.id,
                    }
