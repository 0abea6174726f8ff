"""Files that are whole or not there, at whatever line the writer is killed; locks that one process holds."""

import errno
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from das import durable

OLD, NEW = b"old" * 1000, b"new" * 2000


def in_parallel(work: Callable[[], object]) -> int:
    """Run `work` in a forked process; its process id."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return child


def in_a_child(work: Callable[[], object]) -> int:
    """Run `work` in a forked process; its exit status as of `os.waitpid`: 1 << 8 if it raised."""
    return os.waitpid(in_parallel(work), 0)[1]


def killed_at(line: int, work: Callable[[], object]) -> bool:
    """Run `work` in a process that dies by SIGKILL before the `line`-th line of das.durable; whether it died."""

    def dying() -> None:
        left = line

        def trace(frame: FrameType, event: str, argument: Any) -> Any:
            nonlocal left
            if frame.f_code.co_filename != durable.__file__:
                return None
            if event == "line":
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
            return trace

        sys.settrace(trace)
        work()

    status = in_a_child(dying)
    assert status in (0, signal.SIGKILL)
    return status != 0


def kill_at_every_line(work: Callable[[], object], check: Callable[[], None]) -> int:
    """Kill `work` at its first line, its second, … until it gets to its end; `check` what is there each time."""
    line = 0
    while killed_at(line, work):
        check()
        line += 1
    check()
    return line


def visible(directory: Path) -> set[str]:
    """The names that aren't of unfinished files."""
    return {entry.name for entry in directory.iterdir() if not durable.is_partial(entry.name)}


def write_all(path: Path) -> dict[str, Callable[[], object]]:
    return {
        "bytes": lambda: durable.write_bytes(path, NEW),
        "path": lambda: durable.write_path(path, lambda partial: partial.write_bytes(NEW)),
    }


