"""`das statement`: shares by rights holder over the answers of a period, from the service's own database."""

from pathlib import Path
from typing import Annotated

import typer

from app.statements import Amount, Period, StatementRefused, as_csv, statement
from das.durable import write_bytes
from das.errors import SettingsError
from das.index import AttributionIndex
from das.plurals import counted
from jobs.answered import answered
from jobs.audit import SHELL, Audit
from jobs.database import Database
from jobs.keys import Keys
from jobs.settings import get_settings


def statement_command(
    index: Annotated[
        Path, typer.Option(help="The index's directory; answers of other versions of its name count too.")
    ],
    since: Annotated[str, typer.Option("--from", help="The first day (UTC), or a moment in ISO 8601.")],
    until: Annotated[str, typer.Option("--to", help="The first day that isn't part of it.")],
    out: Annotated[Path, typer.Option(help="Where the statement is written: .csv, or .json.")],
    key: Annotated[
        str | None,
        typer.Option(help="Only what was asked with this API key, by its id, and those it replaces."),
    ] = None,
    amount: Annotated[str | None, typer.Option(help="A sum to divide, such as 1000 or 99.50.")] = None,
    currency: Annotated[str | None, typer.Option(help="Its currency, such as EUR.")] = None,
) -> None:
    """Say which rights holders the answers of a period owe how much to, for who pays them."""
    if out.suffix not in (".csv", ".json"):
        raise SettingsError(f"--out {out}: the statement is written as .csv or .json.")
    period, whole = Period.read(since, until), Amount.read(amount, currency)
    opened = AttributionIndex.open(index)
    database = Database(get_settings())
    try:
        owner = None
        if key is not None:
            found = Keys(database).find(key.removeprefix("das_").partition("_")[0])
            if found is None:
                raise StatementRefused(f"there is no API key {key[:40]!r}; das keys list shows them")
            owner = found.owner
        answers = answered(database, opened.manifest.name, period.since, period.until, owner)
        made = statement(opened, period, answers, whole)
        Audit(database).write(
            SHELL,
            "statement.made",
            opened.id,
            since=period.since.isoformat(),
            until=period.until.isoformat(),
            everybody=owner is None,
        )
    finally:
        database.close()
    text = as_csv(made) if out.suffix == ".csv" else made.model_dump_json(indent=2) + "\n"
    try:
        write_bytes(out, text.encode())
    except OSError as error:
        raise SettingsError(f"{out} can't be written: {error.strerror}.") from error
    left = sum(one.questions for one in made.left_out)
    typer.echo(f"{counted(made.questions, 'question')} counted, {left:,} not. {made.reliable_because}")
    for one in made.left_out:
        if one.questions:
            typer.echo(f"Not counted: {one.questions:,}; {one.note}.")
