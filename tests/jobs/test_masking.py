"""No password in anything that is shown, whatever setting it came with."""

import io
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from das.errors import SettingsError
from jobs.blobs import BlobStore
from jobs.database import open_engine, upgrade
from jobs.errors import StorageError
from jobs.logs import configure_logging
from jobs.masking import masked
from jobs.settings import Settings

SECRET = "hunter2-of-the-test"
DAS = Path(sys.executable).with_name("das")
URLS = (
    f"postgresql+psycopg://das:{SECRET}@127.0.0.1:1/das",
    f"postgresql://127.0.0.1:1/das?user=das&password={SECRET}",
    f"redis://:{SECRET}@h:6379/0",
    f"s3://KEY:{SECRET}@bucket/das",
    f"https://{SECRET}@hooks.example.org/x",
    f"https://h/x?X-Amz-Signature={SECRET}&y=1",
    f"https://h/x?api_key={SECRET}",
    f"postgresql://das:un/quoted@{SECRET}@h/das",
)


def test_a_links_token() -> None:
    token = f"dass_{'aB-_' * 10}xyz"
    assert masked(f"GET http://h/s/{token}/report.json") == "GET http://h/s/dass_***/report.json"


@pytest.mark.parametrize("url", URLS)
def test_credentials_of_every_kind_of_url(url: str) -> None:
    shown = masked(f"see '{url}', and mail to somebody@example.org")
    assert SECRET not in shown
    assert "***" in shown
    assert shown.endswith("', and mail to somebody@example.org")
    assert masked(shown) == shown


@pytest.mark.parametrize(
    "text",
    [
        "sqlite:////var/das.sqlite3",
        "s3://bucket/das",
        "/a/directory@home",
        "http://127.0.0.1:8000/v1/attributions?state=queued",
        "Study no. 3: the key = C major",
    ],
)
def test_what_holds_none_stays_as_it_is(text: str) -> None:
    assert masked(text) == text


@pytest.mark.parametrize("form", [[], ["--json"]], ids=["people", "machines"])
def test_the_listing_of_settings(tmp_path: Path, form: list[str]) -> None:
    environment = {
        **os.environ,
        "COLUMNS": "500",
        "DAS_DATA_DIR": str(tmp_path),
        "DAS_DATABASE_URL": URLS[0],
        "DAS_REDIS_URL": URLS[2],
        "DAS_BLOB_URL": URLS[3],
    }
    done = subprocess.run([DAS, "config", *form], env=environment, capture_output=True, text=True, check=True)
    assert SECRET not in done.stdout + done.stderr
    assert "postgresql+psycopg://***@127.0.0.1:1/das" in done.stdout
    if form:
        assert json.loads(done.stdout)["DAS_BLOB_URL"]["value"] == "s3://***@bucket/das"


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_log_lines_and_their_tracebacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log_format: str
) -> None:
    root = logging.getLogger()
    before, level = root.handlers, root.level
    written = io.StringIO()
    monkeypatch.setattr(sys, "stderr", written)
    try:
        configure_logging(Settings(_env_file=None, data_dir=tmp_path, log_format=log_format))  # type: ignore[arg-type]
        for url in URLS:
            try:
                raise ValueError(f"no answer from {url}")
            except ValueError:
                logging.getLogger("test").exception("tried %s", url, extra={"endpoint": url})
    finally:
        root.handlers, root.level = before, level
    assert written.getvalue().count("no answer from") >= len(URLS)
    assert SECRET not in written.getvalue()


def test_errors_and_tracebacks(tmp_path: Path) -> None:
    unreachable = Settings(
        _env_file=None, data_dir=tmp_path, database_url=URLS[0], blob_url=f"nowhere://u:{SECRET}@h/das"
    )
    assert SECRET not in repr(unreachable)
    with pytest.raises(SettingsError, match=r"nowhere://\*\*\*@h") as refused:
        BlobStore(unreachable)
    assert SECRET not in str(refused.value)
    with pytest.raises(StorageError, match=r"postgresql\+psycopg://\*\*\*@127") as failed:
        upgrade(unreachable)
    assert SECRET not in str(failed.value)
    malformed = Settings(_env_file=None, data_dir=tmp_path, database_url=f"das:{SECRET}@h")
    with pytest.raises(SettingsError) as refused:
        open_engine(malformed)
    assert SECRET not in str(refused.value)
