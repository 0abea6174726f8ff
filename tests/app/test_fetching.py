"""Pictures by their address, from real servers on loopback: what comes whole is taken, all else is a sentence."""

import asyncio
import datetime
import gzip
import ipaddress
import socket
import ssl

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from app.addresses import AddressRefused, Allowed
from app.connecting import Connector
from app.fetching import Fetcher, TooMuch

NAME = "pictures.example"
LOOPBACK = Allowed.of(["127.0.0.0/8"])
MOST = 100_000
PATIENCE_S = 60.0


def answer(body, *headers, status="200 OK", length=None):
    head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body) if length is None else length}", *headers]
    return ("\r\n".join(head) + "\r\n\r\n").encode() + body


class Server:
    """A server that sends what it is told to by path, and keeps the heads of what it was asked."""

    def __init__(self, pages, trust=None):
        self.pages = dict(pages)
        self.trust = trust
        self.heads = []

    async def __aenter__(self):
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0, ssl=self.trust)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        self.server.close()

    async def serve(self, reader, writer):
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            self.heads.append(head.decode())
            page = self.pages[head.split(b" ")[1].decode()]
            if isinstance(page, bytes):
                writer.write(page)
            else:
                await page(writer)
            await writer.drain()
        except (ConnectionError, ssl.SSLError):
            pass
        finally:
            writer.close()


def fetch(page, *, allowed=LOOPBACK, most=MOST, seconds=PATIENCE_S, path="/x", held=None):
    """What is fetched of one page, or of several by their paths."""

    async def run():
        async with Server(page if isinstance(page, dict) else {path: page}) as server:
            for known, sent in server.pages.items():
                if isinstance(sent, bytes):
                    server.pages[known] = sent.replace(b"PORT", str(server.port).encode())
            fetcher = Fetcher(Connector(allowed), seconds=seconds)
            hold = (lambda count: None) if held is None else held.append
            return await fetcher.fetch(f"http://127.0.0.1:{server.port}{path}", most, hold), server.heads

    return asyncio.run(run())


def refusal(page, **options):
    with pytest.raises(AddressRefused) as refused:
        fetch(page, **options)
    told = str(refused.value)
    assert "127.0.0.1" not in told
    assert "Errno" not in told
    assert told.endswith(".")
    return refused.value.code


def test_a_picture_is_fetched_whole_and_asked_for_plainly():
    held = []
    data, (head,) = fetch(answer(b"picture" * 9000), held=held)
    assert data == b"picture" * 9000
    assert sum(held) == len(data)
    lines = head.split("\r\n")
    assert lines[0] == "GET /x HTTP/1.1"
    names = {line.split(":")[0].lower() for line in lines[1:] if line}
    assert names == {"host", "user-agent", "accept", "accept-encoding", "connection"}
    assert "Accept-Encoding: identity" in lines


def test_every_way_of_saying_a_bodys_end_is_understood():
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    assert fetch(chunked)[0] == b"abcde"
    assert fetch(b"HTTP/1.0 200 OK\r\n\r\nabcde")[0] == b"abcde"
    assert fetch(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + answer(b"abcde"))[0] == b"abcde"
    assert fetch(answer(b""))[0] == b""


async def drip(writer):
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n")
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.05)


async def drip_head(writer):
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"a: b\r\n")
        await writer.drain()
        await asyncio.sleep(0.05)


async def endless(writer):
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        writer.write(b"x" * 65536)
        await writer.drain()


async def endless_chunks(writer):
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"1;" + b"x" * 4000 + b"\r\na\r\n")
        await writer.drain()


async def endless_hints(writer):
    while True:
        writer.write(b"HTTP/1.1 103 Early Hints\r\nLink: " + b"x" * 8000 + b"\r\n\r\n")
        await writer.drain()


async def endless_head(writer):
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"a: " + b"x" * 8000 + b"\r\n")
        await writer.drain()


async def silence(writer):
    await asyncio.sleep(60)


@pytest.mark.parametrize(
    ("page", "code"),
    [
        (drip, "too-slow"),
        (drip_head, "too-slow"),
        (silence, "too-slow"),
        (endless, "too-large"),
        (endless_chunks, "too-large"),
        (endless_hints, "too-large"),
        (endless_head, "broken-off"),
        (answer(b"x" * (MOST + 1)), "too-large"),
        (answer(b"", length="9" * 18), "too-large"),
        (answer(b"", length="9" * 30), "broken-off"),
        (answer(b"x", length=-1), "broken-off"),
        (answer(b"abc", length=5), "broken-off"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc", "broken-off"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", "broken-off"),
        (b"", "broken-off"),
        (b"SSH-2.0-OpenSSH_9.2p1\r\n", "broken-off"),
        (b"\x00\xff" * 5000, "broken-off"),
        (answer(gzip.compress(b"x" * 10_000_000), "Content-Encoding: gzip"), "compressed"),
        (answer(b"gone", status="404 Not Found"), "status"),
        (answer(b"", status="204 No Content"), "status"),
        (answer(b"", status="304 Not Modified"), "status"),
        (answer(b"", status="301 Moved"), "status"),
        (answer(b"", status="401 Unauthorized"), "status"),
        (answer(b"", status="500 Oh"), "status"),
    ],
    ids=lambda value: value.__name__ if callable(value) else None,
)
def test_what_does_not_come_whole_is_a_sentence(page, code):
    # Nobody else is in a hurry: a busy machine may take long for what comes whole.
    assert refusal(page, seconds=1.0 if code == "too-slow" else PATIENCE_S) == code


