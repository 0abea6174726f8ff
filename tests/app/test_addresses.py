"""Which addresses are connected to: attempts of every kind to reach what a caller can't, and what is allowed."""

import asyncio
import ipaddress

import pytest

from app.addresses import AddressRefused, Allowed, is_public, looked_up, parse
from jobs.settings import Settings

PUBLIC = "93.184.216.34"
NOBODY = Allowed()


def names(**known):
    """A resolver that knows these names, and counts how often it is asked."""
    known = {name.replace("_", "."): addresses for name, addresses in known.items()}

    async def resolve(host, port):
        resolve.asked.append(host)
        if host not in known:
            raise OSError("Name or service not known")
        return known[host]

    resolve.asked = []
    return resolve


def code_of(url, allowed=NOBODY, resolve=None):
    """Why an address is refused; None if it isn't."""
    try:
        asyncio.run(looked_up(parse(url), allowed, resolve or names()))
    except AddressRefused as error:
        return error.code
    return None


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.255.255.254", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254",
        "100.64.0.1", "192.0.0.9",
        "192.0.2.1", "192.88.99.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1",
        "239.255.255.250", "240.0.0.1", "255.255.255.255", "::", "::1", "::127.0.0.1", "::ffff:127.0.0.1",
        "::ffff:8.8.8.8", "::ffff:0:127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::808:808", "64:ff9b:1::1", "100::1",
        "2001::1", "2001:0:ce49:7601:e866:efff:62c3:fffe", "2001:db8::1", "2002:7f00:1::", "2002:808:808::",
        "3fff::1",
        "5f00::1", "fc00::1", "fd00:ec2::254", "fe80::1", "fec0::1", "ff02::1", "ff0e::1",
    ],
)  # fmt: skip
def test_no_address_but_those_of_public_hosts(address):
    assert not is_public(ipaddress.ip_address(address))
    literal = f"[{address}]" if ":" in address else address
    assert code_of(f"https://{literal}/x.png") == "not-public"
    assert code_of("https://name.example/x.png", resolve=names(name_example=[address])) == "not-public"
    # One public address beside it doesn't help, whichever comes first.
    for both in ([PUBLIC, address], [address, PUBLIC]):
        assert code_of("https://name.example/x.png", resolve=names(name_example=both)) == "not-public"


@pytest.mark.parametrize("address", [PUBLIC, "8.8.8.8", "2606:4700::1111", "2a00:1450:4001:831::200e"])
def test_public_addresses_are_connected_to(address):
    assert is_public(ipaddress.ip_address(address))
    assert code_of("https://name.example/x.png", resolve=names(name_example=[address])) is None


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("", "address"),
        ("x", "scheme"),
        ("//host/x.png", "scheme"),
        ("file:///etc/passwd", "scheme"),
        ("ftp://name.example/x.png", "scheme"),
        ("gopher://name.example:70/_x", "scheme"),
        ("data:image/png;base64,AAAA", "scheme"),
        ("javascript:alert(1)", "scheme"),
        ("http://name.example/x.png", "scheme"),
        ("https://name.example:80/x.png", "port"),
        ("https://name.example:22/x.png", "port"),
        ("https://name.example:0/x.png", "address"),
        ("https://name.example:99999/x.png", "address"),
        ("https://name.example:x/", "address"),
        ("https://user:pass@name.example/x.png", "credentials"),
        ("https://user@name.example/x.png", "credentials"),
        ("https://@name.example/x.png", "credentials"),
        ("https://name.example@127.0.0.1/x.png", "credentials"),
        ("https://name.example\\@127.0.0.1/", "address"),
        ("https://127.0.0.1\\name.example/", "address"),
        ("https:///x.png", "address"),
        ("https://", "address"),
        ("https://name.example/a b.png", "address"),
        ("https://name.example/\r\nHost: other", "address"),
        ("https://name.ex\tample/", "address"),
        ("\nhttps://name.example/", "address"),
        ("https://name.example/\x00", "address"),
        ("https://name.example/\ud800", "address"),
        ("https://2130706433/", "address"),
        ("https://127.1/", "address"),
        ("https://0177.0.0.1/", "address"),
        ("https://0x7f.0.0.1/", "address"),
        ("https://0x7f000001/", "address"),
        ("https://0x/", "address"),
        ("https://127.0.0.1./", "not-public"),
        ("https://017700000001/", "address"),
        ("https://1.2.3.4.5/", "address"),
        ("https://256.1.1.1/", "address"),
        ("https://１２７.0.0.1/", "not-public"),
        ("https://127。0。0。1/", "not-public"),
        ("https://ⓛocalhost/", "not-public"),
        ("https://[::1]/", "not-public"),
        ("https://[::ffff:127.0.0.1]/", "not-public"),
        ("https://[::ffff:7f00:1]/", "not-public"),
        ("https://[0:0:0:0:0:0:0:1]/", "not-public"),
        ("https://[fe80::1%25eth0]/", "address"),
        ("https://[fe80::1%eth0]/", "address"),
        ("https://[::1/", "address"),
        ("https://[127.0.0.1]/", "address"),
        ("https://[v1.x]/", "address"),
        ("https://::1/", "address"),
        ("https://localhost/", "not-public"),
        ("https://a..b/", "address"),
        ("https://" + "a" * 64 + ".example/", "address"),
        ("https://" + ".".join(["a" * 60] * 5) + "/", "address"),
        ("https://name.example/" + "x" * 2048, "address"),
        ("https://%31%32%37.0.0.1/", "address"),
        ("https://name%00.example/", "address"),
        ("https://na!me.example/", "address"),
        ("https://unheard.example/", "not-public"),
    ],
)  # fmt: skip
def test_addresses_that_are_refused(url, code):
    known = names(name_example=[PUBLIC], localhost=["127.0.0.1", "::1"])
    assert code_of(url, resolve=known) == code
    assert set(known.asked) <= {"name.example", "localhost", "unheard.example"}


