"""A PostgreSQL server of the tests' own, from Debian's packages, with a fresh database for each test."""

import contextlib
import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg

PASSWORD = "only-for-tests"
READY_SECONDS = 60.0


def binaries() -> Path | None:
    """Where `postgres` and `initdb` are: on the PATH, or in the newest of Debian's directories; None if nowhere."""
    on_path = shutil.which("initdb")
    if on_path is not None:
        return Path(on_path).resolve().parent
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: int(p.parts[-3]))
    return versions[-1].parent if versions else None


@dataclass(frozen=True)
class PostgresServer:
    """A running server. `tests` may come in by the Unix socket in `folder`, others need the password."""

    folder: Path
    port: int

    def url(self, database: str) -> str:
        """SQLAlchemy's URL of a database, over the socket."""
        return f"postgresql+psycopg://tests@/{database}?host={self.folder}&port={self.port}"

    @contextlib.contextmanager
    def database(self) -> Iterator[str]:
        """The URL of an empty database that is gone afterwards."""
        name = f"das_{secrets.token_hex(6)}"
        self._run(f"CREATE DATABASE {name}")
        try:
            yield self.url(name)
        finally:
            self._run(f"DROP DATABASE {name} WITH (FORCE)")

    def _run(self, statement: str) -> None:
        where = {"host": str(self.folder), "port": self.port, "user": "tests", "dbname": "postgres"}
        with psycopg.connect(**where, autocommit=True) as connection:  # type: ignore[arg-type]
            connection.execute(statement)  # type: ignore[call-overload]


@contextlib.contextmanager
def running() -> Iterator[PostgresServer]:
    """A server for the length of the block, which flushes nothing to the disk: it has nothing to lose."""
    found = binaries()
    assert found is not None
    # Not under pytest's own directory, which only its owner may enter: the server refuses to run as root.
    folder = Path(tempfile.mkdtemp(prefix="das-pg-"))
    account = pwd.getpwnam("nobody") if os.getuid() == 0 else None
    identity = (
        {} if account is None else {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
    )
    (folder / "password").write_text(PASSWORD)
    if account is not None:
        for path in (folder, folder / "password"):
            os.chown(path, account.pw_uid, account.pw_gid)
    data = folder / "data"
    subprocess.run(
        [found / "initdb", "-D", data, "-U", "tests", "--pwfile", folder / "password", "--no-sync", "-E", "UTF8",
         "--auth-local=trust", "--auth-host=scram-sha-256", "--locale=C"],
        check=True, capture_output=True, cwd=folder, **identity,
    )  # fmt: skip
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [found / "postgres", "-D", data, "-k", folder, "-p", str(port), "-c", "listen_addresses=127.0.0.1",
         "-c", "fsync=off", "-c", "full_page_writes=off", "-c", "synchronous_commit=off"],
        stdout=subprocess.DEVNULL, stderr=(folder / "log").open("w"), cwd=folder, **identity,
    )  # fmt: skip
    try:
        started = PostgresServer(folder, port)
        _wait_for(started, server)
        yield started
    finally:
        server.terminate()
        server.wait()
        shutil.rmtree(folder)


def _wait_for(started: PostgresServer, server: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + READY_SECONDS
    while True:
        try:
            started._run("SELECT 1")
        except psycopg.OperationalError:
            assert server.poll() is None, (started.folder / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        else:
            return
