"""The seal of a report: what it catches, whose key it takes, and what can't be sealed."""

from base64 import b64encode
from copy import deepcopy

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from das.cli import build_app
from das.errors import EvidenceError
from das.evidence.report import pixels_digest
from das.evidence.seal import PublicKey, SigningKey, canonical, check_seal, parsed, sealed

REPORT = {"format": "das-evidence", "version": 1, "answer": {"works": [{"score": 0.1, "title": "Ü – ☂"}]}}
numbers = st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    st.none() | st.booleans() | numbers | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["a", "ä", "😀"]), inner),
    max_leaves=12,
)


@pytest.fixture
def key(tmp_path) -> SigningKey:
    return SigningKey.create(tmp_path / "operator.pem")


@given(values)
def test_the_canonical_spelling_survives_reading(value):
    written = canonical(value)
    assert parsed(written) == value
    assert canonical(parsed(written)) == written


def test_the_spelling_is_that_of_the_standard():
    # RFC 8785, section 3.2.2 to 3.2.4.
    body = {
        "numbers": [333333333.33333329, 1e30, 4.50, 2e-3, 0.000000000000000000000000001],
        "string": '€$\x0f\nA\'B"\\\\"/',
        "literals": [None, True, False],
    }
    assert canonical(body).decode() == (
        '{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],'
        '"string":"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}'
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 2**53])
def test_what_has_no_spelling_is_refused(value):
    with pytest.raises(EvidenceError, match="canonically"):
        sealed({"value": value}, None)


def test_a_sealed_report_names_its_key(key):
    document = parsed(canonical(sealed(REPORT, key)))
    assert check_seal(document) == check_seal(document, key.public) == key.public
    assert check_seal(sealed(REPORT, None)) is None


def forged(document, key):
    """Sealed again by somebody else, with the operator's key still named."""
    other = SigningKey.create(key)
    again = sealed(document["report"], other)
    again["seal"]["signature"]["public_key"] = document["seal"]["signature"]["public_key"]
    return again


def test_every_change_is_found(key, tmp_path):
    document = sealed(REPORT, key)
    changed = deepcopy(document)
    changed["report"]["answer"]["works"][0]["score"] = 0.2
    with pytest.raises(EvidenceError, match="changed after it was sealed"):
        check_seal(changed)
    changed["seal"]["digest"] = sealed(changed["report"], None)["seal"]["digest"]
    with pytest.raises(EvidenceError, match="isn't one of this report"):
        check_seal(changed)
    with pytest.raises(EvidenceError, match="isn't one of this report"):
        check_seal(forged(document, tmp_path / "forger.pem"))
    stranger = SigningKey.create(tmp_path / "stranger.pem")
    with pytest.raises(EvidenceError, match=f"{stranger.public.id}; the one you trust is {key.public.id}"):
        check_seal(sealed(REPORT, stranger), key.public)
    with pytest.raises(EvidenceError, match="isn't signed"):
        check_seal(sealed(REPORT, None), key.public)


@pytest.mark.parametrize(
    "document",
    [
        None, [], {}, {"report": 1, "seal": {}}, {"report": {}, "seal": {"digest": "x"}},
        {"report": {}, "seal": {"digest": 1, "signature": None}},
    ],
)  # fmt: skip
def test_what_is_no_report_is_told(document):
    with pytest.raises(EvidenceError, match="isn't a sealed report"):
        check_seal(document)


@pytest.mark.parametrize("public", ["", "!!", 7, None, b64encode(b"short").decode()])
def test_a_signature_without_a_key_is_told(key, public):
    document = sealed(REPORT, key)
    document["seal"]["signature"]["public_key"] = public
    with pytest.raises(EvidenceError, match="public_key"):
        check_seal(document)


def test_keys_are_read_and_never_written_over(key, tmp_path):
    path = tmp_path / "operator.pem"
    assert path.stat().st_mode & 0o777 == 0o600
    assert PublicKey.read(path) == SigningKey.read(path).public == key.public
    (tmp_path / "public.pem").write_text(key.public.pem)
    assert PublicKey.read(tmp_path / "public.pem") == key.public
    with pytest.raises(EvidenceError, match="there already"):
        SigningKey.create(path)
    with pytest.raises(EvidenceError, match="can't be read"):
        SigningKey.read(tmp_path / "nowhere.pem")
    (tmp_path / "other.pem").write_text("no key")
    for read in (SigningKey.read, PublicKey.read):
        with pytest.raises(EvidenceError, match="holds no"):
            read(tmp_path / "other.pem")


def test_pixels_are_told_apart_by_shape_too():
    row = np.arange(12, dtype=np.uint8)
    assert pixels_digest(row.reshape(2, 2, 3)) == pixels_digest(row.reshape(2, 2, 3).copy())
    assert pixels_digest(row.reshape(2, 2, 3)) != pixels_digest(row.reshape(1, 4, 3))
    assert pixels_digest(row.reshape(2, 2, 3)) != pixels_digest(row[::-1].reshape(2, 2, 3))


def said(*arguments) -> str:
    done = CliRunner().invoke(build_app(), ["report", *map(str, arguments)])
    return done.output if done.exit_code == 0 else f"{done.exit_code} {done.exception}"


def test_the_command_says_who_sealed_it(tmp_path):
    told = said("key", "--out", tmp_path / "key.pem")
    key = SigningKey.read(tmp_path / "key.pem")
    assert key.public.pem.strip() in told
    assert key.public.id in told
    file = tmp_path / "report.json"
    file.write_bytes(canonical(sealed(REPORT, key)))
    assert "compare it with the one that the operator tells you" in said("verify", file)
    assert f"{key.public.id}, which you trust" in said("verify", file, "--key", tmp_path / "key.pem")
    file.write_bytes(canonical(sealed(REPORT, None)))
    assert "Not signed" in said("verify", file)
    assert "needs the index and the picture" in said("verify", file, "--recompute")
    file.write_text("<html>")
    assert "isn't JSON" in said("verify", file)
    file.write_text("[" * 100_000)
    assert "isn't JSON" in said("verify", file)
    file.write_text("9" * 500)
    assert "isn't a report" in said("verify", file)
    file.write_text("[1]")
    assert "isn't a report" in said("verify", file)
    assert "can't be read" in said("verify", tmp_path / "nowhere.json")
