"""The blob store: whole files or none, in a directory or by URL."""

import os
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest

from das.errors import SettingsError
from jobs.blobs import BlobStore
from jobs.errors import StorageError
from jobs.settings import Settings

ROOT = Path(__file__).parents[2]


@pytest.fixture(params=["directory", "url"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> BlobStore:
    url = str(tmp_path / "blobs") if request.param == "directory" else f"memory://{tmp_path.name}"
    if request.param == "url":
        import fsspec

        fsspec.filesystem("memory").makedirs(f"/{tmp_path.name}")
    return BlobStore(Settings(_env_file=None, data_dir=tmp_path, blob_url=url))


def test_what_is_put_is_there_until_it_is_deleted(blobs: BlobStore, png: bytes) -> None:
    blobs.put("att_1", png)
    blobs.put("att_2", b"another")
    assert blobs.get("att_1") == png
    assert sorted(blobs.settled_ids(timedelta(seconds=-1))) == ["att_1", "att_2"]
    assert blobs.settled_ids(timedelta(hours=1)) == []
    blobs.delete("att_1")
    blobs.delete("att_1")
    with pytest.raises(StorageError, match="att_1 is no longer"):
        blobs.get("att_1")
    assert blobs.get("att_2") == b"another"


def test_names_cannot_leave_the_directory(blobs: BlobStore) -> None:
    for name in ("../att_1", ".hidden", "a/b"):
        with pytest.raises(ValueError, match="isn't a job id"):
            blobs.get(name)


def test_only_the_owner_may_read_the_images(settings: Settings, png: bytes) -> None:
    blobs = BlobStore(settings)
    blobs.put("att_1", png)
    directory = settings.data_dir / "blobs"
    assert oct(directory.stat().st_mode & 0o777) == "0o700"
    assert oct((directory / "att_1.png").stat().st_mode & 0o777) == "0o600"


def test_a_writer_killed_on_the_way_leaves_the_old_file_or_the_new(settings: Settings) -> None:
    script = (
        "import sys\n"
        "from jobs.blobs import BlobStore\n"
        "from jobs.settings import get_settings\n"
        "blobs = BlobStore(get_settings())\n"
        "print('ready', flush=True)\n"
        "while True:\n"
        "    blobs.put('att_1', b'a' * 5_000_000)\n"
        "    blobs.put('att_1', b'b' * 5_000_000)\n"
    )
    environment = {**os.environ, **settings.to_environment(), "PYTHONPATH": str(ROOT)}
    blobs = BlobStore(settings)
    for _ in range(3):
        writer = subprocess.Popen([sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE)
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"ready\n"
        path = settings.data_dir / "blobs" / "att_1.png"
        while not path.exists():
            time.sleep(0.01)
        for _ in range(20):
            assert blobs.get("att_1") in (b"a" * 5_000_000, b"b" * 5_000_000)
        writer.kill()
        writer.wait()
        writer.stdout.close()
    assert blobs.get("att_1") in (b"a" * 5_000_000, b"b" * 5_000_000)
    blobs.settled_ids(timedelta(seconds=-1))
    assert [entry.name for entry in (settings.data_dir / "blobs").iterdir()] == ["att_1.png"]


def test_urls_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="DAS_BLOB_URL 'gopher://host'"):
        BlobStore(Settings(_env_file=None, data_dir=tmp_path, blob_url="gopher://host"))
