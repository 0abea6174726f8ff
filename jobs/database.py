"""The database: SQLite by default, PostgreSQL by URL, and the schema's way forward.

SQLite runs in WAL mode, so readers never wait for a writer, with `synchronous=NORMAL`: a commit is one append
to the log without an fsync. Killing any process loses nothing; only a power cut can lose the last moments,
and it never damages the file. An upload costs four commits on its way to the answer, which with `FULL` would
be four fsyncs (up to tens of milliseconds each on a plain disk) of the 50 ms that the service may add.

Writers say `BEGIN IMMEDIATE`. A transaction that reads first and writes later would otherwise fail with
"database is locked" as soon as another writer came in between, and no timeout helps there.
"""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, OperationalError
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool, QueuePool

from das.errors import SettingsError
from jobs.errors import StorageError
from jobs.settings import Settings

MIGRATIONS = Path(__file__).parent / "migrations"

# The API serves requests from 40 threads; each may hold a connection for the milliseconds of its query.
POOL_SIZE = 8
POOL_OVERFLOW = 40

# Any constant: names the lock that keeps two processes from migrating a PostgreSQL database at once.
MIGRATION_LOCK = 0xDA5_1DB


class Database:
    """Connections to the database of `settings`.

    Not to be carried over a fork: each process opens its own. `pooled=False` keeps no connection open between
    uses, for a process that forks.
    """

    def __init__(self, settings: Settings, *, pooled: bool = True) -> None:
        self.engine = open_engine(settings, pooled=pooled)
        self._writers = self.engine.execution_options(das_begin="BEGIN IMMEDIATE")

    @property
    def is_sqlite(self) -> bool:
        return self.engine.dialect.name == "sqlite"

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session on one consistent state of the database.

        Raises:
            StorageError: the database can't be reached or read.
        """
        with _explained(self.engine), Session(self.engine, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A session in one transaction, committed at the end of the block, undone if the block raises.

        Raises:
            StorageError: the database can't be reached or written, for instance because the disk is full.
        """
        with (
            _explained(self.engine),
            Session(self._writers, expire_on_commit=False) as session,
            session.begin(),
        ):
            # Begins here and not at the first statement of the block, so that waiting for others is all at the start.
            session.connection()
            yield session

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()


def open_engine(settings: Settings, *, pooled: bool = True) -> Engine:
    """The SQLAlchemy engine for `settings`; for SQLite with WAL, foreign keys and explicit `BEGIN`.

    Raises:
        SettingsError: the URL can't be used.
    """
    try:
        url = make_url(settings.resolved_database_url)
        options: dict[str, Any] = {"poolclass": NullPool}
        if pooled:
            options = {"poolclass": QueuePool, "pool_size": POOL_SIZE, "max_overflow": POOL_OVERFLOW}
        if url.get_backend_name() == "sqlite":
            if url.database in (None, "", ":memory:"):
                raise SettingsError(
                    "DAS_DATABASE_URL names an SQLite database in memory; it has to be a file"
                )
            options["connect_args"] = {
                "check_same_thread": False,
                "timeout": settings.database_timeout_seconds,
            }
        elif pooled:
            options["pool_pre_ping"] = True
        engine = create_engine(url, **options)
    except (ArgumentError, ImportError) as error:
        raise SettingsError(f"DAS_DATABASE_URL can't be used: {error}") from error
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    # Transactions are begun by `_begin_sqlite`; the driver's own implicit BEGIN would come too late.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.execute("PRAGMA foreign_keys=ON")
    # What is erased is overwritten with zeros and not merely unlinked from its page.
    cursor.execute("PRAGMA secure_delete=ON")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options().get("das_begin", "BEGIN"))


@contextmanager
def _explained(engine: Engine) -> Iterator[None]:
    try:
        yield
    except OperationalError as error:
        where = engine.url.render_as_string(hide_password=True)
        reason = str(error.orig)
        advice = "make room on its disk" if "full" in reason else "see that it is reachable and writable"
        raise StorageError(f"the database {where} can't be used ({reason}): {advice}") from error


def upgrade(settings: Settings) -> None:
    """Bring the database to the newest schema; does nothing where it is there already.

    Safe when several processes do it at once: all but the first wait, then find nothing to do.

    Raises:
        SettingsError: the data directory or the URL can't be used.
        StorageError: the database can't be reached or written.
    """
    if settings.database_url is None:
        settings.prepare_data_dir()
    engine = open_engine(settings, pooled=False)
    try:
        with _explained(engine):
            if engine.dialect.name == "sqlite":
                _switch_to_wal(engine, settings.database_timeout_seconds)
            writers = engine.execution_options(das_begin="BEGIN IMMEDIATE")
            with writers.begin() as connection:
                if engine.dialect.name == "postgresql":
                    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
                command.upgrade(_alembic_config(connection), "head")
    finally:
        engine.dispose()


def _switch_to_wal(engine: Engine, timeout: float) -> None:
    # The mode stays with the file. SQLite doesn't wait for others while it changes it, so we do.
    deadline = time.monotonic() + timeout
    while True:
        try:
            # Past SQLAlchemy, which would begin a transaction; the mode can't be changed within one.
            connection = engine.raw_connection()
            try:
                connection.cursor().execute("PRAGMA journal_mode=WAL")
            finally:
                connection.close()
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise OperationalError("PRAGMA journal_mode=WAL", None, error) from error
            time.sleep(0.02)


def _alembic_config(connection: Connection) -> Config:
    config = Config()
    # Alembic's options go through configparser, in which a bare percent sign starts an interpolation.
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config
