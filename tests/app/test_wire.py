"""A real service against clients that are slow, that stall, and that send what costs more than it says."""

import base64
import contextlib
import json
import re
import socket
import threading
import time

import httpx2 as httpx
import pytest

from tests.browser.conftest import Site

HEAD_S, STALL_S, BODY_S = 2.0, 2.0, 4.0
# What a machine that is busy with other tests may take longer.
SLACK_S = 20.0
HEALTH_S = 0.1
PATIENCE_S = 120.0


@pytest.fixture(scope="module")
def site(tmp_path_factory, tiny_index, tiny_works):
    settings = {
        "DAS_HEAD_SECONDS": str(HEAD_S),
        "DAS_BODY_STALL_SECONDS": str(STALL_S),
        "DAS_BODY_SECONDS": str(BODY_S),
        "DAS_BODIES_IN_FLIGHT_BYTES": "80000000",
    }
    site = Site(tmp_path_factory.mktemp("wire"), tiny_index, tiny_works, **settings)
    yield site
    site.stop()


@pytest.fixture
def wire(site):
    """Opens connections to the service; they are closed after the test."""
    host, port = site.url.removeprefix("http://").split(":")
    with contextlib.ExitStack() as stack:

        def connect(sent=b""):
            connection = stack.enter_context(socket.create_connection((host, int(port)), timeout=60))
            connection.sendall(sent.replace(b"HOST", f"{host}:{port}".encode()))
            return connection

        yield connect


def rest(connection):
    """All that the service sends until it ends the connection, and how long that took."""
    began = time.monotonic()
    told = b""
    with contextlib.suppress(ConnectionError):
        while piece := connection.recv(65536):
            told += piece
    return told, time.monotonic() - began


def status(told):
    return int(told.split(b" ", 2)[1])


def upload_head(length, path=b"/v1/attributions"):
    return (
        b"POST %s HTTP/1.1\r\nHost: HOST\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        % (path, length)
    )


@pytest.mark.parametrize("sent", [b"", b"GET /healthz HTTP/1.1\r\nHost: HO", b"\r\n", b"G"], ids=repr)
def test_a_head_that_doesnt_come_ends_the_connection(wire, sent):
    told, seconds = rest(wire(sent))
    assert seconds < HEAD_S + SLACK_S
    assert told == b"" or status(told) == 408


def test_a_head_that_comes_drop_by_drop_ends_too(wire):
    connection = wire(b"GET /healthz HTTP/1.1\r\n")
    began = time.monotonic()
    with contextlib.suppress(ConnectionError):
        while time.monotonic() - began < HEAD_S + SLACK_S + 5:
            connection.sendall(b"a: b\r\n")
            time.sleep(0.1)
    assert time.monotonic() - began < HEAD_S + SLACK_S + 5


@pytest.mark.parametrize("end", [b"", b"\r\n\r\n"], ids=["open", "whole"])
def test_a_head_without_measure_is_refused(wire, end):
    connection = wire(b"GET /healthz HTTP/1.1\r\nHost: HOST\r\nx: ")
    with contextlib.suppress(ConnectionError):
        for _ in range(40):
            connection.sendall(b"x" * 16_384)
        connection.sendall(end)
    told, seconds = rest(connection)
    assert told == b"" or status(told) == 431
    assert seconds < HEAD_S + SLACK_S


def test_a_connection_may_be_used_again_and_again(wire, site):
    connection = wire()
    for _ in range(4):
        connection.sendall(f"GET /healthz HTTP/1.1\r\nHost: {site.url[7:]}\r\n\r\n".encode())
        told = b""
        while not told.endswith(b'{"status":"ok"}'):
            part = connection.recv(65536)
            assert part, told
            told += part
        assert told.startswith(b"HTTP/1.1 200")
        time.sleep(HEAD_S / 3)


def test_stalled_uploads_are_cut_off_and_leave_room(wire, site, tiny_works):
    stalled = [wire(upload_head(25_000_000) + b'{"image_base64": "' + b"A" * 2_000_000) for _ in range(30)]
    answers = [rest(connection) for connection in stalled]
    statuses = [status(told) for told, _ in answers if told]
    assert set(statuses) <= {408, 503}
    assert statuses.count(408) >= 10
    assert statuses.count(503) >= 1
    for told, _ in answers:
        if told and status(told) == 503:
            assert re.search(rb"(?i)retry-after: \d+", told)
    assert sum(seconds for _, seconds in answers) < STALL_S + 2 * SLACK_S
    picture = tiny_works / "work-001.png"
    asked = httpx.post(
        site.url + "/v1/attributions", files={"image": ("p.png", picture.read_bytes())}, timeout=60
    )
    assert asked.status_code == 202


def test_an_upload_that_crawls_is_cut_off(wire):
    connection = wire(upload_head(25_000_000))
    began = time.monotonic()
    with contextlib.suppress(ConnectionError):
        while time.monotonic() - began < BODY_S + SLACK_S + 5:
            connection.sendall(b" ")
            time.sleep(0.1)
    assert time.monotonic() - began < BODY_S + SLACK_S + 5


@pytest.mark.parametrize(
    "path", [b"/a/att_0/cancel", b"/a/att_0/erase", b"/a/att_0/again", b"/healthz", b"/nothing"]
)
def test_a_body_that_nobody_reads_is_not_taken_for_ever(wire, path):
    connection = wire(upload_head(10**12, path))
    sent, began = 0, time.monotonic()
    with contextlib.suppress(ConnectionError):
        while time.monotonic() - began < BODY_S + SLACK_S + 10:
            connection.sendall(b"&" * 65536)
            sent += 65536
            time.sleep(0.02)
    assert time.monotonic() - began < BODY_S + SLACK_S + 10


