"""Builds that are killed, run out of disk or meet another builder: what is left goes on to the same bits."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from das.manifest import list_files
from das.works import file_digest
from index_build.disk import only_builder
from index_build.workspace import building_path
from tests.conftest import make_works
from tests.index_build.digests import digests

Order = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, tiny_clip: Path) -> dict[str, Any]:
    works = tmp_path_factory.mktemp("few") / "works"
    make_works(works, 11)
    (works / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    return {
        "name": "killed",
        "model": str(tiny_model),
        "works": str(works),
        "timesteps": [100, 500],
        "dimension": 32,
        "methods": ["das-block", "das"],
        "shard_size": 4,
        "clip": {"directory": str(tiny_clip)},
    }


@pytest.fixture(scope="module")
def order(options: dict[str, Any]) -> Iterator[Order]:
    """Have the builders' process build; returns what became of it."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    program = str(Path(__file__).with_name("builders.py"))
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([sys.executable, program], text=True, env=environment, **pipes) as process:  # type: ignore[call-overload]

        def build(out: Path, **when: Any) -> dict[str, Any]:
            config = options | when.pop("config", {})
            process.stdin.write(json.dumps({"config": config, "out": str(out), **when}) + "\n")
            process.stdin.flush()
            return json.loads(process.stdout.readline())

        yield build
        process.stdin.close()


@pytest.fixture(scope="module")
def whole(order: Order, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, str], str, int]:
    """The digests of a build that nothing disturbed, its id, and how many durable writes it took."""
    out = tmp_path_factory.mktemp("whole") / "index"
    said = order(out)
    assert said["state"] == "built"
    return digests(out), said["index"], said["writes"]


def test_a_build_killed_again_and_again_gives_the_same_bits(
    order: Order, whole: tuple[dict[str, str], str, int], tmp_path: Path
) -> None:
    """A dozen kills, one after the other: at the first write, in every shard, in the second pass, in the end."""
    expected, index_id, writes = whole
    out = tmp_path / "index"
    # A resumed run writes build.json first; two writes are a shard. The later runs have only the second pass left.
    second_pass = writes - 1 - 3 * 2
    moments = [0, 1, 2, 3, 2, 4, *(1 + second_pass * part // 5 for part in range(1, 5)), second_pass]
    for moment in moments:
        assert order(out, die_at=moment) == {"killed": True}, moment
        assert not out.exists()
    for step in ("rmtree", "rename"):
        assert order(out, die_in=step) == {"killed": True}
        assert not out.exists()
    said = order(out)
    assert said["index"] == index_id
    assert digests(out) == expected
    assert not building_path(out).exists()
    assert not out.with_name("index.lock").exists()
    assert order(out)["state"] == "present"


def test_every_shard_is_computed_once(
    order: Order, whole: tuple[dict[str, str], str, int], tmp_path: Path
) -> None:
    """Going on after two of three shards takes the writes of the third and of the second pass, no more."""
    _, _, writes = whole
    out = tmp_path / "index"
    assert order(out, die_at=1 + 2 * 2)["killed"]
    assert order(out)["writes"] == writes - 2 * 2


def test_a_build_killed_at_any_time_goes_on(
    order: Order, whole: tuple[dict[str, str], str, int], tmp_path: Path
) -> None:
    """Kills from outside, at whatever the builder is doing then; more and more of it is done."""
    out = tmp_path / "index"
    for milliseconds in (50, 200, 350, 450, 550, 700, 900):
        order(out, kill_after_s=milliseconds / 1000)
        if out.exists():
            break
    assert order(out)["index"] == whole[1]
    assert digests(out) == whole[0]


def test_a_full_disk_is_said_and_the_build_goes_on_later(
    order: Order, whole: tuple[dict[str, str], str, int], tmp_path: Path
) -> None:
    out = tmp_path / "index"
    for limit in (100, 3_000, 12_000):
        said = order(out, file_limit=limit)
        assert "is full" in said["error"] or "couldn't be written" in said["error"], limit
        assert "run the same command again" in said["error"]
    assert order(out)["index"] == whole[1]
    assert digests(out) == whole[0]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"dimension": 16}, r"--dimension \(16, there 32\)"),
        ({"seed": 5}, r"--seed \(5, there 0\)"),
        ({"timesteps": [100]}, r"--timesteps \(100, there 100, 500\)"),
        ({"methods": ["das"]}, r"--method \(das, there das-block, das\)"),
        ({"shard_size": 5}, r"--shard-size \(5, there 4\)"),
    ],
)
def test_going_on_with_other_options_is_refused(
    order: Order, tmp_path: Path, change: dict[str, Any], named: str
) -> None:
    out = tmp_path / "index"
    assert order(out, die_at=4)["killed"]
    before = {name: file_digest(building_path(out) / name) for name in list_files(building_path(out))}
    said = order(out, config=change)
    assert re.search("unfinished build with other options: " + named, said["error"])
    assert {name: file_digest(building_path(out) / name) for name in list_files(building_path(out))} == before


def test_strict_counts_for_what_an_earlier_run_passed_over(
    order: Order, whole: tuple[dict[str, str], str, int], tmp_path: Path
) -> None:
    out = tmp_path / "index"
    assert order(out, die_at=4)["killed"]
    said = order(out, strict=True)
    assert re.search(r"broken\.png can't be used .*was begun without it", said["error"])
    assert order(out)["index"] == whole[1]
    assert "without 1 of its works" in order(out, strict=True)["error"]


def test_a_work_that_stopped_a_strict_build_is_mended_and_the_same_command_goes_on(
    order: Order, options: dict[str, Any], tmp_path: Path
) -> None:
    works, out = tmp_path / "works", tmp_path / "index"
    shutil.copytree(options["works"], works)
    config = {"works": str(works)}
    assert "--strict is on" in order(out, strict=True, config=config)["error"]
    shutil.copy(works / "work-003.png", works / "broken.png")
    assert order(out, strict=True, config=config)["state"] == "built"


def test_a_second_builder_is_refused_while_the_first_one_works(order: Order, tmp_path: Path) -> None:
    out = tmp_path / "index"
    with only_builder(out):
        assert "another build is writing here" in order(out)["error"]
    assert order(out)["state"] == "built"
