"""Bodies that cost more than they say: bounded in number, size, time and memory before anything is parsed."""

import asyncio
import json

import anyio
import pytest
from starlette.requests import Request

from app.bodies import Bodies
from app.forms import MAX_FIELD_BYTES, MAX_JSON_DEPTH, MAX_PARTS, parse_form, parse_json
from app.problems import Problem

TOO_LARGE = Problem("too-large", "too large")


def request_of(chunks, address="10.0.0.1", **headers):
    """A request whose body comes in these chunks; a number among them is a pause in seconds."""
    left = list(chunks)

    async def receive():
        while left and isinstance(left[0], float):
            await asyncio.sleep(left.pop(0))
        chunk = left.pop(0) if left else b""
        return {"type": "http.request", "body": chunk, "more_body": bool(left)}

    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "method": "POST", "headers": raw, "client": (address, 1)}, receive)


def refusal(bodies, request, limit=1000):
    async def read():
        async with bodies.received(request, limit, TOO_LARGE):
            pass

    with pytest.raises(Problem) as refused:
        anyio.run(read)
    assert bodies.held_bytes == 0
    return refused.value


def test_a_body_counts_as_held_until_it_was_used():
    bodies = Bodies(1000, 5, 5)

    async def read():
        async with bodies.received(request_of([b"ab", b"", b"c"]), 10, TOO_LARGE) as body:
            assert body == b"abc"
            assert bodies.held_bytes == 3
        assert bodies.held_bytes == 0

    anyio.run(read)


@pytest.mark.parametrize("length", ["11", "9" * 30, "9" * 5000])
def test_an_announced_length_is_believed_where_it_is_too_large(length):
    assert refusal(Bodies(100, 5, 5), request_of([b"x"], content_length=length), 10) is TOO_LARGE


@pytest.mark.parametrize("length", ["", "-1", "1e9", "²", "5"])
def test_another_length_changes_nothing(length):
    assert (
        refusal(Bodies(100, 5, 5), request_of([b"x" * 6, b"x" * 6], content_length=length), 10) is TOO_LARGE
    )


def test_a_pause_and_a_crawl_are_cut_off():
    stalled = refusal(Bodies(1000, 5, 0.1), request_of([b"x", 0.5, b"y"]))
    assert (stalled.code, stalled.kind.status, stalled.headers["Connection"]) == ("too-slow", 408, "close")
    crawling = [part for _ in range(20) for part in (b"x", 0.05)]
    assert refusal(Bodies(1000, 0.3, 0.2), request_of(crawling)).code == "too-slow"


def test_what_all_hold_together_is_bounded_and_one_address_leaves_half():
    bodies = Bodies(1000, 5, 5)

    async def read():
        async with bodies.received(request_of([b"x" * 500], "10.0.0.1"), 1000, TOO_LARGE):
            with pytest.raises(Problem) as greedy:
                async with bodies.received(request_of([b"x"], "10.0.0.1"), 1000, TOO_LARGE):
                    pass
            async with bodies.received(request_of([b"x" * 400], "10.0.0.2"), 1000, TOO_LARGE):
                with pytest.raises(Problem) as full:
                    async with bodies.received(request_of([b"x" * 200], "10.0.0.3"), 1000, TOO_LARGE):
                        pass
        return greedy.value, full.value

    for problem in anyio.run(read):
        assert (problem.code, problem.kind.status) == ("busy", 503)
        assert int(problem.headers["Retry-After"]) > 0
    assert bodies.held_bytes == 0


def test_one_ipv6_network_is_one_address():
    bodies = Bodies(1000, 5, 5)

    async def read():
        async with (
            bodies.received(request_of([b"x" * 500], "2001:db8::1"), 1000, TOO_LARGE),
            bodies.received(request_of([b"x"], "2001:db8::ffff"), 1000, TOO_LARGE),
        ):
            pass

    with pytest.raises(Problem):
        anyio.run(read)


# ---- Parsing ----


def form(*parts):
    body = b"".join(b"--b\r\nContent-Disposition: form-data; %s\r\n\r\n%s\r\n" % part for part in parts)
    return body + b"--b--\r\n"


FORM = "multipart/form-data; boundary=b"


def test_a_forms_parts_come_in_their_order():
    file, text = parse_form(form((b'name="i"; filename="x"', b"\r\n--\r\n-b"), (b'name="t"', b"1")), FORM)
    assert (file.name, file.is_file, bytes(file.data)) == ("i", True, b"\r\n--\r\n-b")
    assert (text.name, text.is_file, bytes(text.data)) == ("t", False, b"1")


@pytest.mark.parametrize(
    ("body", "content_type", "says"),
    [
        (form(*[(b'name="f"', b"1")] * (MAX_PARTS + 1)), FORM, "fields"),
        (form((b'name="f"', b"x" * (MAX_FIELD_BYTES + 1))), FORM, "size"),
        (form((b'name="%s"' % (b"n" * 500), b"1")), FORM, "name"),
        (form((b'name="\xff"', b"1")), FORM, "UTF-8"),
        (form((b"filename=x", b"1")), FORM, "name"),
        (b"\r\n" * 2000 + form((b'name="f"', b"1")), FORM, "boundary"),
        (form((b'name="f"', b"1")), "multipart/form-data; boundary=" + "b" * 71, "boundary"),
        (form((b'name="f"', b"1")), "multipart/form-data; boundary=", "boundary"),
        (b"--b\r\n" + b"a: b\r\n" * 5000, FORM, "order"),
    ],
    ids=["parts", "field", "name", "utf8", "nameless", "preamble", "long", "none", "headers"],
)
def test_a_form_that_asks_for_too_much(body, content_type, says):
    with pytest.raises(Problem, match=says) as refused:
        parse_form(body, content_type)
    assert refused.value.code == "malformed-body"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{" + b",".join(b'"%d":0' % n for n in range(100_000)) + b"}", "invalid-request"),
        (b"{" + b",".join(b'"%d":0' % n for n in range(30)) + b"}", "invalid-request"),
        (b'{"a":' * 100_000, "invalid-request"),
        (b'{"a":' * 2000 + b"1" + b"}" * 2000, "malformed-body"),
        (b"[" * (MAX_JSON_DEPTH + 1) + b"]" * (MAX_JSON_DEPTH + 1), "malformed-body"),
        (b'{"seed": ' + b"9" * 5000 + b"}", "malformed-body"),
        (b'{"seed": NaN}', "malformed-body"),
        (b'{"seed": -Infinity}', "malformed-body"),
        (b'{"%s": 1}' % (b"k" * 500), "invalid-request"),
        (b'"\xed\xa0\x80"', "malformed-body"),
        (b'{"a": 1, "\\u0061": 1}', "invalid-request"),
        (b"\xef\xbb\xbf{}", "malformed-body"),
        (b"", "malformed-body"),
        (b"nul", "malformed-body"),
        (b"7", "invalid-request"),
    ],
    ids=[
        "members", "30", "open", "deep", "deeper", "digits", "nan", "infinity", "key", "surrogate", "twice", "bom",
        "empty", "nul", "number",
    ],
)  # fmt: skip
def test_json_that_asks_for_too_much(body, code):
    with pytest.raises(Problem) as refused:
        parse_json(body)
    assert refused.value.code == code


def test_json_of_the_longest_prompt_is_read():
    longest = {"prompt": ",:[{" * 1000, "image_base64": "A" * 100_000, "top_k": 3}
    assert parse_json(json.dumps(longest).encode()) == longest
