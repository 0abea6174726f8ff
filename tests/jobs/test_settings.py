"""Settings: every one documented, errors in words, handed on whole to child processes."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from das.errors import SettingsError
from jobs.settings import Settings, get_settings, writable_directory

ROOT = Path(__file__).parents[2]


def test_every_setting_has_a_description_that_is_a_sentence() -> None:
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert field.description[0].isupper(), name
        assert field.description.endswith("."), name


def test_defaults_lie_in_the_data_directory(tmp_path: Path) -> None:
    settings = Settings(_env_file=None, data_dir=tmp_path)
    assert settings.resolved_database_url == f"sqlite:///{tmp_path}/das.sqlite3"
    assert settings.resolved_blob_url == f"{tmp_path}/blobs"


def test_an_empty_variable_counts_as_not_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("MODEL_DIR", "DATA_DIR", "PORT", "API_KEYS", "QUOTA", "REDIS_URL"):
        monkeypatch.setenv(f"DAS_{name}", "")
    # Its file is read, as it is where the variable isn't there.
    (tmp_path / "url").write_text("redis://broker:6379/3\n")
    monkeypatch.setenv("DAS_REDIS_URL_FILE", str(tmp_path / "url"))
    settings = Settings()
    assert settings.model_dir is None
    assert settings.data_dir == tmp_path / "var"
    assert (settings.port, settings.api_keys, settings.quota) == (8000, "auto", None)
    assert settings.redis_url is not None
    assert settings.redis_url.get_secret_value() == "redis://broker:6379/3"


def test_a_wrong_value_is_named_with_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAS_PORT", "many")
    get_settings.cache_clear()
    with pytest.raises(SettingsError, match="DAS_PORT: Input should be a valid integer"):
        get_settings()
    get_settings.cache_clear()


def test_a_wrong_value_is_told_in_the_settings_own_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAS_PUBLIC_URL", "https://das.example.org/attribution")
    get_settings.cache_clear()
    with pytest.raises(SettingsError, match=r"DAS_PUBLIC_URL: has to be http:// or https://.*and no path"):
        get_settings()
    monkeypatch.delenv("DAS_PUBLIC_URL")
    monkeypatch.setenv("DAS_SOFT_TIME_LIMIT_SECONDS", "700")
    get_settings.cache_clear()
    with pytest.raises(SettingsError, match=r"can't be used: [a-z_]*hard_time_limit_seconds must be longer"):
        get_settings()
    get_settings.cache_clear()


def test_the_hard_limit_must_come_after_the_soft_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAS_SOFT_TIME_LIMIT_SECONDS", "700")
    get_settings.cache_clear()
    with pytest.raises(SettingsError, match="hard_time_limit_seconds must be longer"):
        get_settings()
    get_settings.cache_clear()


def test_another_process_gets_the_same_settings(tmp_path: Path) -> None:
    settings = Settings(
        _env_file=None, data_dir=tmp_path / "d", redis_url="redis://:secret@localhost/1", batch_size=3, port=0
    )
    script = "from jobs.settings import get_settings; print(get_settings().model_dump())"
    shown = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, **settings.to_environment(), "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert shown.strip() == str(settings.model_dump())
    assert settings.to_environment()["DAS_REDIS_URL"] == "redis://:secret@localhost/1"
    assert "secret@" not in shown


def test_indexes_are_one_directory_or_several(tmp_path: Path) -> None:
    settings = Settings(_env_file=None, index_dir=tmp_path)
    with pytest.raises(SettingsError, match=re.escape(str(tmp_path))):
        settings.index_directories()
    for name in ("b", "a", "unfinished"):
        (tmp_path / name).mkdir()
    for name in ("b", "a"):
        (tmp_path / name / "manifest.json").write_text("{}")
    assert settings.index_directories() == [tmp_path / "a", tmp_path / "b"]
    (tmp_path / "manifest.json").write_text("{}")
    assert settings.index_directories() == [tmp_path]


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(SettingsError, match=r"file/data can't be written \(Not a directory\).*DAS_DATA_DIR"):
        writable_directory(tmp_path / "file" / "data", "DAS_DATA_DIR")


# The one is a part of the settings, the other reads OpenTelemetry's own variables, whose names are a standard's.
PARTS = {ROOT / "jobs" / "secret_files.py", ROOT / "jobs" / "tracing.py"}


def test_only_settings_read_the_environment() -> None:
    reads = re.compile(r"os\.(getenv|environ(\[|\.get\b))")
    # `demo` is left out: it is a tool around the service and finds a browser for its screenshot by a variable.
    for package in ("das", "jobs", "app", "worker", "index_build"):
        for path in set((ROOT / package).rglob("*.py")) - PARTS:
            for number, line in enumerate(path.read_text().splitlines(), start=1):
                # Handing the environment on to a child process isn't reading it.
                if reads.search(line) and not re.search(r"\b(environment\b|env=).*os\.environ", line):
                    pytest.fail(f"{path.relative_to(ROOT)}:{number} reads the environment: {line.strip()}")


def test_a_secret_setting_may_stand_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its line end; the variable itself goes first, and what isn't secret has no such form."""
    secret = tmp_path / "url"
    secret.write_text("postgresql+psycopg://das:pw@db/das\n")
    monkeypatch.setenv("DAS_DATABASE_URL_FILE", str(secret))
    (tmp_path / "session").write_text("s" * 40)
    monkeypatch.setenv("DAS_SESSION_SECRET_FILE", str(tmp_path / "session"))
    monkeypatch.setenv("DAS_HOST_FILE", str(secret))
    settings = Settings(_env_file=None)
    assert settings.database_url == "postgresql+psycopg://das:pw@db/das"
    assert settings.session_secret is not None
    assert settings.session_secret.get_secret_value() == "s" * 40
    assert settings.host == "127.0.0.1"
    monkeypatch.setenv("DAS_DATABASE_URL", "postgresql+psycopg://other@db/das")
    assert Settings(_env_file=None).database_url == "postgresql+psycopg://other@db/das"


@pytest.mark.parametrize("content", [None, b"", b"one\ntwo", b"\xff\xfe", b"x" * 20_000])
def test_a_secret_file_that_cannot_be_used_is_named(
    content: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "redis"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setenv("DAS_REDIS_URL_FILE", str(path))
    with pytest.raises(
        SettingsError, match=r"DAS_REDIS_URL_FILE: .*redis (can't be read|has to hold one line)"
    ):
        Settings(_env_file=None)


@pytest.mark.parametrize(
    "contact", ["works@example.org", "ops+das@studio", "https://example.org/contact?of=das#top"]
)
def test_a_contact_is_an_address(contact: str) -> None:
    assert Settings(_env_file=None, contact=contact).contact == contact


@pytest.mark.parametrize(
    "contact",
    ["", "write to us", "javascript:alert(1)", "a@b?bcc=c@d", "https://", 'https://a/"x', "https://a["],
)
def test_what_isnt_an_address_is_no_contact(contact: str) -> None:
    with pytest.raises(ValidationError, match=r"has to be an e-mail address, such as works@example\.org"):
        Settings(_env_file=None, contact=contact)
