"""The schema's way forward, and what a connection promises."""

from multiprocessing import get_context
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from das.errors import SettingsError
from jobs.database import Database, upgrade
from jobs.errors import StorageError
from jobs.models import Base
from jobs.settings import Settings


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
    assert versions == [("0002",)]


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
