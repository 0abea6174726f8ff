"""Answers to requests that are still being sent when they are refused, on a real socket."""

import contextlib
import socket
import threading
import time

import pytest
import uvicorn

from app import lingering
from app.protocol import BoundedProtocol

PAUSE_S, BODY_S, SLACK_S = 0.5, 2.0, 3.0
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


@pytest.fixture(params=["asyncio", "uvloop"], scope="module")
def port(request):
    config = uvicorn.Config(
        refusing,
        http=BoundedProtocol.with_limits(PAUSE_S, BODY_S),
        loop=request.param,
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


@pytest.fixture
def connect(port):
    with contextlib.ExitStack() as stack:
        yield lambda: stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30))


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


@pytest.mark.parametrize(("pause", "most"), [(0.1, BODY_S), (60.0, PAUSE_S)], ids=["crawls", "stalls"])
def test_who_goes_on_sending_or_falls_silent_is_cut_off(connect, pause, most):
    connection = connect()
    connection.sendall(head(length=10**12) + b"x" * 100_000)
    began = time.monotonic()
    assert rest(connection).endswith(ANSWER)
    if pause < PAUSE_S:
        with pytest.raises(ConnectionError):  # noqa: PT012
            while time.monotonic() - began < most + SLACK_S:
                connection.sendall(b"x")
                time.sleep(pause)
    else:
        time.sleep(most + 1)
        with pytest.raises(ConnectionError):  # noqa: PT012
            connection.sendall(b"x")
            time.sleep(0.1)
            connection.sendall(b"x")
    assert time.monotonic() - began < most + SLACK_S


def test_no_more_than_a_bound_is_dropped(connect, monkeypatch):
    monkeypatch.setattr(lingering, "MOST_DROPPED_BYTES", 5_000_000)
    connection = connect()
    connection.sendall(head(length=10**12))
    with pytest.raises(ConnectionError):  # noqa: PT012
        for _ in range(60):
            connection.sendall(b"x" * 1_000_000)
