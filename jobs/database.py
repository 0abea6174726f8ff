"""The database: SQLite by default, PostgreSQL by URL, and the schema's way forward.

SQLite runs in WAL mode, so readers never wait for a writer, with `synchronous=NORMAL`: a commit is one append
to the log without an fsync. Killing any process loses nothing; only a power cut can lose the last moments,
and it never damages the file. An upload costs four commits on its way to the answer, which with `FULL` would
be four fsyncs (up to tens of milliseconds each on a plain disk) of the 50 ms that the service may add.

Writers say `BEGIN IMMEDIATE`. A transaction that reads first and writes later would otherwise fail with
"database is locked" as soon as another writer came in between, and no timeout helps there.
"""

import re
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, DatabaseError, OperationalError
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool, QueuePool

from das.errors import SettingsError
from jobs.errors import StorageError
from jobs.masking import masked
from jobs.reserve import NO_ROOM, Reserve, lacks_room
from jobs.settings import Settings

if TYPE_CHECKING:
    from alembic.config import Config

Erased = TypeVar("Erased")

MIGRATIONS = Path(__file__).parent / "migrations"

# The API serves requests from 40 threads; each may hold a connection for the milliseconds of its query.
POOL_SIZE = 8
POOL_OVERFLOW = 40

# How long an erasure waits for those who read from the log, before the sweeper has to do it.
FORGET_PATIENCE_S = 0.5

# What SQLite says of a file that isn't whole any more.
DAMAGED = ("malformed", "not a database", "unsupported file format")

# For single statements that read. Beginning a transaction and ending it are two more, and at each of those
# the interpreter is let go, and had again when another thread is done with it.
WITHOUT_TRANSACTION = {"das_begin": None}

# Any constant: names the lock that keeps two processes from migrating a PostgreSQL database at once.
MIGRATION_LOCK = 0xDA5_1DB


class Database:
    """Connections to the database of `settings`.

    Not to be carried over a fork: each process opens its own. `pooled=False` keeps no connection open between
    uses, for a process that forks.
    """

    def __init__(self, settings: Settings, *, pooled: bool = True) -> None:
        self.engine = open_engine(settings, pooled=pooled)
        self.to_forget = False
        self._reserve = Reserve(Path(self.engine.url.database or "").parent) if self._is_a_file else None
        self._writers = self.engine.execution_options(das_begin="BEGIN IMMEDIATE")

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session for reading: of a file on one consistent state, on PostgreSQL each statement on its own.

        Raises:
            StorageError: the database can't be reached or read.
        """
        with explained(self.engine), Session(self.engine, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A session in one transaction, committed at the end of the block, undone if the block raises.

        Raises:
            StorageError: the database can't be reached or written, for instance because the disk is full.
        """
        with (
            explained(self.engine),
            Session(self._writers, expire_on_commit=False) as session,
            session.begin(),
        ):
            # Begins here and not at the first statement of the block, so that waiting for others is all at the start.
            session.connection()
            yield session

    @property
    def _is_a_file(self) -> bool:
        return self.engine.dialect.name == "sqlite"

    def keep_reserve(self) -> None:
        """Hold room for erasing on the disk of an SQLite database; see `jobs.reserve`."""
        if self._reserve is not None:
            self._reserve.keep()

    def give_up_reserve(self, error: StorageError) -> bool:
        """Let that room go, for who has to write and couldn't for want of it; False if there is none to be had."""
        return self._reserve is not None and lacks_room(error) and self._reserve.give_up()

    def with_reserve(self, erase: Callable[[], Erased]) -> Erased:
        """What `erase` returns, tried again with that room where the first time there was none."""
        try:
            return erase()
        except StorageError as error:
            if not self.give_up_reserve(error):
                raise
            return erase()

    def forget(self) -> bool:
        """See that what was erased no longer stands in SQLite's write-ahead log either, by emptying that.

        False, at the latest after `FORGET_PATIENCE_S`, while somebody reads from the log or writes to it: then
        `to_forget` is set, and it has to be tried again.
        """
        self.to_forget = False
        if self._is_a_file:
            try:
                # Of its own: one of the pool would wait for as long as a writer may.
                log = sqlite3.connect(str(self.engine.url.database), timeout=FORGET_PATIENCE_S)
                with closing(log):
                    self.to_forget = bool(log.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0])
            except sqlite3.DatabaseError:
                self.to_forget = True
        return not self.to_forget

    def forget_again(self) -> None:
        """Try again what `forget` couldn't do."""
        if self.to_forget:
            self.forget()

    def size(self) -> int:
        """Bytes of the database: of its files, or as PostgreSQL says.

        Raises:
            StorageError: the database can't be reached.
        """
        if not self._is_a_file:
            with self.read() as session:
                return int(session.scalar(text("SELECT pg_database_size(current_database())")) or 0)
        path = Path(self.engine.url.database or "")
        size = 0
        for suffix in ("", "-wal", "-shm"):
            # The log's files come and go.
            with suppress(FileNotFoundError):
                size += path.with_name(path.name + suffix).stat().st_size
        return size

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()


