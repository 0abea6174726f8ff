"""The commands of docs/deployment.md keep and restore everything, on SQLite and PostgreSQL; an older schema, too."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import inspect

from das.errors import SettingsError
from jobs.database import Database, downgrade, upgrade
from jobs.models import JobState, NewJob
from jobs.settings import Settings
from jobs.store import JobStore
from jobs.webhooks.sealing import Seal
from tests.postgres import PostgresServer, binaries

DOCS = (Path(__file__).parents[2] / "docs" / "deployment.md").read_text()
QUESTION = {
    "index_id": "tiny@1", "method": "das-block", "candidates": "all", "top_k": 3, "input": {"sha256": "ab"},
}  # fmt: skip


def documented(word: str) -> list[str]:
    """The commands of the section about backups in whose block a word stands."""
    section = DOCS[DOCS.index("## Backups") : DOCS.index("## Upgrades")]
    (block,) = [block for block in re.findall(r"```console\n(.*?)```", section, re.DOTALL) if word in block]
    return [line.removeprefix("$ ") for line in block.splitlines()]


def run(commands: list[str], folder: Path, **variables: str) -> None:
    programs = os.pathsep.join([str(Path(sys.executable).parent), str(binaries() or ""), os.environ["PATH"]])
    for command in commands:
        subprocess.run(
            command, shell=True, check=True, cwd=folder, env={**os.environ, "PATH": programs, **variables}
        )


def fill(settings: Settings) -> tuple[str, str]:
    """One question that is answered and one that waits; their ids."""
    upgrade(settings)
    store = JobStore(settings)
    answered = store.create(NewJob(**QUESTION), b"the first picture").id  # type: ignore[arg-type]
    (claimed,) = store.leases.claim("a-worker", 1, ["tiny@1"])
    assert store.leases.finish(claimed.token, {"works": [{"rank": 1, "work_id": "w_1"}]}, {})
    waiting = store.create(NewJob(**QUESTION), b"the second picture").id  # type: ignore[arg-type]
    store.close()
    return answered, waiting


def check(settings: Settings, answered: str, waiting: str) -> None:
    """What was restored answers: what was asked is there, and what waited is computed."""
    upgrade(settings)
    store = JobStore(settings)
    try:
        job = store.get(answered)
        assert job is not None
        assert job.result == {"works": [{"rank": 1, "work_id": "w_1"}]}
        assert store.image(answered) == b"the first picture"
        (claimed,) = store.leases.claim("another", 8, ["tiny@1"])
        assert claimed.id == waiting
        assert store.image(waiting) == b"the second picture"
        assert store.leases.finish(claimed.token, {"works": []}, {})
        ended = store.get(waiting)
        assert ended is not None
        assert ended.state == JobState.SUCCEEDED
        # New events get numbers of their own: the sequence was restored as well.
        assert [event.kind for event in store.events(waiting)] == ["created", "started", "succeeded"]
    finally:
        store.close()


def test_sqlite_with_pictures_and_keys(tmp_path: Path) -> None:
    answered, waiting = fill(Settings(_env_file=None, data_dir=tmp_path / "var"))
    (tmp_path / "var" / "session.key").write_bytes(b"k" * 32)
    run(documented("sqlite3.connect"), tmp_path)
    shutil.rmtree(tmp_path / "var")
    assert "`cp -r backup var`" in DOCS
    run(["cp -r backup var"], tmp_path)
    check(Settings(_env_file=None, data_dir=tmp_path / "var"), answered, waiting)
    assert (tmp_path / "var" / "session.key").read_bytes() == b"k" * 32


def test_postgresql_with_pictures_and_keys(tmp_path: Path, postgres: PostgresServer) -> None:
    """The secrets of webhook endpoints are opened after restoring, too: what opens them lies in a file."""
    with postgres.database() as first, postgres.database() as second:
        before = Settings(_env_file=None, data_dir=tmp_path / "var", database_url=first)
        answered, waiting = fill(before)
        (tmp_path / "var" / "session.key").write_bytes(b"k" * 32)
        sealed = Seal(before).close("whsec_c2VjcmV0")
        run(documented("pg_dump"), tmp_path, DATABASE=first.replace("+psycopg", ""))
        (tmp_path / "var").rename(tmp_path / "away")
        run(documented("pg_restore"), tmp_path, DATABASE=second.replace("+psycopg", ""))
        after = Settings(_env_file=None, data_dir=tmp_path / "var", database_url=second)
        check(after, answered, waiting)
        assert (tmp_path / "var" / "session.key").read_bytes() == b"k" * 32
        assert Seal(after).open(sealed) == "whsec_c2VjcmV0"


def test_going_back_keeps_questions_and_an_older_version_says_what_is_newer(tmp_path: Path) -> None:
    settings = Settings(_env_file=None, data_dir=tmp_path / "var")
    answered, waiting = fill(settings)
    downgrade(settings, "0007")
    database = Database(settings)
    tables = set(inspect(database.engine).get_table_names())
    assert "jobs" in tables
    assert "decisions" not in tables
    with database.write() as session:
        session.connection().exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(SettingsError, match=r"can't be brought to head .*9999.*das db downgrade"):
        upgrade(settings)
    with database.write() as session:
        session.connection().exec_driver_sql("UPDATE alembic_version SET version_num = '0007'")
    database.close()
    check(settings, answered, waiting)
    for revision in ("head", "0099", "-1", "0007; DROP TABLE jobs"):
        with pytest.raises(SettingsError):
            downgrade(settings, revision)
