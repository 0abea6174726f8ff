"""`das index approximate` that is killed, finds no room, or is sent on: what is served is whole, nothing is left."""

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from das.approximation import SAMPLE_NAME
from das.attribution import Attributor
from das.errors import BuildError, SettingsError
from das.index import AttributionIndex
from das.manifest import MANIFEST_NAME, list_files
from index_build.approximating import approximate
from index_build.progress import QuietReporter
from index_build.storage import IndexStore, Mirror
from jobs.settings import Settings
from tests.conftest import make_picture

ManyWorks = Callable[[str], Path]
OPTIONS = {"size": 4, "depth": 100, "sample": 500}

KILLED = """
import os, signal, sys

moment = sys.argv.pop(1)

def die(event, arguments):
    # The file is written and hasn't its name yet.
    if event == "os.rename" and os.fspath(arguments[1]).endswith(moment):
        os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(die)
from das.cli import main
main()
"""


@pytest.fixture(scope="module")
def whole_id(many_works: ManyWorks, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The id of the index that is made without a kill."""
    out = tmp_path_factory.mktemp("whole") / "index"
    return approximate(AttributionIndex.open(many_works("int8")), out, **OPTIONS).index_id


@pytest.mark.parametrize(
    ("moment", "state"),
    [
        ("works.parquet", "made"),
        ("search.faiss", "made"),
        ("sum.npy", "made"),
        (SAMPLE_NAME, "made"),
        (f".building/{MANIFEST_NAME}", "made"),
        # Finished but for its name.
        ("served/index", "present"),
    ],
)
def test_what_is_killed_is_made_anew_and_leaves_nothing(
    many_works: ManyWorks, whole_id: str, tmp_path: Path, moment: str, state: str
) -> None:
    parent, out = AttributionIndex.open(many_works("int8")), tmp_path / "served" / "index"
    words = ["index", "approximate", parent.path, "--out", out, "--bytes", 4, "--depth", 100, "--sample", 500]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, moment, *map(str, words)],
        env=environment,
        capture_output=True,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert not out.exists()
    # Whoever serves the folder sees no index in it.
    with pytest.raises(SettingsError, match="no attribution index"):
        Settings(_env_file=None, index_dir=out.parent).index_directories()
    assert parent.verify().ok
    with pytest.raises(BuildError, match=r"other options|another index"):
        approximate(parent, out, size=4, depth=101, sample=500)

    made = approximate(parent, out, **OPTIONS)
    assert (made.state, made.index_id) == (state, whole_id)
    assert AttributionIndex.open(out).verify().ok
    assert [entry.name for entry in out.parent.iterdir()] == ["index"]
    there = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert (
        there
        == {MANIFEST_NAME, *AttributionIndex.open(out).manifest.files}
        == {MANIFEST_NAME, *list_files(out)}
    )


def test_a_full_disk_is_said_and_the_same_command_goes_on(
    many_works: ManyWorks, whole_id: str, tmp_path: Path
) -> None:
    parent, out = AttributionIndex.open(many_works("int8")), tmp_path / "index"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Of the files that are written the search alone is as large.
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        with pytest.raises(BuildError, match="is full"):
            approximate(parent, out, **OPTIONS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not out.exists()
    assert approximate(parent, out, **OPTIONS).index_id == whole_id
    assert AttributionIndex.open(out).verify().ok


def test_a_store_and_a_mirror_take_the_search_along(many_works: ManyWorks, tmp_path: Path) -> None:
    parent, out = AttributionIndex.open(many_works("int8")), tmp_path / "index"
    approximate(parent, out, **OPTIONS)
    (tmp_path / "store").mkdir()
    (tmp_path / "folder").mkdir()
    store = IndexStore(str(tmp_path / "store"))
    store.push(parent.path, QuietReporter())
    name = store.push(out, QuietReporter())
    mirror = Mirror(store, tmp_path / "folder")
    with mirror.alone():
        # It is later than its parent, whose name it has.
        assert mirror.look(QuietReporter()).fetched == (name,)
    there = AttributionIndex.open(tmp_path / "folder" / name)
    assert there.verify().ok
    picture = make_picture(3)
    answers = [
        Attributor(index, threads=1).attribute(picture) for index in (AttributionIndex.open(out), there)
    ]
    assert [answer.candidates.mode for answer in answers] == ["approximate"] * 2
    assert answers[0].works == answers[1].works
    assert answers[0].groups == answers[1].groups
