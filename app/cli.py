"""`das serve`, `das config`, `das db`; with `das keys` and `das policy`, which have modules of their own."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import SecretStr
from rich.console import Console
from rich.table import Table

from app import audit_cli, keys_cli, opt_outs_cli, statements_cli
from app.moderation import command as policies
from das.tables import print_whole
from jobs.masking import MASK, masked
from jobs.settings import Settings, get_settings


def register(app: typer.Typer) -> None:
    """Add the service's commands to `das`."""
    app.command("serve")(serve_command)
    app.command("io-worker")(io_worker_command)
    app.command("config")(config_command)
    database = typer.Typer(help="The service's database.", no_args_is_help=True)
    database.command("upgrade")(upgrade_command)
    database.command("downgrade")(downgrade_command)
    app.add_typer(database, name="db")
    policies.register(app)
    keys_cli.register(app)
    opt_outs_cli.register(app)
    audit_cli.register(app)
    app.command("statement")(statements_cli.statement_command)


def serve_command(
    host: Annotated[str | None, typer.Option(help="Address to listen on (DAS_HOST).")] = None,
    port: Annotated[
        int | None, typer.Option(help="Port to listen on, 0 for a free one (DAS_PORT).", min=0, max=65535)
    ] = None,
    index: Annotated[
        Path | None, typer.Option(help="Index to serve, or a directory of several (DAS_INDEX_DIR).")
    ] = None,
    model: Annotated[
        Path | None, typer.Option(help="Where the indexes' models are, or the one model (DAS_MODEL_DIR).")
    ] = None,
    worker: Annotated[
        bool,
        typer.Option(help="Whether to compute here as well; without, start `das worker` where it shall be."),
    ] = True,
) -> None:
    """Serve the page and the API: broker, worker and web server in one. Ctrl-C ends all of it."""
    # The web framework takes a second to import; `das --help` shall not wait for it.
    from app.serve import serve, tell_address
    from jobs.logs import configure_logging, refusals_told

    settings = with_options(get_settings(), host=host, port=port, index_dir=index, model_dir=model)
    configure_logging(settings)
    with refusals_told(settings):
        code = serve(settings, tell_address(settings), with_worker=worker)
    raise typer.Exit(code)


def io_worker_command() -> None:
    """Do what the service does beside answering: webhooks, batches, lost jobs, tidying (DAS_DUTIES=io-worker).

    Ends on SIGTERM or Ctrl-C.
    """
    from app.io_worker import main

    raise typer.Exit(main())


def config_command(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, for machines.")] = False,
) -> None:
    """List every setting: its value, its default and what it is for."""
    rows = described_settings(get_settings())
    if as_json:
        typer.echo(json.dumps({row["variable"]: row for row in rows}, indent=2))
        return
    console = Console(highlight=False)
    table = Table(box=None, padding=(0, 2, 1, 0), header_style="bold")
    table.add_column("Setting", no_wrap=True)
    table.add_column("Value", overflow="fold")
    table.add_column("What it is for", overflow="fold")
    for row in rows:
        value = "–" if row["value"] is None else str(row["value"])
        default = "–" if row["default"] is None else str(row["default"])
        changed = row["value"] != row["default"]
        shown = f"[bold]{value}[/]\n[dim]default {default}[/]" if changed else value
        table.add_row(row["variable"], shown, row["description"])
    print_whole(table, console)


def upgrade_command() -> None:
    """Bring the database to this version's schema. `das serve` and `das worker` do so by themselves."""
    from jobs.database import upgrade

    settings = get_settings()
    upgrade(settings)
    typer.echo("The database is up to date.")


def downgrade_command(
    revision: Annotated[str, typer.Argument(help="The schema of the version to go back to, such as 0008.")],
) -> None:
    """Bring the database back to an earlier version's schema, for that version. End the service first."""
    from jobs.database import downgrade

    downgrade(get_settings(), revision)
    typer.echo(f"The database is at {revision}; what only later versions hold is gone.")


def with_options(settings: Settings, **options: Any) -> Settings:
    """The settings with the command line's options over the environment's; checked in the same way."""
    given = {name: value for name, value in options.items() if value is not None}
    return Settings(**{**dict(settings), **given}) if given else settings


def described_settings(settings: Settings) -> list[dict[str, Any]]:
    """Every setting as its variable, value, default and description; what is secret is masked."""
    rows = []
    for name, field in Settings.model_fields.items():
        value = getattr(settings, name)
        default = field.default
        if name in ("data_dir", "index_dir"):
            # Kept absolute in the settings; the default is what it is relative to where it was started.
            default = Path.cwd() / default
        rows.append(
            {
                "variable": f"DAS_{name.upper()}",
                "value": _plain(value),
                "default": _plain(default),
                "description": field.description,
            }
        )
    return rows


def _plain(value: Any) -> Any:
    if isinstance(value, SecretStr):
        return MASK
    return value if isinstance(value, int | float | bool | None) else masked(str(value))