def open_engine(settings: Settings, *, pooled: bool = True, patience_s: float | None = None) -> Engine:
    """The SQLAlchemy engine for `settings`; for SQLite with WAL, foreign keys and explicit `BEGIN`.

    Args:
        patience_s: how long a file is waited for that somebody else holds; None: as the setting says.

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
                "timeout": settings.database_timeout_seconds if patience_s is None else patience_s,
            }
        elif pooled:
            options["pool_pre_ping"] = True
        engine = create_engine(url, **options)
    except (ArgumentError, ImportError) as error:
        raise SettingsError(f"DAS_DATABASE_URL can't be used: {masked(str(error))}") from error
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
    begin = connection.get_execution_options().get("das_begin", "BEGIN")
    if begin is not None:
        connection.exec_driver_sql(begin)


@contextmanager
def explained(engine: Engine) -> Iterator[None]:
    """Raise `StorageError` where the database fails in the block."""
    try:
        yield
    except DatabaseError as error:
        # Its other kinds (integrity, programming, …) are faults of ours and not of the storage.
        if type(error) not in (DatabaseError, OperationalError):
            raise
        raise StorageError(_sentence(engine, masked(str(error.orig)))) from error


def _sentence(engine: Engine, reason: str) -> str:
    """Why the database can't be used and what to do."""
    where = masked(engine.url.render_as_string())
    if any(sign in reason for sign in DAMAGED):
        return (
            f"the database {where} is damaged ({reason}): end the service, keep a copy of the file, and restore it"
            " from a backup, or move it and its -wal and -shm files away to begin with an empty one"
        )
    # psycopg has a line for each address that it tried.
    reason = " ".join(reason.split())
    advice = (
        "make room on its disk, and see that it may be written"
        if any(sign in reason for sign in NO_ROOM)
        else "see that it is reachable and writable"
    )
    return f"the database {where} can't be used ({reason}): {advice}"


def upgrade(settings: Settings) -> None:
    """Bring the database to the newest schema; does nothing where it is there already.

    Safe when several processes do it at once: all but the first wait, then find nothing to do.

    Raises:
        SettingsError: the data directory or the URL can't be used, or the database is of a newer version.
        StorageError: the database can't be reached or written.
    """
    _migrate(settings, "upgrade", "head")


def downgrade(settings: Settings, revision: str) -> None:
    """Bring the database back to an earlier schema, and lose what only the later one holds.

    Raises:
        SettingsError: as `upgrade`; or there is no such revision before the database's own.
        StorageError: the database can't be reached or written.
    """
    if not re.fullmatch(r"[0-9]{4}", revision):
        raise SettingsError(
            f"{revision!r} is no revision of the database: those are four digits, such as 0008"
        )
    _migrate(settings, "downgrade", revision)


def _migrate(settings: Settings, way: Literal["upgrade", "downgrade"], revision: str) -> None:
    # Ten megabytes, which only who starts the service needs and no process that goes on running.
    from alembic import command
    from alembic.util import CommandError

    migrate = command.upgrade if way == "upgrade" else command.downgrade
    if settings.database_url is None:
        settings.prepare_data_dir()
    engine = open_engine(settings, pooled=False)
    try:
        with explained(engine):
            if engine.dialect.name == "sqlite":
                _switch_to_wal(engine, settings.database_timeout_seconds)
            writers = engine.execution_options(das_begin="BEGIN IMMEDIATE")
            with writers.begin() as connection:
                if engine.dialect.name == "postgresql":
                    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
                migrate(_alembic_config(connection), revision)
    except CommandError as error:
        # Of its reasons only these two are left: one of the two revisions isn't known, or lies ahead.
        raise SettingsError(
            f"the database can't be brought to {revision} ({error}): it may be of a newer version of this service,"
            " which brings it back with `das db downgrade`; or restore a backup"
        ) from error
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
        except sqlite3.DatabaseError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise OperationalError("PRAGMA journal_mode=WAL", None, error) from error
            time.sleep(0.02)


def _alembic_config(connection: Connection) -> "Config":
    from alembic.config import Config

    config = Config()
    # Alembic's options go through configparser, in which a bare percent sign starts an interpolation.
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config
