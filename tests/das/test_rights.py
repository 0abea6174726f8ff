"""Rights signals: every value of the vocabularies, in files and beside works."""

import pyarrow as pa
import pytest
from PIL.PngImagePlugin import PngInfo

from das.errors import WorksError
from das.images import IsolatedNormaliser
from das.rights.files import MAX_XMP, c2pa_signal, may_carry_signals, signal_of, xmp_signal
from das.rights.table import signals_beside, with_signals
from das.rights.values import CODES, VALUES, from_plus, from_text, strictest
from tests.das.credentials import TRAINED, created, signed
from tests.das.generated_files import PIXELS
from tests.das.image_files import saved
from tests.das.xmp import address, xmp

PLUS = {
    "UNSPECIFIED": "unspecified",
    "ALLOWED": "allowed",
    "PROHIBITED": "prohibited",
    "PROHIBITED-AIMLTRAINING": "prohibited-ai",
    "PROHIBITED-GENAIMLTRAINING": "prohibited-generative-ai",
    "PROHIBITED-EXCEPTSEARCHENGINEINDEXING": "prohibited-except-search",
    "PROHIBITED-SEECONSTRAINT": "constrained",
}


def mining(label: str = "cawg", **uses: str) -> dict:
    entries = {f"{label}.{name}": {"use": use} for name, use in uses.items()}
    return {"label": f"{label}.training-mining", "data": {"entries": entries}}


# --- XMP ---


@pytest.mark.parametrize(("code", "value"), PLUS.items())
@pytest.mark.parametrize("form", ["attribute", "text", "resource"])
def test_each_value_of_plus_in_each_form_of_xmp(code, value, form):
    assert xmp_signal(xmp(code, form)) == value
    assert from_plus(f"DMI-{code}") == from_text(address(code)) == value


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_xmp_is_read_from_every_format_that_carries_it(format):
    packet = xmp("PROHIBITED-GENAIMLTRAINING")
    if format == "PNG":
        info = PngInfo()
        info.add_itxt("XML:com.adobe.xmp", packet.decode())
        data = saved(PIXELS, "PNG", pnginfo=info)
    elif format == "TIFF":
        data = saved(PIXELS, "TIFF", tiffinfo={700: packet})
    else:
        data = saved(PIXELS, format, xmp=packet)

    assert may_carry_signals(data)
    assert signal_of(data, format) == "prohibited-generative-ai"


def test_xmp_behind_the_pixels_of_a_png_counts_also_where_these_are_damaged():
    info = PngInfo()
    info.add_itxt("XML:com.adobe.xmp", xmp("PROHIBITED-AIMLTRAINING").decode())
    before = saved(PIXELS, "PNG", pnginfo=info)
    begin = before.index(b"iTXt") - 4
    end = before.index(b"IDAT") - 4
    behind = before[:begin] + before[end:]
    place = behind.index(b"IEND") - 4
    behind = behind[:place] + before[begin:end] + behind[place:]

    assert signal_of(behind, "PNG") == "prohibited-ai"
    damaged = bytearray(behind)
    pixels = damaged.index(b"IDAT") + 12
    damaged[pixels : pixels + 4] = b"\xff" * 4
    assert signal_of(bytes(damaged), "PNG") == "prohibited-ai"
    assert signal_of(behind[: place + 8], "PNG") is None
    text = PngInfo()
    text.add_text("XML:com.adobe.xmp", xmp("PROHIBITED").decode("latin-1"))
    assert signal_of(saved(PIXELS, "PNG", pnginfo=text), "PNG") == "prohibited"
    with IsolatedNormaliser(processes=1) as decoder:
        assert decoder.signal(behind) == "prohibited-ai"


BOMB = b'<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]><x p="DataMining">&b;</x>'


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        b"DataMining",
        BOMB,
        b'<!DOCTYPE x SYSTEM "http://127.0.0.1:1/DataMining"><x/>',
        b"<x" * 100_000 + b"DataMining",
        b"<a>" * 100_000 + b"DataMining",
        xmp("PROHIBITED") + b" " * MAX_XMP,
        xmp("NO-SUCH-VALUE"),
        xmp("PROHIBITED").replace(b"useplus.org/ldf/xmp", b"example.org/xmp"),
    ],
)
def test_what_is_hostile_or_of_another_vocabulary_says_nothing(packet):
    assert xmp_signal(packet) is None