def test_an_answer_that_nobody_takes_ends_the_connection(wire, site):
    connection = wire()
    connection.sendall(f"GET /openapi.json HTTP/1.1\r\nHost: {site.url[7:]}\r\n\r\n".encode() * 400)
    # Long enough for the answers to fill all that lies between, and for one to be in the way after that.
    time.sleep(HEAD_S + 8)
    told, _ = rest(connection)
    assert told.count(b"HTTP/1.1 200") < 400


@pytest.mark.parametrize(
    ("target", "host", "expected"),
    [
        (b"/version", b"HOST", 200),
        (b"http://HOST/version", b"evil.example", 200),
        (b"http://evil.example/version", b"HOST", 421),
        (b"http://HOST@evil.example/version", b"HOST", 400),
        (b"/version", b"evil.example", 421),
        (b"/version", b"HOST\r\nHost: HOST", 400),
        (b"*", b"HOST", 404),
    ],
)
def test_the_host_of_the_target_is_the_one_that_counts(wire, target, host, expected):
    told, _ = rest(wire(b"GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n" % (target, host)))
    assert status(told) == expected


def test_a_tunnel_is_no_way_in(wire):
    told, _ = rest(wire(b"CONNECT HOST HTTP/1.1\r\nHost: HOST\r\n\r\n"))
    assert told == b"" or status(told) >= 400


# ---- While an attack runs, the service answers ----

FORM = {"Content-Type": "multipart/form-data; boundary=b"}
URLENCODED = {"Content-Type": "application/x-www-form-urlencoded"}
JSON = {"Content-Type": "application/json"}
FILE = b'--b\r\nContent-Disposition: form-data; name="image"; filename="x"\r\n\r\n'
ATTACKS = {
    "members": ("/v1/attributions", JSON, b"{%s}" % b",".join(b'"%d":0' % n for n in range(1_500_000))),
    "errors": ("/v1/attributions", JSON, json.dumps({str(n): 0 for n in range(4000)}).encode()),
    "nested": ("/v1/attributions", JSON, b'{"a":' * 3_000_000),
    "digits": ("/v1/attributions", JSON, b'{"seed":%s}' % (b"9" * 20_000_000)),
    "decimals": ("/v1/attributions", JSON, b'{"seed":0.%s}' % (b"9" * 20_000_000)),
    "escapes": ("/v1/attributions", JSON, b'{"prompt":"%s"}' % (b"\\u00e9" * 4_000_000)),
    "spaces": ("/v1/attributions", JSON, b" " * 20_000_000),
    "preamble": ("/v1/attributions", FORM, b"\r\n" * 10_000_000),
    "parts": ("/v1/attributions", FORM, b'--b\r\nContent-Disposition: form-data; name="f"\r\n\r\n1\r\n' * 300_000),
    "boundaries": ("/ask", FORM, FILE + b"\r\n--" * 5_000_000),
    "headers": ("/ask", FORM, b"--b\r\n" + b"a: b\r\n" * 3_000_000),
    "ampersands": ("/samples", URLENCODED, b"&" * 20_000_000),
    "sample": ("/samples", FORM, FILE + b"x" * 20_000_000),
    "cancel": ("/a/att_0/cancel", URLENCODED, b"&" * 20_000_000),
    "erase": ("/a/att_0/erase", FORM, FILE + b"x" * 20_000_000),
    "again": ("/a/att_0/again", JSON, b'{"a":' * 3_000_000),
}  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS)
def test_health_is_told_at_once_while_it_is_attacked(site, attack):
    path, headers, body = ATTACKS[attack]
    # A machine that is busy with other tests may be late by itself, but not always.
    deadline = time.monotonic() + PATIENCE_S
    while (slowest := _slowest_health(site, path, headers, body)) >= HEALTH_S:
        assert time.monotonic() < deadline, slowest


def _slowest_health(site, path, headers, body):
    """The longest that /healthz took while two clients sent the attack and were refused."""
    statuses = []
    host, port = site.url.removeprefix("http://").split(":")
    head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: {headers['Content-Type']}\r\n"
    request = f"{head}Connection: close\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body

    def attack():
        with (
            socket.create_connection((host, int(port)), timeout=60) as connection,
            contextlib.suppress(ConnectionError),
        ):
            connection.sendall(request)
            statuses.append(status(rest(connection)[0]))

    attackers = [threading.Thread(target=attack) for _ in range(2)]
    slowest, asked = 0.0, 0
    with httpx.Client(base_url=site.url, timeout=60) as probe:
        probe.get("/healthz")
        for attacker in attackers:
            attacker.start()
        while any(attacker.is_alive() for attacker in attackers) or asked < 20:
            began = time.perf_counter()
            assert probe.get("/healthz").status_code == 200
            slowest = max(slowest, time.perf_counter() - began)
            asked += 1
            time.sleep(0.005)
    # A second one from the same address may be asked to wait.
    assert {told for told in statuses if not 400 <= told < 500} <= {503}
    return slowest


def test_a_large_picture_in_json_is_still_taken(site, tiny_works):
    # As some programs write it: every slash of base64 with a backslash before it.
    encoded = base64.b64encode((tiny_works / "work-002.png").read_bytes()).decode().replace("/", "\\/")
    body = f'{{"image_base64": "{encoded}", "top_k": 2}}'
    answer = httpx.post(site.url + "/v1/attributions", content=body.encode(), headers=JSON, timeout=60)
    assert answer.status_code == 202
    assert answer.json()["top_k"] == 2
