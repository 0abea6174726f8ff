"""On a disk without any room left erasing still works, and leaves no byte behind."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.database import Database, upgrade
from jobs.errors import StorageError
from jobs.reserve import RESERVE_BYTES, Reserve
from jobs.settings import Settings

# In a mount namespace of its own, where a small filesystem may be mounted. argv: the folder to mount it on, another
# folder for the pictures, so that removing those frees nothing.
ON_A_FULL_DISK = """
import os, sys
from pathlib import Path
from jobs.database import upgrade
from jobs.errors import StorageError
from jobs.models import JobState, NewJob
from jobs.reserve import RESERVE_BYTES
from jobs.settings import Settings
from jobs.store import JobStore

disk, pictures = Path(sys.argv[1]), sys.argv[2]
settings = Settings(_env_file=None, data_dir=disk, blob_url=pictures)
upgrade(settings)
store = JobStore(settings)
store.upkeep.tidy()
secret = "a very particular prompt"
works = [{"work_id": f"work-{n:06d}", "rank": n, "score": 1.0, "note": secret} for n in range(5000)]
ids = []
for _ in range(4):
    new = NewJob(index_id="i@1", method="das", candidates="all", top_k=3, input={}, prompt=secret)
    ids.append(store.create(new, b"a picture").id)
    (job,) = store.leases.claim("worker", 1, ["i@1"])
    assert store.leases.finish(job.token, {"works": works}, {})
store.database.forget()
filler = disk / "filler"
with filler.open("wb", buffering=0) as file:
    for size in (1 << 16, 1 << 10, 1):
        try:
            while True:
                file.write(b"x" * size)
        except OSError:
            pass
assert os.statvfs(disk).f_bavail == 0
try:
    store.create(NewJob(index_id="i@1", method="das", candidates="all", top_k=3, input={}), b"a picture")
except StorageError as error:
    assert "make room on its disk" in str(error), error
else:
    raise AssertionError("the disk isn't full")
for job_id in ids:
    store.erase(job_id)
    assert store.get(job_id).state == JobState.ERASED
assert not store.database.to_forget
assert not (disk / "reserve").exists()
left = [path.name for path in disk.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]
assert not left, left
assert list(Path(pictures).iterdir()) == []
filler.unlink()
store.upkeep.tidy()
assert (disk / "reserve").stat().st_size == RESERVE_BYTES
print("erased")
"""
MOUNT = 'mount -t tmpfs -o size=12m tmpfs "$1" && shift && exec "$@"'


def in_a_namespace(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command where `folder` is a filesystem of 12 MB; a user's own namespace does for who isn't root."""
    own = ["--mount"] if os.getuid() == 0 else ["--mount", "--map-root-user"]
    return subprocess.run(
        ["unshare", *own, "sh", "-c", MOUNT, "sh", str(folder), *command], capture_output=True, text=True
    )


def test_erasing_on_a_full_disk(tmp_path: Path) -> None:
    disk, pictures = tmp_path / "disk", tmp_path / "pictures"
    disk.mkdir()
    try:
        possible = in_a_namespace(disk, "true").returncode == 0
    except FileNotFoundError:
        possible = False
    if not possible:
        pytest.skip("no filesystem can be mounted here")
    done = in_a_namespace(disk, sys.executable, "-c", ON_A_FULL_DISK, str(disk), str(pictures))
    assert done.returncode == 0, done.stderr
    assert done.stdout == "erased\n"


def test_the_reserve_is_held_given_up_once_and_held_again(tmp_path: Path) -> None:
    reserve = Reserve(tmp_path)
    assert not reserve.give_up()
    reserve.keep()
    held = tmp_path / "reserve"
    assert held.stat().st_blocks * 512 >= RESERVE_BYTES
    assert held.stat().st_mode & 0o777 == 0o600
    before = held.stat().st_mtime_ns
    reserve.keep()
    assert held.stat().st_mtime_ns == before
    assert reserve.give_up()
    assert not held.exists()
    assert not reserve.give_up()


def test_it_is_given_up_only_for_want_of_room(settings: Settings) -> None:
    upgrade(settings)
    database = Database(settings)
    database.keep_reserve()
    assert not database.give_up_reserve(StorageError("the database x can't be used (database is locked)"))
    assert database.give_up_reserve(StorageError("the database x can't be used (database or disk is full)"))
    assert not database.give_up_reserve(
        StorageError("the database x can't be used (database or disk is full)")
    )
    database.close()
