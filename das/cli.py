"""The `das` command, assembled from what is installed.

The commands live with what they do (`index_build`, `worker`, `app`, `demo`), each announced as an entry point
of the group `das.commands`. So the library imports none of them, and the arrows between packages stay one-way.
"""

import sys
from importlib.metadata import entry_points

import typer
from rich.console import Console
from rich.markup import escape

from das.errors import DasError

EXIT_USER_ERROR = 2


def build_app() -> typer.Typer:
    """The command tree: every `register(app)` of the group `das.commands`, in the order of their names."""
    cli = typer.Typer(
        name="das",
        help="Which training images does a generated image owe most to?",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )

    @cli.callback()
    def root() -> None:
        """Which training images does a generated image owe most to?"""

    for entry in sorted(entry_points(group="das.commands"), key=lambda e: e.name):
        entry.load()(cli)
    return cli


def main() -> None:
    """Run the command line; a user's error ends with its sentence and exit code 2, without a traceback."""
    try:
        build_app()()
    except DasError as error:
        Console(stderr=True, highlight=False, soft_wrap=True).print(
            f"[bold red]error:[/] {escape(str(error))}"
        )
        sys.exit(EXIT_USER_ERROR)
