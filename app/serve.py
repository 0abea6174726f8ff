"""`das serve`: the broker, a worker and the API, each a process of its own, which start and end as one.

This process computes and answers nothing. It holds the listening socket and watches over the others, which run in
process groups of their own, are started again by `jobs.process`, and outlive each other: while the API is started
anew, requests wait in the socket, and worker and broker go on. Should this process be killed outright, the kernel
ends them too.
"""

import contextlib
import http.client
import json
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from urllib.parse import urlsplit

from rich.console import Console
from rich.markup import escape

from das.device import check_device
from das.durable import Lock, try_lock
from das.errors import SettingsError
from jobs.blobs import BlobStore
from jobs.broker import Broker
from jobs.database import Database, upgrade
from jobs.keys import Keys
from jobs.logs import passing_on
from jobs.process import REFUSED, SupervisedProcess
from jobs.settings import Settings, is_loopback
from jobs.tracing import check_tracing

logger = logging.getLogger(__name__)

LOCK = "serve.lock"
# The API gives open requests two seconds, and puts its own parts away.
API_STOP_SECONDS = 10.0
# A worker ends after the batch in hand; what it doesn't finish in this time is given back and done after the restart.
WORKER_STOP_SECONDS = 8.0
BACKLOG = 128
OPEN = "%s without keys: whoever reaches it may see, ask and erase everything"
NO_KEY = (
    "the service needs keys, because it is reached from beyond this machine (DAS_HOST, DAS_PUBLIC_URL or"
    " DAS_ALLOWED_HOSTS says so) or DAS_API_KEYS=required, and there is none that works: make one with"
    " `das keys create NAME`; DAS_API_KEYS=off lets everybody see, ask and erase everything"
)
LOOK_SECONDS = 0.1
END_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def serve(settings: Settings, on_ready: Callable[[str], None], *, with_worker: bool = True) -> int:
    """Run everything until SIGINT, SIGTERM or SIGHUP; returns the exit code when all of it has ended.

    A second such signal ends all of it at once. The code is `REFUSED` where the API or the worker said at its first
    start what a person has to mend.

    Args:
        on_ready: called, from another thread, with the service's address when it answers.
        with_worker: False leaves computing to workers that are started elsewhere.

    Raises:
        SettingsError: no index, the data directory is in use by another `das serve`, or the port is taken.
    """
    check_device(settings.device)
    check_tracing()
    settings.index_directories()
    settings.prepare_data_dir()
    refused = threading.Event()

    def child(
        name: str, *arguments: str, stop_seconds: float, pass_fds: tuple[int, ...] = ()
    ) -> SupervisedProcess:
        return SupervisedProcess(
            name,
            lambda: [sys.executable, "-m", *arguments],
            environment=lambda: {**os.environ, **settings.to_environment()},
            pass_fds=pass_fds,
            on_line=passing_on(settings, name),
            on_refusal=refused.set,
            stop_seconds=stop_seconds,
        )

    with contextlib.ExitStack() as stack:
        lock = stack.enter_context(_only_one(settings))
        listener = stack.enter_context(contextlib.closing(_listen(settings)))
        address = _address(settings, listener)
        _tell(settings, lock, address)
        stack.callback(lock.tell, "")
        upgrade(settings)
        _refuse_to_be_shut(settings)
        # Made anew by each process; here only to find a place that can't be used while there is somebody to tell.
        BlobStore(settings).check()
        children: list[SupervisedProcess] = []
        stack.enter_context(_ended_in_order(children))
        broker = Broker(settings)
        stack.callback(broker.stop)
        broker.start()
        if with_worker:
            children.append(child("worker", "worker", stop_seconds=WORKER_STOP_SECONDS))
        descriptor = listener.fileno()
        children.append(
            child("api", "app", str(descriptor), stop_seconds=API_STOP_SECONDS, pass_fds=(descriptor,))
        )
        for process in children:
            stack.callback(process.stop)
            process.start()
        threading.Thread(target=_announce, args=(address, on_ready, refused), daemon=True).start()
        refused.wait()
    return REFUSED if refused.is_set() else 0


