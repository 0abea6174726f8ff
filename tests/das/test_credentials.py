"""C2PA manifests of uploads, read in the decoder process: what they say, what they can't do."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest

from das.images import IsolatedNormaliser, normalise
from das.images.declared import credentials
from tests.das.credentials import TRAINED, created, signed
from tests.das.generated_files import A1111, PIXELS, with_texts
from tests.das.image_files import saved

CAPTURED = "http://cv.iptc.org/newscodes/digitalsourcetype/digitalCapture"


@pytest.fixture(scope="module")
def decoder() -> Iterator[IsolatedNormaliser]:
    with IsolatedNormaliser(processes=1) as normaliser:
        yield normaliser


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
def test_a_manifest_says_that_a_trained_model_made_the_picture_and_with_what(decoder, format):
    data = signed(saved(PIXELS, format), format, created(TRAINED, {"name": "Painter", "version": "2"}))

    found = decoder.normalise(data)

    assert found.declared is not None
    assert (found.declared.ai_generated, found.declared.tool, found.declared.source) == (
        (True, "Painter", "C2PA manifest")
    )
    np.testing.assert_array_equal(found.pixels, normalise(data).pixels)
    assert normalise(data).declared is None  # not in this process


def test_a_photograph_is_not_said_to_be_generated_and_the_claim_s_generator_is_the_tool(decoder):
    found = decoder.normalise(signed(saved(PIXELS, "JPEG"), "JPEG", created(CAPTURED), generator="Camera 5"))

    assert found.declared is not None
    assert (found.declared.ai_generated, found.declared.tool) == (None, "Camera 5")


def test_a_manifest_adds_to_what_the_texts_say(decoder):
    found = decoder.normalise(signed(with_texts({"parameters": A1111}), "PNG", created(TRAINED, "Painter")))

    assert found.declared is not None
    assert (found.declared.ai_generated, found.declared.tool) == (True, "AUTOMATIC1111")
    assert found.declared.source == "PNG text parameters; C2PA manifest"
    assert found.declared.seed == 965400086


def test_a_manifest_that_another_file_was_signed_with_is_told_as_such(decoder):
    data = signed(saved(PIXELS, "PNG"), "PNG", created(TRAINED))
    other = saved(255 - PIXELS, "PNG")
    begin = data.index(b"caBX") - 4
    chunk = data[begin : begin + 12 + int.from_bytes(data[begin : begin + 4], "big")]

    found = decoder.normalise(other[:33] + chunk + other[33:])

    assert found.declared is not None
    assert found.declared.source == "C2PA manifest that doesn't fit the file or its signature"
    assert found.declared.ai_generated is True


def test_the_history_of_an_edited_picture_is_read():
    edited = {
        "active_manifest": "b",
        "manifests": {
            "a": {"assertions": [created(TRAINED, "Painter")]},
            "b": {
                "claim_generator_info": [{"name": "Editor"}],
                "assertions": [{"label": "c2pa.actions", "data": {"actions": [{"action": "c2pa.opened"}]}}],
                "ingredients": [
                    {"relationship": "componentOf", "active_manifest": "c"},
                    {"relationship": "parentOf", "active_manifest": "a"},
                ],
            },
        },
    }

    found = credentials.declared_of(edited)

    assert found is not None
    assert (found.ai_generated, found.tool) == (True, "Painter")


@pytest.mark.parametrize(
    "report",
    [
        {},
        {"active_manifest": "a", "manifests": []},
        {"active_manifest": "a", "manifests": {"a": 3}},
        {"active_manifest": "a", "manifests": {"a": {"assertions": {"x": 1}, "claim_generator_info": "y"}}},
        {
            "active_manifest": "a",
            "manifests": {
                "a": {
                    "ingredients": [{"relationship": "parentOf", "active_manifest": "a"}],
                    "assertions": [3],
                }
            },
        },
    ],
)
def test_a_report_of_another_form_says_nothing(report):
    assert credentials.declared_of(report) is None


def test_a_manifest_elsewhere_is_never_fetched(decoder):
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/c2pa/jumb/manifest"
        data = signed(saved(PIXELS, "JPEG"), "JPEG", created(TRAINED), remote=address)
        assert address.encode() in data
        assert credentials.carries_manifest(data)

        assert decoder.normalise(data).declared is None
        server.shutdown()

    assert asked == []


def test_a_manifest_that_ends_the_process_costs_the_manifest_and_not_the_picture():
    data = signed(with_texts({"parameters": A1111}), "PNG", created(TRAINED))
    with IsolatedNormaliser(processes=1, memory_bytes=1536 << 20) as normaliser:
        (pid,) = normaliser.process_ids
        normaliser.normalise(saved(PIXELS, "PNG"))
        decoder = normaliser._take()
        decoded = decoder.decode(data, "PNG", normaliser._limits, 10.0)
        assert decoded.declared is not None
        assert decoded.declared.ai_generated is True
        # Now it stops answering behind the pixels, as it does where the library crashes.
        connection = decoder._connection
        decoder._connection = _EndsBehindThePixels(connection)
        lost = decoder.decode(data, "PNG", normaliser._limits, 10.0)
        decoder._connection = connection
        normaliser._give_back(decoder)

        assert lost.declared is not None
        assert (lost.declared.seed, lost.declared.ai_generated) == (965400086, None)
        np.testing.assert_array_equal(lost.pixels, PIXELS)
        assert normaliser.process_ids != (pid,)
        assert normaliser.normalise(data).declared.ai_generated is True


class _EndsBehindThePixels:
    """A connection that ends once the pixels have come, as that of a process does that is killed then."""

    def __init__(self, connection) -> None:
        self._connection = connection
        self._received = 0

    def __getattr__(self, name):
        return getattr(self._connection, name)

    def recv_into(self, view):
        count = 0 if self._received > PIXELS.size else self._connection.recv_into(view)
        self._received += count
        return count


@pytest.mark.parametrize("seed", range(3))
def test_damaged_manifests_cost_no_picture(decoder, seed):
    rng = np.random.default_rng(seed)
    data = signed(saved(PIXELS, "WEBP", lossless=True), "WEBP", created(TRAINED, "Painter"))
    begin = data.index(b"C2PA") + 8
    for _ in range(20):
        damaged = bytearray(data)
        for place in rng.integers(begin, len(data), 8):
            damaged[place] = rng.integers(256)
        if b"c2pa" not in damaged:
            continue
        found = decoder.normalise(bytes(damaged))
        np.testing.assert_array_equal(found.pixels, PIXELS)
        assert (
            found.declared is None
            or found.declared.tool in (None, "Painter", "A Generator")
            or ("C2PA" in found.declared.source)
        )
