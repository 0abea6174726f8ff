"""Tables that commands print, in which no id is cut: each can be copied into the next command."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

WIDEST = 100_000


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], whole: Sequence[str]) -> None:
    """Print rows below the columns' names.

    On a terminal the columns named in `whole`, those of ids, keep each id on one line, however narrow it is, and what
    is in others goes on in the next line. Elsewhere, as in a pipe, every row is one line.
    """
    console = Console()
    table = Table(box=None)
    for name in columns:
        table.add_column(name, no_wrap=name in whole, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    print_whole(table, console, one_line_each=not console.is_terminal)


def print_whole(table: Table, console: Console, *, one_line_each: bool = False) -> None:
    """Print a table as wide as its columns that can't be folded take, or as wide as all of them do."""
    needed = console.measure(table, options=console.options.update(max_width=WIDEST))
    least = needed.maximum if one_line_each else needed.minimum
    if least > console.width:
        console.width = least
    console.print(table)
