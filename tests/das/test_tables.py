"""Tables of commands at 80 columns: ids stay whole, whatever else is in the row."""

import io

import pytest
from rich.console import Console
from rich.table import Table

from das.tables import print_table, print_whole

IDS = ("opt_0193a6c1f3d07e528f1e5b1b2f0c9d10", "req_0193a6c1f3d07e528f1e5b1b2f0c9d11")
LONG = "Aurora Lighthouse of the northern shores, and everybody else who was there"


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_on_a_terminal_ids_are_whole_and_the_rest_gives_way(columns: int) -> None:
    written = io.StringIO()
    console = Console(file=written, force_terminal=True, color_system=None, width=columns)
    table = Table(box=None)
    for name in ("Id", "Who", "Request"):
        table.add_column(name, no_wrap=name != "Who", overflow="fold")
    table.add_row(IDS[0], LONG, IDS[1])
    print_whole(table, console)
    text = written.getvalue()
    assert all(one in text for one in IDS)
    assert "…" not in text
    assert (len(text.splitlines()) > 2) == (columns < 150)
    assert sum(text.count(word) for word in ("Aurora", "Lighthouse")) <= 2


def test_in_a_pipe_each_row_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    print_table(("Id", "Who", "Request"), [(IDS[0], f"{LONG} [red]", IDS[1])] * 3, whole=("Id",))
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split() == ["Id", "Who", "Request"]
    assert [" ".join(row.split()) for row in rows] == [f"{IDS[0]} {LONG} [red] {IDS[1]}"] * 3
