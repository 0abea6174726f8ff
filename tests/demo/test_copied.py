"""The demo's sets for measuring copies: what is said to be a copy is one, and the sets don't overlap."""

import csv
from pathlib import Path

from demo.copied import write_asked


def test_the_sets_and_what_is_said_to_be_a_copy(tmp_path: Path) -> None:
    counts = write_asked(tmp_path)
    assert counts["reproductions"] == 27
    assert sum(counts.values()) == 60 + 200 + counts["crops"] + counts["tiles"]
    seen: set[str] = set()
    for name, count in counts.items():
        with (tmp_path / name / "metadata.csv").open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
        files = {row["file_name"] for row in rows}
        assert len(files) == len(rows) == count
        assert files == {path.name for path in (tmp_path / name).glob("*.png")}
        assert all(bool(row["copy_of"]) == ("reproductions" in name) for row in rows)
        assert not files & seen
        seen |= files
