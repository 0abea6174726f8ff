"""The broker: a Redis by URL, or a Valkey server of our own on a Unix socket in the data directory.

The broker holds nothing but bells (ids of jobs that wait), so its loss costs time and no job.
"""

import json
import logging
import os
import stat
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import redis

from das.durable import Lock, try_lock, write_json
from das.errors import SettingsError
from jobs.broker_program import choose_program, is_too_old, least_version
from jobs.errors import BrokerError
from jobs.logs import passing_on
from jobs.process import SupervisedProcess
from jobs.redis_url import for_celery, lasting_fault
from jobs.settings import Settings

log = logging.getLogger(__name__)

# `sun_path` holds 108 bytes on Linux and 104 on macOS, a final zero among them.
LONGEST_SOCKET_PATH = 103
SOCKET = "broker.sock"
READY_SECONDS = 10.0


@dataclass(frozen=True)
class RunningServer:
    """What a server that answers says of itself."""

    product: str
    version: str
    eviction: str

    def __str__(self) -> str:
        return f"{self.product} {self.version}".strip()


def broker_url(settings: Settings) -> str:
    """The broker's URL in redis-py's form: `redis://…`, `rediss://…` or `unix:///…`.

    Raises:
        BrokerError: none is set and no `das serve` has made one for this data directory.
    """
    if settings.redis_url is not None:
        return settings.redis_url.get_secret_value()
    try:
        recorded: str = json.loads(_record_path(settings).read_text())["socket"]
    except (OSError, ValueError, KeyError) as error:
        raise BrokerError(
            f"nothing says where the broker of {settings.data_dir} is: start `das serve` first,"
            " or set DAS_REDIS_URL to a Redis or Valkey server"
        ) from error
    return f"unix://{quote(recorded)}"


def celery_broker_url(settings: Settings) -> str:
    """The same broker in Celery's form.

    Raises:
        BrokerError: as `broker_url`.
    """
    return for_celery(broker_url(settings))


def connect(settings: Settings) -> redis.Redis:
    """A client of the broker that gives up after `broker_timeout_seconds`. Close it after use.

    Raises:
        BrokerError: as `broker_url`.
    """
    timeout = settings.broker_timeout_seconds
    return redis.Redis.from_url(broker_url(settings), socket_timeout=timeout, socket_connect_timeout=timeout)


def running_server(settings: Settings) -> RunningServer | None:
    """What the broker says of itself; None where it can't be reached or doesn't answer."""
    try:
        return _asked(settings)
    except (BrokerError, redis.RedisError, OSError):
        return None


def answers(settings: Settings) -> bool:
    """Whether the broker can be reached and answers."""
    return running_server(settings) is not None


def check_url(settings: Settings) -> bool:
    """Ask the server that DAS_REDIS_URL names once. False if it isn't there, which is no fault: it may come.

    Raises:
        SettingsError: the URL or the server has to change; the message says how.
    """
    try:
        server = _asked(settings)
    except (redis.RedisError, OSError) as error:
        fault = lasting_fault(error)
        if fault:
            raise SettingsError(f"DAS_REDIS_URL can't be used: {fault}") from error
        return False
    if is_too_old(server.product, server.version):
        raise SettingsError(f"DAS_REDIS_URL names {server}, too old: {least_version()} is the least")
    log.info("the broker is %s", server)
    if server.eviction not in ("", "noeviction"):
        log.warning(
            "the broker drops keys when its memory is full (maxmemory-policy %s), and with them bells: jobs then wait"
            " for the sweeper. Set it to noeviction",
            server.eviction,
        )
    return True


def _asked(settings: Settings) -> RunningServer:
    client = connect(settings)
    try:
        told = client.info()
    except redis.exceptions.NoPermissionError:
        # A user that may use the queue need not be allowed to look at the server.
        client.ping()
        return RunningServer("a server that doesn't tell its version", "", "")
    finally:
        client.close()
    valkey = told.get("valkey_version")
    product, version = ("Valkey", valkey) if valkey else ("Redis", told.get("redis_version", ""))
    return RunningServer(product, str(version), str(told.get("maxmemory_policy", "")))


