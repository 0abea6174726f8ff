"""The schema's way forward, and what a connection promises."""

import os
import socket
import subprocess
import sys
from multiprocessing import get_context
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import select

from das.errors import SettingsError
from jobs.database import Database, upgrade
from jobs.errors import StorageError
from jobs.models import Base, JobEvent, utc_now
from jobs.settings import Settings
from tests import ports
from tests.postgres import PostgresServer, running


def test_the_migrations_make_what_the_models_say(settings: Settings) -> None:
    upgrade(settings)
    database = Database(settings)
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []
    database.close()


def test_two_processes_upgrade_at_once(settings: Settings) -> None:
    with get_context("spawn").Pool(2) as pool:
        pool.map(upgrade, [settings] * 6, chunksize=1)
    database = Database(settings)
    with database.read() as session:
        versions = session.connection().exec_driver_sql("SELECT version_num FROM alembic_version").all()
    database.close()
    assert versions == [("0022",)]


@pytest.mark.sqlite
def test_connections_to_sqlite(settings: Settings) -> None:
    upgrade(settings)
    database = Database(settings)
    with database.read() as session:
        connection = session.connection()
        found = {
            pragma: connection.exec_driver_sql(f"PRAGMA {pragma}").scalar()
            for pragma in ("journal_mode", "synchronous", "foreign_keys", "secure_delete", "busy_timeout")
        }
    database.close()
    assert found == {
        "journal_mode": "wal",
        "synchronous": 1,
        "foreign_keys": 1,
        "secure_delete": 1,
        "busy_timeout": 10_000,
    }


@pytest.mark.sqlite
def test_a_writer_waits_its_turn_and_then_says_who_is_in_the_way(settings: Settings) -> None:
    upgrade(settings)
    hasty = settings.model_copy(update={"database_timeout_seconds": 0.1})
    one, other = Database(settings), Database(hasty)
    with one.write(), pytest.raises(StorageError, match="database is locked"), other.write():
        pytest.fail("two writers at once")
    one.close()
    other.close()


def test_a_database_that_cannot_be_opened(tmp_path: Path) -> None:
    nowhere = Settings(
        _env_file=None, data_dir=tmp_path, database_url=f"sqlite:///{tmp_path}/none/das.sqlite3"
    )
    with pytest.raises(
        StorageError, match=r"none/das.sqlite3 can't be used .unable to open database file.*reachable"
    ):
        upgrade(nowhere)


@pytest.mark.parametrize("url", ["no url", "sqlite://", "sqlite:///:memory:", "mongodb://localhost/das"])
def test_urls_that_cannot_be_used(tmp_path: Path, url: str) -> None:
    with pytest.raises(SettingsError, match="DAS_DATABASE_URL"):
        upgrade(Settings(_env_file=None, data_dir=tmp_path, database_url=url))


def test_an_unwritable_data_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(SettingsError, match=r"taken can't be written \(File exists\).*DAS_DATA_DIR"):
        upgrade(Settings(_env_file=None, data_dir=tmp_path / "taken"))


def test_the_reasons_why_postgresql_cannot_be_used(
    tmp_path: Path, postgres: PostgresServer, request: pytest.FixtureRequest
) -> None:
    """A sentence for each, without the password; the command ends with 2."""
    here = "postgresql+psycopg://tests:very-secret@127.0.0.1"
    taken = socket.socket()
    request.addfinalizer(taken.close)
    # Bound, so that nobody else takes it, and not listening: refused at once.
    taken.bind(("127.0.0.1", 0))
    for url, reason in {
        f"{here}:{postgres.port}/postgres": "password authentication failed",
        f"{here}:{taken.getsockname()[1]}/postgres": "Connection refused",
        postgres.url("nowhere"): 'database "nowhere" does not exist',
        "postgresql+nodriver://tests:very-secret@127.0.0.1/das": "DAS_DATABASE_URL can't be used",
        "postgresql+asyncpg://tests:very-secret@127.0.0.1/das": "DAS_DATABASE_URL can't be used",
        "no url:very-secret": "DAS_DATABASE_URL can't be used",
    }.items():
        environment = {**os.environ, "DAS_DATABASE_URL": url, "DAS_DATA_DIR": str(tmp_path)}
        told = subprocess.run(
            [str(Path(sys.executable).with_name("das")), "db", "upgrade"],
            env=environment,
            capture_output=True,
            text=True,
        )
        assert told.returncode == 2, (url, told.stderr)
        assert reason in " ".join(told.stderr.split()), told.stderr
        assert "very-secret" not in told.stdout + told.stderr
        assert "Traceback" not in told.stderr


@pytest.mark.sqlite
def test_a_damaged_database_is_named_with_what_to_do(settings: Settings) -> None:
    upgrade(settings)
    database = Database(settings)
    path = settings.data_dir / "das.sqlite3"
    with database.write() as session:
        session.add_all(JobEvent(job_id=f"att_{n}", at=utc_now(), kind="x" * 20, data={}) for n in range(500))
    database.close()
    whole = path.read_bytes()
    # While it runs: pages in the middle are gone, the header is there.
    path.write_bytes(whole[:8192] + b"\xff" * (len(whole) - 8192))
    with (
        pytest.raises(StorageError, match=r"das\.sqlite3 is damaged.*restore it from a backup"),
        database.read() as s,
    ):
        s.scalars(select(JobEvent)).all()
    database.close()
    # And at a start, where it isn't a database at all.
    path.write_bytes(b"this is not a database" * 500)
    with pytest.raises(StorageError, match=r"das\.sqlite3 is damaged.*restore it from a backup"):
        upgrade(settings)


@pytest.mark.usefixtures("postgres")
def test_a_server_whose_port_another_took_meanwhile_has_another(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        found = iter((taken.getsockname()[1], ports.free_port()))
        monkeypatch.setattr(ports, "free_port", lambda: next(found))
        with running() as server:
            assert server.port != taken.getsockname()[1]
            with server.database() as url:
                assert url
