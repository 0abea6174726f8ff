"""The blob store: whole files or none, in a directory or by URL."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import s3fs
from moto.server import ThreadedMotoServer

from das.errors import SettingsError
from jobs.blobs import BlobStore
from jobs.errors import StorageError
from jobs.settings import Settings

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """A bucket on a server that speaks S3 (moto's), reached as a user's would be: by boto's own settings."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patched.setenv(name, "testing")
        s3fs.S3FileSystem(skip_instance_cache=True).mkdir("pictures")
        yield "s3://pictures"
    server.stop()


@pytest.fixture(params=["directory", "url", "s3"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> BlobStore:
    if request.param == "s3":
        url = f"{request.getfixturevalue('bucket')}/{tmp_path.name}"
        return BlobStore(Settings(_env_file=None, data_dir=tmp_path, blob_url=url))
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


def test_a_picture_that_cannot_be_read_is_a_sentence(settings: Settings) -> None:
    blobs = BlobStore(settings)
    (settings.data_dir / "blobs" / "att_1.png").mkdir()
    with pytest.raises(StorageError, match=r"the picture of att_1 can't be read from .* \(Is a directory\)"):
        blobs.get("att_1")


def test_a_directory_that_cannot_be_made_names_the_setting(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(SettingsError, match="DAS_BLOB_URL"):
        BlobStore(Settings(_env_file=None, data_dir=tmp_path, blob_url=str(tmp_path / "taken")))


def test_urls_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="DAS_BLOB_URL 'gopher://host'"):
        BlobStore(Settings(_env_file=None, data_dir=tmp_path, blob_url="gopher://host"))


def test_a_store_without_a_picture_lists_none(blobs: BlobStore) -> None:
    assert blobs.settled_ids(timedelta(seconds=-1)) == []
    blobs.delete("att_1")
