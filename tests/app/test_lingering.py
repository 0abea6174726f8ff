"""Answers to requests that are still being sent when they are refused, on a real socket."""

import contextlib
import socket
import threading
import time

import psutil
import pytest
import uvicorn

from app import lingering
from app.protocol import BoundedProtocol

PAUSE_S, BODY_S = 0.5, 4.0
# What a machine that is busy with other tests may take longer.
SLACK_S = 30.0
# For who is in time, also on such a machine.
PATIENCE_S = 120.0
ANSWER = b"The picture is too large." * 40


async def refusing(scope, receive, send):
    """Refuses without having read anything, or after the first piece."""
    if scope["path"] == "/first-piece":
        await receive()
    headers = [(b"content-length", b"%d" % len(ANSWER))]
    if scope["path"] != "/kept":
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": 413, "headers": headers})
    await send({"type": "http.response.body", "body": ANSWER})


@contextlib.contextmanager
def served(loop, pause_s, body_s):
    """The port of a server that lingers for so long at most, and for so long where nothing comes."""
    config = uvicorn.Config(
        refusing,
        http=BoundedProtocol.with_limits(pause_s, body_s),
        loop=loop,
        lifespan="off",
        log_config=None,
        timeout_graceful_shutdown=2,
    )
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        yield listener.getsockname()[1]
        began = time.monotonic()
        server.should_exit = True
        thread.join()
        assert time.monotonic() - began < 2 + SLACK_S


@pytest.fixture(params=["asyncio", "uvloop"], scope="module")
def loop(request):
    return request.param


@pytest.fixture(scope="module")
def patient(loop):
    with served(loop, PATIENCE_S, PATIENCE_S) as port:
        yield port


@pytest.fixture(scope="module")
def hasty(loop):
    with served(loop, PAUSE_S, BODY_S) as port:
        yield port


@pytest.fixture
def stack():
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture
def connect(stack, patient):
    return lambda: stack.enter_context(socket.create_connection(("127.0.0.1", patient), timeout=PATIENCE_S))


def head(path=b"/", length=30_000_000, more=b""):
    return b"POST %s HTTP/1.1\r\nHost: x\r\n%sContent-Length: %d\r\n\r\n" % (path, more, length)


def rest(connection):
    told = b""
    while piece := connection.recv(65536):
        told += piece
    return told


@pytest.mark.parametrize(
    "start",
    [head(), head(b"/first-piece"), head(b"/kept", more=b"Connection: close\r\n"), b"nonsense\r\n\r\n"],
    ids=["closed", "read", "as-nginx", "not-understood"],
)
def test_the_answer_is_read_whole_by_who_sends_everything_first(connect, start):
    for _ in range(20):
        connection = connect()
        connection.sendall(start)
        for _ in range(30):
            connection.sendall(b"x" * 1_000_000)
        told = rest(connection)
        if start.startswith(b"nonsense"):
            assert told.startswith(b"HTTP/1.1 400 ")
            assert told.endswith(b"Invalid HTTP request received.")
        else:
            assert told.startswith(b"HTTP/1.1 413 ")
            assert told.endswith(b"\r\n\r\n" + ANSWER)


def test_a_head_that_is_too_large_is_told_so(connect):
    connection = connect()
    connection.sendall(b"GET / HTTP/1.1\r\nx: " + b"x" * 5_000_000)
    assert rest(connection).startswith(b"HTTP/1.1 431 ")


def test_a_connection_whose_request_was_whole_is_closed_at_once(connect):
    connection = connect()
    connection.sendall(head(length=0))
    assert rest(connection).endswith(ANSWER)
    # A second write after the other end has closed is told as an error; one that lingers would take it.
    with pytest.raises(ConnectionError):  # noqa: PT012
        for _ in range(20):
            connection.sendall(b"x")
            time.sleep(0.02)


def refused_of(stack, port):
    """A connection to it by somebody who has read the answer and has all to send yet."""
    connection = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S))
    connection.sendall(head(length=10**12) + b"x" * 100_000)
    assert rest(connection).endswith(ANSWER)
    return connection


def test_who_goes_on_sending_is_cut_off(stack, hasty):
    connection, began = refused_of(stack, hasty), time.monotonic()
    with pytest.raises(ConnectionError):  # noqa: PT012
        while time.monotonic() - began < BODY_S + SLACK_S:
            connection.sendall(b"x")
            time.sleep(0.1)


def test_who_falls_silent_is_cut_off(loop, stack):
    with served(loop, PAUSE_S, PATIENCE_S) as port:
        connection, began = refused_of(stack, port), time.monotonic()
        own = connection.getsockname()[1]
        # The server's end of it is this process's as well: nothing is sent to find out whether it is there.
        while any(one.laddr[1] == port and one.raddr and one.raddr[1] == own for one in connections()):
            assert time.monotonic() - began < PAUSE_S + SLACK_S
            time.sleep(0.05)


def connections():
    return psutil.Process().net_connections("tcp")


def test_no_more_than_a_bound_is_dropped(connect, monkeypatch):
    monkeypatch.setattr(lingering, "MOST_DROPPED_BYTES", 5_000_000)
    connection = connect()
    connection.sendall(head(length=10**12))
    with pytest.raises(ConnectionError):  # noqa: PT012
        for _ in range(60):
            connection.sendall(b"x" * 1_000_000)
