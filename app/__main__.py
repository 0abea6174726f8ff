"""`python -m app DESCRIPTOR`: the API on a listening socket that it inherits. `das serve` starts it in this way."""

import gc
import socket
import sys

import uvicorn
from fastapi import FastAPI

from app.main import create_app
from app.metrics.exposition import open_port
from app.protocol import BoundedProtocol
from das.errors import DasError
from jobs.logs import configure_logging, refusals_told
from jobs.process import REFUSED
from jobs.settings import Settings, get_settings

# How long open requests (long polls, above all) may take to end after SIGTERM.
GRACE_SECONDS = 2
# How long a connection stays open without a request. Who is told to come again in 5 or 10 s shall not find it closed
# just then: a request that is on its way at that moment is lost.
KEEP_ALIVE_SECONDS = 20
# After so long a thread hands the interpreter on to one that waits for it. With Python's 5 ms the event loop waits
# as long behind every thread that reads an answer. One noisy run halved the time of a request (decision 17).
SWITCH_SECONDS = 0.0005
# Connections that are accepted in one round of the event loop, which answers as well whoever has been accepted: a
# hundred that came at once waited for two seconds (decision 17).
ACCEPTED_AT_ONCE = 16


def main(descriptor: int) -> int:
    """Serve the settings of the environment until SIGTERM or SIGINT.

    Raises:
        DasError: a setting can't be used.
    """
    sys.setswitchinterval(SWITCH_SECONDS)
    settings = get_settings()
    configure_logging(settings)
    with refusals_told(settings), socket.socket(fileno=descriptor) as listener:
        app = create_app(settings)
        open_port(settings, app.state.meters.registry)
        # Modules, routes and schemas are a quarter of a million objects that stay for good. Garbage collection would
        # walk over them every few seconds, for a tenth of a second in which nobody is answered.
        gc.collect()
        gc.freeze()
        server = uvicorn.Server(_config(settings, app))
        server.run(sockets=listening(listener))
    return 0 if server.started else 1


def listening(listener: socket.socket) -> list[socket.socket]:
    """The socket as often as connections are to be accepted at once: libuv accepts one of each in a round."""
    return [listener, *(listener.dup() for _ in range(ACCEPTED_AT_ONCE - 1))]


def _config(settings: Settings, app: FastAPI) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=BoundedProtocol.with_limits(settings.head_seconds, settings.body_seconds),
        ws="none",
        log_config=None,
        # `app.middleware` writes a line for each request.
        access_log=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        server_header=False,
        # Headers that a proxy sets are believed only where a proxy was announced.
        proxy_headers=settings.public_url is not None,
    )


if __name__ == "__main__":
    try:
        sys.exit(main(int(sys.argv[1])))
    except DasError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(REFUSED)
