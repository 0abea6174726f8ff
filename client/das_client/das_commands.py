"""`das ask` and `das batch`, where das-attribution is installed beside this package. Their options are `cli`'s."""

from typing import Any

from das_client.cli import main

RAW = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


def register(app: Any) -> None:
    """Add the commands to `app`, the Typer of `das`."""
    import typer

    def ask(context: typer.Context) -> None:
        """Ask a service which works pictures (files or addresses) owe most to; --help tells the options."""
        main(["ask", *context.args], "das")

    def batch(context: typer.Context) -> None:
        """Ask a service about folders, archives or files of pictures, into a file that can be gone on with."""
        main(["batch", *context.args], "das")

    app.command("ask", context_settings=RAW)(ask)
    app.command("batch", context_settings=RAW)(batch)
