"""`das audit`: the audit log on the command line."""

import json
import sys
from typing import Annotated, Any

import typer

from das.tables import print_table
from jobs.settings import get_settings

COLUMNS = ("at", "actor", "action", "object", "outcome", "request_id", "details")


def register(app: typer.Typer) -> None:
    """Add `das audit` to `das`."""
    audit = typer.Typer(help="Who did what: the audit log.", no_args_is_help=True)
    audit.command("list")(list_command)
    app.add_typer(audit, name="audit")


def list_command(
    actor: Annotated[
        str | None, typer.Option(help="Only what this key or link did, such as das_k7f3m2q9xwbt.")
    ] = None,
    action: Annotated[
        str | None, typer.Option(help="Only this, such as key.revoked, or key for all that begin so.")
    ] = None,
    object_id: Annotated[str | None, typer.Option("--object", help="Only what was done to this id.")] = None,
    since: Annotated[str | None, typer.Option(help="Only what is younger, such as 7d.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line, for machines.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="A table for spreadsheets.")] = False,
) -> None:
    """List entries of the log, the newest first."""
    from app.keys_cli import duration
    from app.spreadsheets import csv_lines
    from jobs.audit import Audit, AuditFilters
    from jobs.database import Database, upgrade
    from jobs.models import utc_now

    after = None if since is None else utc_now() - duration(since, "--since")
    settings = get_settings()
    upgrade(settings)
    filters = AuditFilters(actor=actor, action=action, object=object_id, after=after)
    events = Audit(Database(settings, pooled=False)).each(filters)
    rows = ({**{n: getattr(event, n) for n in COLUMNS}, "at": event.at.isoformat()} for event in events)
    if as_json:
        for row in rows:
            typer.echo(json.dumps(row))
        return
    if as_csv:
        for line in csv_lines(COLUMNS, ({**row, "details": json.dumps(row["details"])} for row in rows)):
            sys.stdout.write(line)
        return
    shown = [(str(row["at"])[:19], *(_shown(row[name]) for name in COLUMNS[1:6])) for row in rows]
    columns = ("When", "Who", "What", "To which", "Outcome", "Request")
    print_table(columns, shown, whole=("Who", "To which", "Request"))


def _shown(value: Any) -> str:
    return "–" if value is None else str(value)