def tell_address(settings: Settings) -> Callable[[str], None]:
    """What tells a person, or in a line of the log a machine, that the service answers and where."""
    public = settings.public_url
    if settings.log_format == "json":
        more = {} if public is None else {"public_address": public}
        return lambda address: logger.info("ready at %s", address, extra={"address": address, **more})
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    elsewhere = "" if public is None else f", for others [bold]{escape(public)}[/]"
    return lambda address: console.print(f"Open [bold]{escape(address)}[/]{elsewhere}  (Ctrl-C ends it)")


class _EndedError(BaseException):
    """A signal to end, as an exception like KeyboardInterrupt, so that the children are ended in order."""


@contextlib.contextmanager
def _ended_in_order(children: list[SupervisedProcess]) -> Iterator[None]:
    ending = False

    def end(_number: int, _frame: FrameType | None) -> None:
        nonlocal ending
        if ending:
            for process in children:
                process.kill()
            return
        ending = True
        raise _EndedError

    # What is ignored stays so: `nohup` lets a service outlive its terminal in this way.
    heeded = [number for number in END_SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, end) for number in heeded}
    try:
        with contextlib.suppress(_EndedError):
            yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _announce(address: str, on_ready: Callable[[str], None], refused: threading.Event) -> None:
    """Wait for the API's first answer and say that it is there."""
    while not refused.wait(LOOK_SECONDS):
        connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=API_STOP_SECONDS)
        try:
            connection.request("GET", "/healthz")
            if connection.getresponse().status == http.client.OK:
                on_ready(address)
                return
        except (OSError, http.client.HTTPException) as error:
            logger.debug("the API doesn't answer yet: %s", error)
        finally:
            connection.close()


def _only_one(settings: Settings) -> Lock:
    """The data directory's lock; two services on one would start two brokers and sweep each other's jobs."""
    path = settings.data_dir / LOCK
    lock = try_lock(path)
    if lock is None:
        raise SettingsError(_in_use(settings, path.read_text(errors="replace")))
    return lock


def _tell(settings: Settings, lock: Lock, address: str) -> None:
    """Write into the lock file who holds it, for the next one to read."""
    try:
        lock.tell(json.dumps({"pid": os.getpid(), "address": address}))
    except OSError as error:
        raise SettingsError(
            f"{settings.data_dir} can't be written ({error.strerror or error}): make room on its disk, or let"
            " DAS_DATA_DIR name another directory"
        ) from error


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
        _refuse_to_be_open(settings, listener)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise SettingsError(
            f"port {port} on {host} can't be opened ({error.strerror or error}):"
            " choose another with --port, or 0 for a free one"
        ) from error
    return listener


def _refuse_to_be_open(settings: Settings, listener: socket.socket) -> None:
    """Being reached from beyond this machine without keys has to be meant."""
    if settings.keys_required:
        return
    if not is_loopback(listener.getsockname()[0]):
        if settings.api_keys != "off":
            listener.close()
            raise SettingsError(
                f"DAS_HOST={settings.host} is an address beyond this machine, which the name doesn't tell: set"
                " DAS_API_KEYS=required, or off if whoever reaches it may see, ask and erase everything"
            )
        logger.warning(OPEN, f"listening on {settings.host}, beyond this machine,")
    elif settings.api_keys == "off" and settings.reached_from_beyond:
        logger.warning(OPEN, "reached under a name beyond this machine")


def _refuse_to_be_shut(settings: Settings) -> None:
    """See that somebody could come in."""
    if not settings.keys_required:
        return
    database = Database(settings, pooled=False)
    try:
        if not Keys(database).any_active():
            raise SettingsError(NO_KEY)
    finally:
        database.close()


def _address(settings: Settings, listener: socket.socket) -> str:
    port = listener.getsockname()[1]
    # What listens on every interface is reached from this machine by its loopback address.
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(settings.host, settings.host)
    return f"http://[{host}]:{port}" if ":" in host and not host.startswith("[") else f"http://{host}:{port}"