@pytest.mark.parametrize("way", ["bytes", "path"])
def test_a_file_is_the_old_or_the_new_one_wherever_its_writer_is_killed(tmp_path: Path, way: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(OLD)
    seen = []

    def check() -> None:
        seen.append(path.read_bytes())
        assert visible(tmp_path) == {"file"}

    assert kill_at_every_line(write_all(path)[way], check) > 10
    # Old before, new after: it never goes back.
    assert seen == sorted(seen, key=(OLD, NEW).index)
    assert {seen[0], seen[-1]} == {OLD, NEW}
    assert any(durable.is_partial(entry.name) for entry in tmp_path.iterdir())
    durable.remove_partials(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_several_files_are_replaced_in_their_order(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for path in (first, second):
        path.write_bytes(OLD)
    seen = []

    def check() -> None:
        seen.append((first.read_bytes(), second.read_bytes()))

    kill_at_every_line(lambda: durable.write_together({first: NEW, second: NEW}), check)
    assert list(dict.fromkeys(seen)) == [(OLD, OLD), (NEW, OLD), (NEW, NEW)]


@pytest.mark.parametrize("there", [False, True])
def test_a_directory_is_whole_wherever_its_writer_is_killed(tmp_path: Path, there: bool) -> None:
    path = tmp_path / "folder"

    def write(content: bytes) -> Callable[[Path], None]:
        def fill(partial: Path) -> None:
            (partial / "inside").mkdir()
            for name in ("a", "inside/b"):
                (partial / name).write_bytes(content)

        return fill

    seen = []

    def check() -> None:
        if not path.exists():
            seen.append(None)
            return
        contents = {(path / name).read_bytes() for name in ("a", "inside/b")}
        assert len(contents) == 1
        seen.append(contents.pop())
        if there and seen[-1] == NEW:
            durable.write_directory(path, write(OLD))  # for the next kill

    if there:
        durable.write_directory(path, write(OLD))
    kill_at_every_line(lambda: durable.write_directory(path, write(NEW)), check)
    assert set(seen) == ({OLD, NEW, None} if there else {NEW, None})
    assert seen[-1] == NEW
    # For one moment only there is neither.
    assert not there or seen.count(None) <= 4


def test_a_directory_of_another_writer_is_replaced_or_kept(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    durable.write_directory(path, lambda partial: (partial / "mine").touch())
    durable.write_directory(path, lambda partial: (partial / "theirs").touch(), keep=True)
    assert visible(path) == {"mine"}
    durable.write_directory(path, lambda partial: (partial / "theirs").touch())
    assert visible(path) == {"theirs"}
    assert [entry.name for entry in tmp_path.iterdir()] == ["folder"]


@pytest.mark.parametrize("way", ["bytes", "path"])
def test_a_full_disk_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path, way: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(OLD)

    def write() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
        try:
            write_all(path)[way]()
        except OSError as error:
            os._exit(7 if error.errno in durable.NO_ROOM else 8)

    assert os.waitstatus_to_exitcode(in_a_child(write)) == 7
    assert path.read_bytes() == OLD
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_a_disk_that_refuses_to_flush_leaves_all_files_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Full disks are found out by the flush, on some file systems."""
    files = {tmp_path / name: NEW for name in ("first", "second")}
    for path in files:
        path.write_bytes(OLD)
    flushed: list[int] = []

    def fsync(descriptor: int) -> None:
        flushed.append(descriptor)
        if len(flushed) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="No space left"):
        durable.write_together(files)
    assert {path.read_bytes() for path in files} == {OLD}
    assert visible(tmp_path) == {entry.name for entry in tmp_path.iterdir()} == {"first", "second"}


def test_modes_are_kept_from_the_first_moment(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        durable.write_file(
            tmp_path / "private",
            lambda stream: stream.write(b"%o" % (os.fstat(stream.fileno()).st_mode & 0o777)),
            mode=0o600,
        )
        durable.write_bytes(tmp_path / "public", b"")
    finally:
        os.umask(before)
    assert (tmp_path / "private").read_bytes() == b"600"
    assert (tmp_path / "private").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "public").stat().st_mode & 0o777 == 0o644


def test_folders_are_made_and_the_longest_names_written(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / ("n" * 255)
    durable.write_json(path, {"creator": "Čapek"})
    assert json.loads(path.read_text(encoding="utf-8")) == {"creator": "Čapek"}


def test_writers_of_one_directory_dont_disturb_each_other(tmp_path: Path) -> None:
    path = tmp_path / "folder"

    def write(number: int) -> None:
        for _ in range(30):
            durable.write_directory(path, lambda partial: (partial / f"by-{number}").touch())

    children = [in_parallel(lambda number=number: write(number)) for number in range(3)]  # type: ignore[misc]
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
    assert len(visible(path)) == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["folder"]


def test_writers_of_one_file_dont_disturb_each_other(tmp_path: Path) -> None:
    path = tmp_path / "file"

    def write(number: int) -> None:
        for _ in range(50):
            durable.write_bytes(path, bytes([number]) * 5000)

    children = [in_parallel(lambda number=number: write(number)) for number in range(3)]  # type: ignore[misc]
    while children:
        if path.exists():
            content = path.read_bytes()
            assert len(content) == 5000
            assert len(set(content)) == 1
        child, status = os.waitpid(-1, os.WNOHANG)
        if child:
            assert status == 0
            children.remove(child)
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_only_unfinished_files_are_removed(tmp_path: Path) -> None:
    for name in ("notes.partial", ".hidden", "sub/.0123.partial", ".0123.partial"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    durable.remove_partials(tmp_path)
    assert {path.name for path in tmp_path.rglob("*")} == {"notes.partial", ".hidden", "sub"}


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_a_second_holder_waits_is_told_or_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "lock" if kind == "file" else tmp_path
    busy = ValueError("somebody else is at it")
    with durable.lock(path):
        assert durable.try_lock(path) is None
        with pytest.raises(ValueError, match="somebody else"):
            durable.lock_or_raise(path, busy)
    with durable.lock_or_raise(path, busy):
        pass
    held = durable.try_lock(path)
    assert held is not None
    held.release()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == (["lock"] if kind == "file" else [])


def test_who_waits_gets_the_lock_when_its_holder_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    ready, tell = os.pipe()
    child = os.fork()
    if child == 0:
        with durable.lock(path) as held:
            held.tell("I am the first")
            os.write(tell, b".")
            signal.pause()
    os.read(ready, 1)
    assert durable.try_lock(path) is None
    assert path.read_text() == "I am the first"
    killer = os.fork()
    if killer == 0:
        time.sleep(0.2)  # while the test waits below
        os.kill(child, signal.SIGKILL)
        os._exit(0)
    with durable.lock(path) as held:
        held.tell("me")
        assert path.read_text() == "me"
    os.waitpid(child, 0)
    os.waitpid(killer, 0)


def test_a_lock_file_that_is_removed_under_a_waiting_one_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between opening a lock file and locking it, its holder may remove it: then it is nobody's any more."""
    path = tmp_path / "lock"
    first = durable.lock(path)
    opened = os.open

    def removed_meanwhile(name: Any, *arguments: Any) -> int:
        descriptor = opened(name, *arguments)
        if name == path:
            first.release(remove=True)
        return descriptor

    monkeypatch.setattr(os, "open", removed_meanwhile)
    second = durable.try_lock(path)
    assert second is not None
    assert durable.try_lock(path) is None
    second.release(remove=True)
    assert not path.exists()


def test_a_removed_lock_of_a_holder_keeps_nobody_out_twice(tmp_path: Path) -> None:
    """Three processes take turns, removing the file each time; no two are ever inside."""
    path, inside = tmp_path / "lock", tmp_path / "inside"

    def turns() -> None:
        for _ in range(100):
            held = durable.lock(path)
            inside.touch(exist_ok=False)
            inside.unlink()
            held.release(remove=True)

    children = [in_parallel(turns) for _ in range(3)]
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]


def test_importing_it_loads_nothing_heavy() -> None:
    script = "import sys, das.durable; print({'numpy', 'torch', 'pydantic'} & set(sys.modules))"
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "set()"


def test_a_finished_directory_gets_its_name_whole(tmp_path):
    made, name = tmp_path / "index.building", tmp_path / "index"
    made.mkdir()
    (made / "manifest.json").write_bytes(NEW)

    def check() -> None:
        there = name if name.exists() else made
        assert (there / "manifest.json").read_bytes() == NEW
        if there == name:
            name.rename(made)

    kill_at_every_line(lambda: durable.publish(made, name), check)
    durable.publish(made, name)
    assert visible(tmp_path) == {"index"}