# --- C2PA ---


@pytest.mark.parametrize("label", ["cawg", "c2pa"])
@pytest.mark.parametrize(
    ("uses", "value"),
    [
        ({"ai_generative_training": "notAllowed"}, "prohibited-generative-ai"),
        ({"ai_training": "notAllowed"}, "prohibited-ai"),
        ({"data_mining": "notAllowed", "ai_training": "allowed"}, "prohibited"),
        ({"ai_generative_training": "constrained"}, "constrained"),
        ({"ai_generative_training": "allowed"}, "allowed"),
        ({"ai_inference": "notAllowed"}, None),
        ({"ai_training": "perhaps"}, None),
    ],
)
def test_each_use_of_the_assertions(label, uses, value):
    manifest = {"assertions": [mining(label, **uses)]}

    assert c2pa_signal({"active_manifest": "a", "manifests": {"a": manifest}}) == value


def test_a_signed_file_and_a_damaged_one_in_the_decoder_process():
    data = signed(
        saved(PIXELS, "JPEG"), "JPEG", created(TRAINED), mining(ai_generative_training="notAllowed")
    )
    both = saved(PIXELS, "WEBP", xmp=xmp("PROHIBITED"))
    with IsolatedNormaliser(processes=1) as decoder:
        assert decoder.signal(data) == "prohibited-generative-ai"
        assert decoder.signal(both) == "prohibited"
        assert decoder.signal(saved(PIXELS, "PNG")) is None
        begin = data.index(b"jumb")
        assert decoder.signal(data[:begin] + b"\xff" * 400 + data[begin + 400 :]) is None
        # The same process decodes pictures as before.
        assert decoder.normalise(both).pixels.shape == PIXELS.shape


# --- beside works ---


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *((value, value) for value in VALUES),
        ("tdm-reservation: 1", "prohibited"),
        ("1", "prohibited"),
        (1, "prohibited"),
        (True, "prohibited"),
        (False, None),
        ("0", "allowed"),
        ("X-Robots-Tag: noai", "prohibited-ai"),
        ("noai, noimageai", "prohibited-ai"),
        ("somebot: noindex, noai", "prohibited-ai"),
        ("noindex", None),
        ("", None),
        (None, None),
        ("Prohibited ", "prohibited"),
    ],
)
def test_values_as_metadata_give_them(text, value):
    assert from_text(text) == value


def test_the_strictest_wins_and_headers_of_crawls_have_columns_of_their_own():
    table = pa.table(
        {
            "file": ["a", "b", "c", "d"],
            "tdm": ["allowed", None, "", "DMI-PROHIBITED-AIMLTRAINING"],
            "tdm-reservation": [1, None, 0, None],
            "X-Robots-Tag": ["", "noai", "index", None],
        }
    )

    assert signals_beside(table) == ["prohibited", "prohibited-ai", "allowed", "prohibited-ai"]
    kept = with_signals(table, [0, 0, CODES.index("constrained"), CODES.index("prohibited")])
    assert kept["tdm"].to_pylist() == ["prohibited", "prohibited-ai", "constrained", "prohibited"]
    assert strictest([None, None]) is None


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("noai, max-image-preview:large", "prohibited-ai"),
        ("max-snippet:-1, noai", "prohibited-ai"),
        ("googlebot: noindex, otherbot: NoImageAI", "prohibited-ai"),
        ("noindex, max-image-preview:large", None),
        ("noimageindex", None),
        ("notranslate", None),
        ("unavailable_after: 25 Jun 2030 15:00:00 PST", None),
        ("noaids", None),
    ],
)
def test_the_robots_header_is_never_refused_in_a_column_of_its_own(header, value):
    assert signals_beside(pa.table({"file": ["a.png"], "X-Robots-Tag": [header]})) == [value]


def test_a_value_that_is_not_known_ends_in_a_sentence():
    with pytest.raises(
        WorksError, match=r"the column tdm says 'maybe' of b\.png, .* Give prohibited, .* Leave it empty"
    ):
        signals_beside(pa.table({"file": ["a.png", "b.png"], "tdm": ["1", "maybe"]}))
