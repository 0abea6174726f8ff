"""Mutated metadata in whole files: a picture or a refusal, a record within its bounds, in time and in memory.

Run as a script it is the process that tries them: `test_declared_fuzz.py COUNT SEED`.
"""

import io
import json
import sys
import zlib

import fuzzing
import numpy as np
import pytest
from PIL import Image

from das.errors import ImageRefused
from das.images import normalise
from das.images.declared import declared_from
from das.images.declared.record import MAX_LORAS, MAX_NAME, MAX_PROMPT, MAX_SEED
from tests.das.generated_files import (
    A1111,
    FOOCUS,
    INVOKEAI,
    MAKE,
    MODEL,
    NOVELAI,
    USER_COMMENT,
    comfy_graph,
    insert_before_data,
    unicode_comment,
)
from tests.das.image_files import png_chunk, saved

SMALL = np.random.default_rng(1).integers(0, 256, (10, 12, 3), dtype=np.uint8)
PNG, JPEG = saved(SMALL, "PNG"), saved(SMALL, "JPEG")
TEXTS = {
    "parameters": A1111,
    "prompt": json.dumps(comfy_graph()),
    "Comment": NOVELAI["Comment"],
    "invokeai_metadata": json.dumps(INVOKEAI),
}
FORMS = [*TEXTS.values(), json.dumps(FOOCUS), json.dumps(NOVELAI)]
TOKENS = [b'"', b"\\", b"{", b"[", b"]", b"}", b":", b",", b"\n", b"\0", b"\xff", b"null", b"1e999", b"NaN"]
TOKENS += [b'["3", 0]', b'"inputs":', b"\\ud800", "\u202e".encode(), b"<lora:a:1>", b"9" * 400, b"[" * 2000]
TOKENS += [
    b'{"a":' * 300,
    b"Steps: 1, Seed: 2, Size: 3x4",
    b"key: " * 500,
    b'ab:"' * 500,
    b"Negative prompt:",
]
SECONDS_EACH = 10.0
"""On a busy machine; the slowest takes a tenth of a second on an idle one."""
GROWN_KB = 200_000


def mutated(rng: np.random.Generator, data: bytes) -> bytes:
    """Up to three changes: bytes, pieces left out, said twice or put in, the end cut off."""
    for _ in range(rng.integers(1, 4)):
        at, length = int(rng.integers(0, len(data) + 1)), int(rng.integers(1, 40))
        match int(rng.integers(0, 5)):
            case 0:
                data = data[:at] + bytes(rng.integers(0, 256, 1, dtype=np.uint8)) + data[at + 1 :]
            case 1:
                data = data[:at] + data[at + length :]
            case 2:
                data = data[:at] + data[at : at + length] * int(rng.integers(2, 20)) + data[at + length :]
            case 3:
                data = data[:at] + TOKENS[int(rng.integers(len(TOKENS)))] + data[at:]
            case 4:
                data = data[: max(at, 1)]
    return data


def text_chunk(rng: np.random.Generator) -> bytes:
    """A PNG with a mutated text in one of the three kinds of chunks, its checksum right."""
    keyword = list(TEXTS)[int(rng.integers(len(TEXTS)))]
    form = TEXTS[keyword] if rng.random() < 0.7 else FORMS[int(rng.integers(len(FORMS)))]
    text, name = mutated(rng, form.encode()), keyword.encode()
    match int(rng.integers(0, 4)):
        case 0:
            chunk = png_chunk(b"tEXt", name + b"\0" + text)
        case 1:
            packed = zlib.compress(text)
            chunk = png_chunk(
                b"zTXt", name + b"\0\0" + (mutated(rng, packed) if rng.random() < 0.5 else packed)
            )
        case 2:
            chunk = png_chunk(b"iTXt", name + b"\0\0\0\0\0" + text)
        case _:
            chunk = png_chunk(b"comf", name + b"\0" + text)
    return insert_before_data(PNG, chunk)


def exif_block(rng: np.random.Generator) -> bytes:
    """A PNG or JPEG with a mutated EXIF block, or one of mutated texts."""
    exif = Image.Exif()
    text = mutated(rng, FORMS[int(rng.integers(len(FORMS)))].encode())
    order = "be" if rng.random() < 0.5 else "le"
    exif.get_ifd(0x8769)[USER_COMMENT] = unicode_comment(text.decode("utf-8", "replace"), order)
    exif[MODEL] = "prompt:" + text.decode("latin-1").replace("\0", "")
    exif[MAKE] = "workflow:{}"
    block = exif.tobytes()
    if rng.random() < 0.7:
        block = block[:6] + mutated(rng, block[6:])
    block = block[:60_000]
    if rng.random() < 0.5:
        return insert_before_data(PNG, png_chunk(b"eXIf", block[6:]))
    segment = b"\xff\xe1" + (len(block) + 2).to_bytes(2, "big") + block
    return JPEG[:2] + segment + JPEG[2:]


def check(data: bytes) -> str:
    """Decode one file; returns what became of it."""
    try:
        found = normalise(data)
    except ImageRefused:
        return "refused"
    declared = found.declared
    if declared is None:
        return "silent"
    texts = [declared.prompt or "", declared.negative_prompt or ""]
    names = [
        declared.tool,
        declared.sampler,
        declared.model,
        declared.source,
        *(one.name for one in declared.loras),
    ]
    assert all(len(text) <= MAX_PROMPT for text in texts)
    assert all(len(name or "") <= MAX_NAME for name in names)
    assert len(declared.loras) <= MAX_LORAS
    assert declared.seed is None or 0 <= declared.seed <= MAX_SEED
    for text in (*texts, *(name or "" for name in names)):
        assert all(c in "\n\t" or (c >= " " and c not in "\x7f\u202e") for c in text)
        text.encode()
    assert declared_from(json.loads(json.dumps(declared.as_json()))) == declared
    assert len(json.dumps(declared.as_json(), ensure_ascii=False).encode()) < 100_000
    return "told"


def run(count: int, seed: int) -> dict[str, int]:
    """Try so many in a process of its own."""
    told = fuzzing.in_child(__file__, count, seed, timeout=3_000)
    assert told["grown_kb"] < GROWN_KB
    assert sum(told["outcomes"].values()) == count
    return {"refused": 0, "silent": 0, "told": 0} | told["outcomes"]


def test_some_mutated_metadata():
    outcomes = run(400, seed=0)

    assert outcomes["told"] > 40
    assert outcomes["silent"] > 200


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 5))
def test_ten_thousand_mutated_metadata(seed):
    assert run(2_500, seed)["told"] > 250


def test_every_length_of_a_file_that_was_cut_off():
    whole = io.BytesIO()
    exif = Image.Exif()
    exif.get_ifd(0x8769)[USER_COMMENT] = unicode_comment("x\nSteps: 1, Seed: 2, Size: 8x8")
    Image.fromarray(SMALL).save(whole, "JPEG", exif=exif)
    data = whole.getvalue()
    for length in range(2, len(data), 7):
        check(data[:length])


if __name__ == "__main__":
    generator = np.random.default_rng(int(sys.argv[2]))
    makers = [(exif_block, text_chunk)[number % 2] for number in range(int(sys.argv[1]))]
    fuzzing.tell((make(generator) for make in makers), check, SECONDS_EACH)