def test_a_port_where_nobody_listens_is_a_sentence():
    # Bound and not listening: it is refused, and is nobody else's meanwhile.
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}/"
        with pytest.raises(AddressRefused) as refused:
            asyncio.run(Fetcher(Connector(LOOPBACK)).fetch(url, MOST))
    assert refused.value.code == "unreachable"


def redirect(location, status="302 Found"):
    return answer(b"", f"Location: {location}", status=status)


@pytest.mark.parametrize("status", ["301 M", "302 F", "303 S", "307 T", "308 P"])
def test_it_is_led_on_three_times(status):
    pages = {
        "/x": redirect("/y", status),
        "/y": redirect("http://127.0.0.1:PORT/z?q=1", status),
        "/z?q=1": redirect("w", status),
        "/w": answer(b"there", "Set-Cookie: a=b"),
    }
    data, heads = fetch(pages)
    assert data == b"there"
    assert [head.split(" ")[1] for head in heads] == ["/x", "/y", "/z?q=1", "/w"]
    assert not any("cookie" in head.lower() for head in heads)
    pages["/w"] = redirect("/v", status)
    assert refusal(pages) == "too-many-redirects"
    assert refusal(redirect("/x", status)) == "too-many-redirects"


@pytest.mark.parametrize(
    ("location", "code"),
    [
        ("https://10.0.0.1/x", "not-public"),
        ("https://169.254.169.254/latest/meta-data/", "not-public"),
        ("https://[::ffff:127.0.0.1]/", "not-public"),
        ("http://93.184.216.34/x", "scheme"),
        ("https://93.184.216.34:8443/x", "port"),
        ("file:///etc/passwd", "scheme"),
        ("https://a:b@93.184.216.34/", "credentials"),
        ("https://2130706433/", "address"),
        ("//[", "address"),
        ("/" + "x" * 4000, "address"),
    ],
)
def test_where_it_is_led_is_looked_at_again(location, code):
    assert refusal(redirect(location)) == code


def test_a_name_is_asked_for_once_and_its_first_answer_is_what_is_connected_to():
    """DNS rebinding: had the check and the connection asked on their own, the second answer would count."""
    asked = []

    async def rebinding(host, port):
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["127.0.0.2"]

    async def run():
        async with Server({"/x": answer(b"the first")}) as server:
            fetcher = Fetcher(Connector(Allowed.of(["127.0.0.1/32"]), resolve=rebinding))
            return await fetcher.fetch(f"http://{NAME}:{server.port}/x", MOST)

    assert asyncio.run(run()) == b"the first"
    assert asked == [NAME]


def test_without_leave_nothing_is_sent_to_this_machine():
    async def run():
        async def resolve(host, port):
            return ["127.0.0.1"]

        async with Server({"/x": answer(b"secret")}) as server:
            for url in (f"https://127.0.0.1:{server.port}/x", f"https://{NAME}/x", "https://127.0.0.1/x"):
                with pytest.raises(AddressRefused):
                    await Fetcher(Connector(Allowed(), resolve=resolve)).fetch(url, MOST)
            return server.heads

    assert asyncio.run(run()) == []


def test_proxies_of_the_environment_have_no_part_in_it(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert fetch(answer(b"straight"))[0] == b"straight"


def test_what_may_not_be_held_ends_it():
    class Busy(Exception):
        pass

    async def run():
        def hold(count):
            raise Busy

        async with Server({"/x": answer(b"abc")}) as server:
            await Fetcher(Connector(LOOPBACK)).fetch(f"http://127.0.0.1:{server.port}/x", MOST, hold)

    with pytest.raises(Busy):
        asyncio.run(run())


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A file with a certificate of pictures.example and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAME)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName(
                [x509.DNSName(NAME), x509.IPAddress(ipaddress.ip_address("127.0.0.3"))]
            ),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = tmp_path_factory.mktemp("tls") / "pem"
    pem.write_bytes(
        made.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return pem


@pytest.mark.parametrize(
    ("host", "trusted", "code"),
    [
        (NAME, True, None),
        (NAME, False, "unreachable"),
        ("other.example", True, "unreachable"),
    ],
    ids=["its own", "of nobody known", "another's"],
)
def test_a_certificate_has_to_be_the_hosts_and_of_a_known_authority(certificate, host, trusted, code):
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(certificate)
    trust = ssl.create_default_context(cafile=certificate) if trusted else None

    async def run():
        async def resolve(host, port):
            return ["127.0.0.1"]

        async with Server({"/x": answer(b"over TLS")}, serving) as server:
            fetcher = Fetcher(Connector(Allowed.of([host]), resolve=resolve, trust=trust))
            return await fetcher.fetch(f"https://{host}:{server.port}/x", MOST)

    if code is None:
        assert asyncio.run(run()) == b"over TLS"
    else:
        with pytest.raises(AddressRefused) as refused:
            asyncio.run(run())
        assert refused.value.code == code


def test_the_second_address_is_tried_where_the_first_does_not_answer():
    async def run():
        async def resolve(host, port):
            return ["127.0.0.2", "127.0.0.1"]

        async with Server({"/x": answer(b"the second")}) as server:
            return await Fetcher(Connector(LOOPBACK, resolve=resolve)).fetch(
                f"http://{NAME}:{server.port}/x", MOST
            )

    assert asyncio.run(run()) == b"the second"


def test_too_much_is_told_apart():
    assert issubclass(TooMuch, AddressRefused)
    with pytest.raises(TooMuch):
        fetch(answer(b"abcdef"), most=5)
    assert fetch(answer(b"abcde"), most=5)[0] == b"abcde"
