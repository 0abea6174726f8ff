"""`das serve`: the broker, a worker and the API as one process group that starts and ends as one.

The API runs in the parent, so that a port in use or a missing index ends the command with a sentence, and Ctrl-C
is the web server's own graceful stop. Broker and worker are children in process groups of their own, watched over
and started again by `jobs.process`; should the parent be killed outright, the kernel ends them too.
"""

import contextlib
import fcntl
import gc
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn

from app.main import create_app
from das.errors import SettingsError
from jobs.broker import Broker
from jobs.database import upgrade
from jobs.process import SupervisedProcess
from jobs.settings import Settings

logger = logging.getLogger(__name__)

LOCK = "serve.lock"
# How long open requests (long polls, above all) may take to end after Ctrl-C.
GRACE_SECONDS = 2
# A worker ends after the batch in hand; what it doesn't finish in this time is given back and done after the restart.
WORKER_STOP_SECONDS = 8.0
BACKLOG = 128


def serve(settings: Settings, on_ready: Callable[[str], None]) -> None:
    """Run everything until SIGINT or SIGTERM; returns when all of it has ended.

    Args:
        on_ready: called with the service's address when it answers.

    Raises:
        SettingsError: no index, the data directory is in use by another `das serve`, or the port is taken.
    """
    settings.index_directories()
    settings.prepare_data_dir()
    with contextlib.ExitStack() as stack:
        lock = stack.enter_context(_only_one(settings))
        listener = stack.enter_context(contextlib.closing(_listen(settings)))
        address = _address(settings, listener)
        _tell(lock, address)
        upgrade(settings)
        stack.enter_context(_terminated_in_order())
        broker = Broker(settings)
        broker.start()
        stack.callback(broker.stop)
        worker = SupervisedProcess(
            "worker",
            lambda: [sys.executable, "-m", "worker"],
            environment=lambda: {**os.environ, **settings.to_environment()},
            stop_seconds=WORKER_STOP_SECONDS,
        )
        worker.start()
        stack.callback(worker.stop)
        _run_api(settings, listener, lambda: on_ready(address))
        # All that is left ends with the process; CLIP may have been loading and not have come to this itself.
        gc.freeze()


class _Server(uvicorn.Server):
    """Uvicorn that says when it answers."""

    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._on_ready()


def _run_api(settings: Settings, listener: socket.socket, on_ready: Callable[[], None]) -> None:
    config = uvicorn.Config(
        create_app(settings),
        log_config=None,
        access_log=settings.log_level == "debug",
        timeout_graceful_shutdown=GRACE_SECONDS,
        server_header=False,
        # Headers that a proxy sets are believed only where a proxy was announced.
        proxy_headers=settings.public_url is not None,
    )
    # Uvicorn raises the signal that ended it again once it has stopped; to us that is the normal end.
    with contextlib.suppress(KeyboardInterrupt, _TerminatedError):
        _Server(config, on_ready).run(sockets=[listener])


class _TerminatedError(BaseException):
    """SIGTERM, as an exception like KeyboardInterrupt, so that the children are ended in order."""


@contextlib.contextmanager
def _terminated_in_order() -> Iterator[None]:
    def terminate(_number: int, _frame: object) -> None:
        raise _TerminatedError

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        with contextlib.suppress(_TerminatedError, KeyboardInterrupt):
            yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _only_one(settings: Settings) -> Iterator[Any]:
    """Hold the data directory's lock; two services on one would start two brokers and sweep each other's jobs."""
    path = settings.data_dir / LOCK
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise SettingsError(_in_use(settings, file.read())) from None
        try:
            yield file
        finally:
            file.truncate(0)


def _tell(lock: Any, address: str) -> None:
    """Write into the lock file who holds it, for the next one to read."""
    lock.seek(0)
    lock.truncate()
    json.dump({"pid": os.getpid(), "address": address}, lock)
    lock.flush()


def _in_use(settings: Settings, written: str) -> str:
    try:
        holder = json.loads(written)
        who = f"process {holder['pid']}, which serves {holder['address']}"
    except (ValueError, KeyError):
        who = "another das serve"
    return (
        f"the data directory {settings.data_dir} is in use by {who}: end that one first,"
        " or give this one a directory of its own with DAS_DATA_DIR"
    )


def _listen(settings: Settings) -> socket.socket:
    """The listening socket, bound before anything is started, so that a taken port is said at once."""
    host, port = settings.host, settings.port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise SettingsError(
            f"port {port} on {host} can't be opened ({error.strerror or error}):"
            " choose another with --port, or 0 for a free one"
        ) from error
    return listener


def _address(settings: Settings, listener: socket.socket) -> str:
    port = listener.getsockname()[1]
    # What listens on every interface is reached from this machine by its loopback address.
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(settings.host, settings.host)
    return f"http://[{host}]:{port}" if ":" in host and not host.startswith("[") else f"http://{host}:{port}"