def test_an_unknown_name_is_told_as_one_that_is_not_public():
    """Nobody can ask for the names of a network that they can't see."""
    told = []
    for url in ("https://unheard.example/", "https://intranet.example/", "https://10.0.0.1/"):
        with pytest.raises(AddressRefused) as refused:
            asyncio.run(looked_up(parse(url), NOBODY, names(intranet_example=["10.0.0.1"])))
        told.append((refused.value.code, str(refused.value)))
    assert len(set(told)) == 1


def test_what_the_operator_lists_is_connected_to():
    allowed = Allowed.of(["Media.Internal", "10.1.0.0/16", "[fd00::1]", "192.168.7.7"])
    known = names(media_internal=["10.9.9.9"], other_internal=["10.1.2.3"], mixed=["10.1.2.3", "10.2.2.3"])
    for url in (
        "http://media.internal:8080/x", "https://MEDIA.internal/x", "http://other.internal/", "http://10.1.255.1:9/",
        "http://[fd00::1]/", "http://192.168.7.7/",
    ):  # fmt: skip
        assert code_of(url, allowed, known) is None, url
    for url in ("https://mixed/", "https://10.2.0.1/", "https://[fd00::2]/", "https://192.168.7.8/"):
        assert code_of(url, allowed, known) == "not-public", url
    # It is no licence for other hosts.
    public = names(name_example=[PUBLIC])
    assert code_of("http://name.example/", allowed, public) == "scheme"
    assert code_of("https://name.example:8443/", allowed, public) == "port"


def test_an_address_is_written_as_it_is_sent():
    target = parse("HTTPS://Bücher.Example:443/ä b".replace(" ", "%20") + "?q=ü&r=%41#part")
    assert (target.host, target.port) == ("xn--bcher-kva.example", 443)
    assert target.path == "/%C3%A4%20b?q=%C3%BC&r=%41"
    assert target.url == "https://xn--bcher-kva.example/%C3%A4%20b?q=%C3%BC&r=%41"
    assert parse("http://[2606:4700::1111]:8080").url == "http://[2606:4700::1111]:8080/"
    assert target.joined("../other?x").url == "https://xn--bcher-kva.example/other?x"
    assert target.joined("//third.example/y").url == "https://third.example/y"


@pytest.mark.parametrize("entry", ["http://host", "host:80", "*.example", "10.0.0.1/8", "1.2.3", "a b"])
def test_an_entry_that_is_neither_is_refused_at_the_start(entry):
    with pytest.raises(ValueError, match="neither a host nor a network"):
        Settings(_env_file=None, fetch_allow=f"good.example, {entry}")
