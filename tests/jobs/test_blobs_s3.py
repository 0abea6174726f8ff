"""Pictures on S3: a real server on loopback, spoken to by the real client."""

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import fsspec
import pytest
from moto.server import ThreadedMotoServer

from das.errors import SettingsError
from jobs.blobs import BlobStore
from jobs.database import upgrade
from jobs.errors import StorageError
from jobs.models import JobState, NewJob
from jobs.settings import Settings
from jobs.store import JobStore
from tests.s3 import S3, SECRET

AT_ONCE = timedelta(seconds=-5)


def on_s3(tmp_path: Path, url: str = "s3://bucket/das") -> Settings:
    return Settings(_env_file=None, data_dir=tmp_path / "data", blob_url=url)


def keys(bucket: str) -> list[str]:
    filesystem = fsspec.filesystem("s3")
    filesystem.invalidate_cache()
    return sorted(filesystem.find(bucket))


@pytest.mark.parametrize("url", ["s3://bucket/das", "s3://bucket", "s3://bucket/a/b/"])
def test_a_picture_is_kept_read_listed_and_removed(tmp_path: Path, bucket: str, url: str) -> None:
    blobs = BlobStore(on_s3(tmp_path, url))
    blobs.check()
    assert blobs.settled_ids(AT_ONCE) == []
    blobs.put("att_1", b"one")
    blobs.put("att_2", b"two")
    blobs.put("att_1", b"one again")
    assert blobs.get("att_1") == b"one again"
    assert sorted(blobs.settled_ids(AT_ONCE)) == ["att_1", "att_2"]
    assert blobs.settled_ids(timedelta(minutes=1)) == []
    assert keys(bucket) == [f"{url.removeprefix('s3://').rstrip('/')}/att_{n}.png" for n in (1, 2)]
    blobs.delete("att_1")
    blobs.delete("att_1")
    with pytest.raises(StorageError, match=r"the picture of att_1 is no longer in bucket"):
        blobs.get("att_1")
    assert blobs.settled_ids(AT_ONCE) == ["att_2"]


def test_a_question_is_asked_answered_and_erased(tmp_path: Path, bucket: str) -> None:
    settings = on_s3(tmp_path)
    upgrade(settings)
    store = JobStore(settings)
    new = NewJob(index_id="i@1", method="das", candidates="all", top_k=3, input={})
    job = store.create(new, b"a picture")
    left_over = store.create(new, b"another picture")
    (claimed, _) = store.leases.claim("worker", 2, ["i@1"])
    assert store.image(claimed.id) == b"a picture"
    assert store.leases.finish(claimed.token, {"works": []}, {})
    store.erase(job.id)
    assert keys(bucket) == [f"bucket/das/{left_over.id}.png"]
    erased = store.get(job.id)
    assert erased is not None
    assert erased.state == JobState.ERASED
    with pytest.raises(StorageError, match="no longer"):
        store.image(job.id)
    store.close()


def test_a_missing_bucket(tmp_path: Path, s3: S3) -> None:
    blobs = BlobStore(on_s3(tmp_path, "s3://nowhere/das"))
    with pytest.raises(
        SettingsError, match=r"DAS_BLOB_URL can't be used: .*nowhere/das.*bucket does not exist"
    ):
        blobs.check()
    for use in (
        lambda: blobs.put("att_1", b"x"),
        lambda: blobs.delete("att_1"),
        lambda: blobs.settled_ids(AT_ONCE),
    ):
        with pytest.raises(StorageError, match=r"bucket does not exist.*has this bucket"):
            use()


def test_a_key_that_it_doesnt_know(tmp_path: Path, s3: S3, bucket: str) -> None:
    blobs = BlobStore(on_s3(tmp_path))
    blobs.check()
    s3.tell("reset-auth", "0")
    with pytest.raises(SettingsError, match="lets this key in") as refused:
        blobs.check()
    assert SECRET not in str(refused.value)
    for use in (lambda: blobs.put("att_1", b"x"), lambda: blobs.get("att_1"), lambda: blobs.delete("att_1")):
        with pytest.raises(StorageError, match="lets this key in") as failed:
            use()
        assert SECRET not in str(failed.value)


def test_a_server_that_is_gone_and_comes_back(tmp_path: Path, s3: S3, bucket: str) -> None:
    blobs = BlobStore(on_s3(tmp_path))
    blobs.put("att_1", b"one")
    host, port = s3.server.get_host_and_port()
    s3.server.stop()
    for use in (lambda: blobs.put("att_2", b"x"), lambda: blobs.get("att_1"), lambda: blobs.delete("att_1")):
        with pytest.raises(StorageError, match=r"Could not connect.*can be reached"):
            use()
    s3.server = ThreadedMotoServer(host, port, verbose=False)
    s3.server.start()
    assert blobs.get("att_1") == b"one"


def test_a_key_in_the_url_is_refused_and_not_shown(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"s3://\*\*\*@bucket.*AWS_SECRET_ACCESS_KEY") as refused:
        BlobStore(on_s3(tmp_path, f"s3://KEY:{SECRET}@bucket/das"))
    assert SECRET not in str(refused.value)


def test_the_service_says_so_at_its_start(tmp_path: Path, s3: S3, tiny_index: Path) -> None:
    own = {
        "DAS_DATA_DIR": str(tmp_path),
        "DAS_INDEX_DIR": str(tiny_index),
        "DAS_BLOB_URL": "s3://nowhere/das",
    }
    refused = subprocess.run(
        [Path(sys.executable).with_name("das"), "serve", "--port", "0"],
        env={**os.environ, **own},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert refused.returncode == 2, refused.stderr
    assert "DAS_BLOB_URL can't be used" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert SECRET not in refused.stderr


def test_without_the_extra_it_says_what_to_install(tmp_path: Path) -> None:
    script = (
        "import sys; sys.modules['s3fs'] = None\n"
        "from jobs.blobs import BlobStore; from jobs.settings import Settings\n"
        f"BlobStore(Settings(_env_file=None, data_dir={str(tmp_path)!r}, blob_url='s3://bucket/das'))"
    )
    refused = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    last = refused.stderr.splitlines()[-1]
    assert last.startswith("das.errors.SettingsError: DAS_BLOB_URL 's3://bucket/das' can't be used")
    assert last.endswith("the extra `s3` of das-attribution brings what is missing")