class Broker:
    """The broker that `das serve` needs, whether it is its own or somebody else's.

    `start` does nothing but check where DAS_REDIS_URL is set. Otherwise it runs a server of its own, restarts
    it when it dies, and ends it on `stop`. Where another `das serve` on the same data directory runs one
    already, that one is used and left alone.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._process: SupervisedProcess | None = None
        self._lock: Lock | None = None

    @property
    def pid(self) -> int | None:
        """The server's process id, if it is ours and runs."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start the server, or find the one that is there, and return when it answers.

        Raises:
            BrokerError: none can be started or reached in time; the message says what the server said.
            SettingsError: DAS_REDIS_URL names one that can't be used.
        """
        if self.settings.redis_url is not None:
            self._wait_until_ready()
            return
        self.settings.prepare_data_dir()
        self._lock = try_lock(self.settings.data_dir / "broker.lock")
        if self._lock is None:
            log.info("using the broker that another process runs for %s", self.settings.data_dir)
            self._wait_until_ready()
            return
        program, socket = choose_program(), _socket_path(self.settings)
        try:
            write_json(_record_path(self.settings), {"socket": str(socket)})
        except OSError as error:
            raise BrokerError(
                f"where the broker is can't be written into {self.settings.data_dir} ({error.strerror or error}):"
                " make room on its disk, or let DAS_DATA_DIR name another directory"
            ) from error
        if answers(self.settings):
            # Not ours: its `das serve` is gone, and without its handle we can't tell whom we would be ending.
            log.warning("using the broker that answers on %s; it will be left running", socket)
            return
        log.info("the broker is %s (%s)", program, program.path)
        self._process = SupervisedProcess(
            "broker",
            lambda: self._command(program.path, socket),
            on_line=passing_on(self.settings, "broker"),
        )
        self._process.start()
        try:
            self._wait_until_ready()
        except BrokerError:
            self.stop()
            raise

    def stop(self) -> None:
        """End the server if it is ours."""
        if self._process is not None:
            self._process.stop()
            self._process = None
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _command(self, binary: Path, socket: Path) -> Sequence[str]:
        # A socket file outlives a killed server. We hold the lock and nobody answers on it, so nobody needs
        # it; Valkey itself would refuse to bind.
        socket.unlink(missing_ok=True)
        directory = self.settings.data_dir / "broker"
        directory.mkdir(mode=0o700, exist_ok=True)
        options = {
            # No TCP: whoever may open the socket file may speak, nobody else.
            "port": "0",
            "unixsocket": str(socket),
            "unixsocketperm": "700",
            "dir": str(directory),
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
            # A cut-off last command after a power loss is dropped; the sweeper rings again for what it said.
            "aof-load-truncated": "yes",
            # Never drop bells to save memory: refuse new ones.
            "maxmemory-policy": "noeviction",
            "logfile": str(self.settings.data_dir / "broker.log"),
            "daemonize": "no",
        }
        return [str(binary), *(part for name, value in options.items() for part in (f"--{name}", value))]

    def _wait_until_ready(self) -> None:
        is_ready = answers if self.settings.redis_url is None else check_url
        deadline = time.monotonic() + READY_SECONDS
        while not is_ready(self.settings):
            if time.monotonic() > deadline:
                raise BrokerError(self._why_not_ready())
            time.sleep(0.02)

    def _why_not_ready(self) -> str:
        if self.settings.redis_url is not None:
            return (
                f"the broker that DAS_REDIS_URL names doesn't answer within {READY_SECONDS:g} s:"
                " see that it runs and can be reached from here, and that it speaks TLS where the URL says rediss://"
                " and doesn't where it says redis://"
            )
        written = self.settings.data_dir / "broker.log"
        lines = written.read_text(errors="replace").splitlines() if written.exists() else []
        said = lines[-1] if lines else "it logged nothing"
        return f"the embedded broker doesn't answer within {READY_SECONDS:g} s; the end of {written}: {said}"


def _record_path(settings: Settings) -> Path:
    return settings.data_dir / "broker.json"


def _socket_path(settings: Settings) -> Path:
    """Where the socket goes: the data directory, or a private short directory where that path is too long."""
    inside = settings.data_dir / SOCKET
    if len(os.fsencode(inside)) <= LONGEST_SOCKET_PATH:
        return inside
    # Workers started before keep looking where the last server was, so the same place is used again if it is
    # ours.
    try:
        recorded = Path(json.loads(_record_path(settings).read_text())["socket"])
        if _is_private(recorded.parent):
            return recorded
    except (OSError, ValueError, KeyError):
        pass
    socket = Path(tempfile.mkdtemp(prefix="das-")) / SOCKET
    if len(os.fsencode(socket)) > LONGEST_SOCKET_PATH:
        raise BrokerError(
            f"{socket} is too long a path for a Unix socket:"
            " let TMPDIR or DAS_DATA_DIR name a shorter directory"
        )
    return socket


def _is_private(directory: Path) -> bool:
    about = directory.lstat()
    return stat.S_ISDIR(about.st_mode) and about.st_uid == os.getuid() and about.st_mode & 0o077 == 0
