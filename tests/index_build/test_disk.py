"""Places where no index can be made: a sentence each, and nothing is left behind."""

from pathlib import Path

import pytest

from das.errors import BuildError
from index_build.disk import only_builder


@pytest.mark.parametrize(
    "out",
    ["file/index", "file", "n" * 300, "n" * 249, "deep/" + "n" * 300 + "/index", "loop/index", "zero\0byte"],
)
def test_an_out_that_cant_be_made_is_said(tmp_path: Path, out: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    with (
        pytest.raises(BuildError, match=r"[Cc]hoose another --out"),
        only_builder(tmp_path / out),
    ):
        pytest.fail("it was begun")
    assert {entry.name for entry in tmp_path.iterdir()} <= {"file", "loop", "deep"}


def test_an_out_in_a_place_of_the_system_is_said() -> None:
    with pytest.raises(BuildError, match="can't be made"), only_builder(Path("/proc/index")):
        pytest.fail("it was begun")


def test_new_folders_and_empty_ones_are_taken(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for out in (tmp_path / "empty", tmp_path / "new/folders/index"):
        with only_builder(out) as place:
            assert place == out
            assert out.with_name(out.name + ".lock").is_file()
        assert not out.with_name(out.name + ".lock").exists()
