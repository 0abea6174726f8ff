"""A PostgreSQL server of the tests' own, from Debian's packages, with a fresh database for each test."""

import contextlib
import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psycopg

from tests.ports import PortTakenError, on_a_free_port

PASSWORD = "only-for-tests"
READY_SECONDS = 60.0


def binaries() -> Path | None:
    """Where `postgres` and `initdb` are: on the PATH, or in the newest of Debian's directories; None if nowhere."""
    on_path = shutil.which("initdb")
    if on_path is not None:
        return Path(on_path).resolve().parent
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: int(p.parts[-3]))
    return versions[-1].parent if versions else None


@dataclass
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


@dataclass
class MortalServer(PostgresServer):
    """A server that may be killed, and keeps what it committed."""

    _start: "Callable[[], subprocess.Popen[bytes]]"
    _process: "subprocess.Popen[bytes]"

    def kill(self) -> None:
        """End its first process by SIGKILL; the others see that and end."""
        self._process.kill()
        self._process.wait()

    def start(self) -> None:
        """Start it again; it comes up once the processes of the killed one are gone."""
        deadline = time.monotonic() + READY_SECONDS
        while True:
            self._process = self._start()
            try:
                _wait_for(self, self._process)
            except PortTakenError:
                assert time.monotonic() < deadline
                time.sleep(0.2)
            else:
                return

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait()


# It flushes nothing to the disk: it has nothing to lose.
QUICK = ("fsync=off", "full_page_writes=off", "synchronous_commit=off")
# What was committed outlives the server, though not the machine.
MORTAL = ("fsync=off", "full_page_writes=off")


@contextlib.contextmanager
def running() -> Iterator[PostgresServer]:
    """A server for the length of the block."""
    with mortal(QUICK) as server:
        yield server


@contextlib.contextmanager
def mortal(settings: tuple[str, ...] = MORTAL) -> Iterator[MortalServer]:
    """A server for the length of the block that may be killed meanwhile."""
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
    words = [word for setting in ("listen_addresses=127.0.0.1", *settings) for word in ("-c", setting)]

    def start(port: int) -> "subprocess.Popen[bytes]":
        with (folder / "log").open("a") as log:
            return subprocess.Popen(
                [found / "postgres", "-D", data, "-k", folder, "-p", str(port), *words],
                stdout=subprocess.DEVNULL, stderr=log, cwd=folder, **identity,
            )  # fmt: skip

    def answering(port: int) -> MortalServer:
        server = MortalServer(folder, port, partial(start, port), start(port))
        try:
            _wait_for(server, server._process)
        except BaseException:
            server.stop()
            raise
        return server

    try:
        server = on_a_free_port(answering)
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder)


def _wait_for(started: PostgresServer, server: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + READY_SECONDS
    while True:
        try:
            started._run("SELECT 1")
        except psycopg.OperationalError:
            if server.poll() is not None:
                raise PortTakenError((started.folder / "log").read_text()) from None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        else:
            return
