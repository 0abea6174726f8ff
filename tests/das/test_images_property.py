"""Whatever the bytes are: a valid picture or `ImageRefused`, and nothing else."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from image_files import (
    DISPLAY_P3,
    PNG_PALETTE,
    cmyk_profile_of_grey_inks,
    png,
    png_chunk,
    rgb_profile,
    saved,
    tiff,
)
from PIL import Image

from das.errors import ImageRefused
from das.images import ImageLimits, normalise
from tests.lengths import examples

LIMITS = ImageLimits(max_bytes=1_000_000, max_pixels=1_000_000, min_side=1)
CODES = {
    "damaged",
    "decompression-bomb",
    "empty",
    "not-an-image",
    "svg",
    "too-many-parts",
    "too-many-pixels",
    "too-small",
    "truncated",
    "unsupported-format",
}
MAGICS = [
    b"",
    b"\xff\xd8\xff\xe0",
    b"\x89PNG\r\n\x1a\n",
    b"GIF89a",
    b"RIFF\x40\0\0\0WEBPVP8X",
    b"II*\0",
    b"MM\0*",
]
MAGICS += [b"\0\0\0\x1cftypavif", b"II+\0\x08\0\0\0", b"<svg", b"<?xml"]


def valid_files() -> list[bytes]:
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (12, 17, 3), dtype=np.uint8)
    rgba = rng.integers(0, 256, (12, 17, 4), dtype=np.uint8)
    grey16 = rng.integers(0, 65536, (12, 17), dtype=np.uint16)
    exif = Image.Exif()
    exif[0x0112] = 6
    profile = rgb_profile(DISPLAY_P3, 2.2)
    frames = [Image.fromarray(rgb), Image.fromarray(255 - rgb)]
    palette = png_chunk(b"PLTE", bytes(range(12))) + png_chunk(b"tRNS", b"\x10\x80")
    animated = {"save_all": True, "append_images": frames[1:], "duration": 40}
    return [
        saved(rgb, "JPEG", exif=exif, icc_profile=profile),
        saved(rgb, "JPEG", progressive=True),
        saved(Image.fromarray(rgba, "CMYK"), "JPEG", icc_profile=cmyk_profile_of_grey_inks()),
        saved(rgba, "PNG", exif=exif, icc_profile=profile),
        saved(grey16, "PNG"),
        saved(frames[0], "PNG", **animated),
        png(16, 12, b"\x1b" * 48, depth=2, colour=PNG_PALETTE, before=palette),
        saved(frames[0], "GIF", **animated),
        saved(rgba, "WEBP", lossless=True, exif=exif, icc_profile=profile),
        saved(frames[0], "WEBP", **animated),
        saved(rgba, "AVIF", exif=exif),
        saved(rgb, "TIFF", icc_profile=profile, exif=exif),
        saved(rgb, "TIFF", compression="tiff_lzw"),
        saved(rgb, "TIFF", compression="jpeg"),
        saved(rgb, "TIFF", compression="tiff_deflate", save_all=True, append_images=frames[1:]),
        tiff(17, 12, grey16.astype(">u2").tobytes(), bits=(16,), order=">"),
        tiff(17, 12, grey16.astype("<f4").tobytes(), bits=(32,), sample_format=3),
    ]


VALID = valid_files()


def assert_a_picture_or_a_refusal(data: bytes) -> None:
    try:
        image = normalise(data, LIMITS)
    except ImageRefused as refusal:
        code, sentence = refusal.code, str(refusal)
    else:
        assert image.pixels.shape == (image.height, image.width, 3)
        assert image.pixels.dtype == np.uint8
        assert 0 < image.width * image.height <= LIMITS.max_pixels
        return
    assert code in CODES
    assert sentence.endswith(".")


@examples(300)
@given(st.sampled_from(MAGICS), st.binary(max_size=400))
def test_random_bytes(magic, rest):
    assert_a_picture_or_a_refusal(magic + rest)


@examples(700)
@given(
    st.sampled_from(VALID),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=8),
    st.one_of(st.none(), st.floats(0, 1)),
    st.booleans(),
)
def test_random_changes_to_valid_files(data, changes, cut, near_the_start):
    changed = bytearray(data)
    reach = min(len(data), 120) if near_the_start else len(data)
    for where, value in changes:
        changed[int(where * reach)] = value
    if cut is not None:
        del changed[int(cut * len(changed)) :]
    assert_a_picture_or_a_refusal(bytes(changed))


@examples(200)
@given(st.sampled_from(VALID), st.sampled_from(VALID), st.floats(0, 1), st.floats(0, 1))
def test_the_head_of_one_file_on_the_tail_of_another(head, tail, cut, resume):
    assert_a_picture_or_a_refusal(head[: int(cut * len(head))] + tail[int(resume * len(tail)) :])


def test_the_files_that_are_changed_are_valid_to_begin_with():
    for data in VALID:
        assert normalise(data, LIMITS).pixels.shape[2] == 3
