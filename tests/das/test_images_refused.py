"""Files that `das.images.normalise` refuses: the code, the sentence, and that refusing is cheap and silent."""

import contextlib
import gzip
import io
import logging
import struct
import time
import tracemalloc
import warnings
import zipfile
import zlib

import numpy as np
import pytest
from image_files import PNG_SIGNATURE, png, png_chunk, saved, tiff
from PIL import Image

from das.errors import ImageRefused
from das.images import ImageLimits, normalise

PIXELS = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)


def refused(data: bytes, limits: ImageLimits | None = None) -> ImageRefused:
    with pytest.raises(ImageRefused) as caught:
        normalise(data, limits or ImageLimits())
    return caught.value


def zip_file() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("picture.png", b"")
    return buffer.getvalue()


def iso_media(major: bytes, *compatible: bytes) -> bytes:
    body = major + b"\0\0\0\0" + b"".join(compatible)
    return struct.pack(">I", 8 + len(body)) + b"ftyp" + body + bytes(64)


# --- not a picture that is read here ---


@pytest.mark.parametrize(
    ("data", "code", "words"),
    [
        (b"", "empty", "empty"),
        (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "svg", "SVG"),
        (b'\xef\xbb\xbf<?xml version="1.0"?>\n<!-- ' + b"x" * 2000 + b" -->\n<svg/>", "svg", "SVG"),
        ('<?xml version="1.0" encoding="utf-16"?><svg/>'.encode("utf-16"), "svg", "SVG"),
        (b"<!DOCTYPE svg PUBLIC '-//W3C//DTD SVG 1.1//EN'><svg:svg/>", "svg", "SVG"),
        (b"\n<!doctype HTML><html><svg></svg></html>", "not-an-image", "web page"),
        (b"<?xml version='1.0'?><note/>", "not-an-image", "XML"),
        (b'{"image": 1}', "not-an-image", "JSON"),
        (b"data:image/png;base64,AAAA", "not-an-image", "data:"),
        ("une image, très belle".encode(), "not-an-image", "plain text"),
        (b"%PDF-1.7\n", "not-an-image", "PDF"),
        (zip_file(), "not-an-image", "zip"),
        (gzip.compress(b"<svg/>", mtime=0), "not-an-image", "gzip"),
        (b"RIFF\x10\0\0\0WAVEfmt ", "not-an-image", "WAV"),
        (iso_media(b"isom", b"mp41"), "not-an-image", "video"),
        (iso_media(b"heic", b"mif1"), "unsupported-format", "HEIC"),
        (iso_media(b"mif1", b"mif1", b"heic"), "unsupported-format", "HEIC"),
        (saved(PIXELS, "BMP"), "unsupported-format", "BMP"),
        (b"8BPS\0\1", "unsupported-format", "Photoshop"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "unsupported-format", "JPEG XL"),
        (saved(PIXELS, "JPEG2000"), "unsupported-format", "JPEG 2000"),
        (b"II*\0\x10\0\0\0CR\x02\0", "unsupported-format", "camera raw"),
        (tiff(64, 64, bytes(4096), more={50706: 0x0104}), "unsupported-format", "DNG"),
        (bytes(range(128, 256)) * 4, "not-an-image", "isn't a picture"),
        (b"\0" * 1000, "not-an-image", "isn't a picture"),
    ],
)
def test_what_is_no_accepted_picture_is_named(data, code, words):
    refusal = refused(data)

    assert refusal.code == code
    assert words in str(refusal)
    assert str(refusal).endswith(".")


@pytest.mark.parametrize(
    "format", ["BMP", "ICO", "PPM", "TGA", "JPEG2000", "PCX", "DDS", "SGI", "ICNS", "EPS"]
)
def test_the_other_formats_pillow_knows_are_never_decoded(format):
    assert refused(saved(PIXELS, format)).code in ("unsupported-format", "not-an-image")


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(
            tiff(16, 16, bytes(16 * 16 * 12), bits=(32,) * 3, photometric=2, sample_format=3), id="float"
        ),
        pytest.param(tiff(16, 16, bytes(16 * 16 * 6), bits=(16,) * 3, photometric=2, planar=2), id="planes"),
        pytest.param(tiff(16, 16, bytes(16 * 16 * 8), bits=(64,), sample_format=3), id="double"),
    ],
)
def test_tiff_that_pillow_cannot_show_rightly_is_refused(data):
    refusal = refused(data)

    assert refusal.code == "unsupported-format"
    assert "TIFF" in str(refusal)


def test_a_float_tiff_of_nothing_but_nan_is_refused():
    samples = np.full((16, 16), np.nan, "<f4").tobytes()
    assert refused(tiff(16, 16, samples, bits=(32,), sample_format=3)).code == "damaged"


# --- size ---


def test_the_byte_limit_comes_first():
    refusal = refused(b"\xff\xd8\xff" + bytes(25_000_000))

    assert refusal.code == "too-large"
    assert "25.0 MB; the limit is 25 MB" in str(refusal)
    assert normalise(png(64, 64, PIXELS.tobytes()), ImageLimits(max_bytes=100_000)).width == 64


def huge_png(width: int, height: int) -> bytes:
    """A header that promises much and a stream of zeros that would unpack to a part of it."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    idat = png_chunk(b"IDAT", zlib.compress(bytes(10_000_000), 9))
    return PNG_SIGNATURE + png_chunk(b"IHDR", header) + idat + png_chunk(b"IEND", b"")


def huge_jpeg(width: int, height: int) -> bytes:
    data = bytearray(saved(PIXELS, "JPEG"))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def huge_gif(width: int, height: int) -> bytes:
    data = bytearray(saved(PIXELS, "GIF"))
    data[6:10] = struct.pack("<HH", width, height)
    return bytes(data)


def gif_with_huge_frame(width: int, height: int) -> bytes:
    """A small canvas whose frame reaches far out of it."""
    data = bytearray(saved(PIXELS, "GIF"))
    frame = data.index(b"\x2c\0\0\0\0\x40\0\x40\0")
    data[frame + 5 : frame + 9] = struct.pack("<HH", width, height)
    return bytes(data)


def huge_webp(width: int, height: int) -> bytes:
    data = bytearray(saved(np.dstack([PIXELS, PIXELS[..., 0]]), "WEBP"))
    assert data[12:16] == b"VP8X"
    data[24:30] = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return bytes(data)


def huge_avif(width: int, height: int) -> bytes:
    data = bytearray(saved(PIXELS, "AVIF"))
    extents = data.index(b"ispe")
    data[extents + 8 : extents + 16] = struct.pack(">II", width, height)
    return bytes(data)


@pytest.mark.parametrize(
    ("make", "width", "height"),
    [
        (huge_png, 100_000, 100_000),
        (huge_png, 8_000, 5_001),
        (huge_png, 2**31 - 1, 2**31 - 1),
        (huge_jpeg, 65_500, 65_500),
        (huge_jpeg, 10_000, 9_000),
        (huge_gif, 65_535, 65_535),
        (gif_with_huge_frame, 65_535, 65_535),
        (gif_with_huge_frame, 10_000, 10_000),
        (huge_webp, 16_384, 16_384),
        (huge_avif, 16_000, 16_000),
        (lambda width, height: tiff(width, height, b"", bits=(8, 8, 8), photometric=2), 200_000, 200_000),
    ],
)
def test_forty_megapixels_are_the_limit_and_checked_before_decoding(make, width, height):
    data = make(width, height)
    tracemalloc.start()
    begin = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        refusal = refused(data)
    seconds = time.process_time() - begin
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert refusal.code == "too-many-pixels"
    assert "40 megapixels" in str(refusal)
    assert seconds < 1.0
    assert peak < 20_000_000


def test_a_picture_of_the_exact_limit_is_read_and_one_pixel_more_is_not():
    limits = ImageLimits(max_pixels=64 * 64)
    assert normalise(png(64, 64, PIXELS.tobytes()), limits).width == 64
    assert refused(png(64, 65, bytes(64 * 65 * 3)), limits).code == "too-many-pixels"


def test_a_side_has_a_limit_of_its_own():
    refusal = refused(png(40_000, 8, bytes(40_000 * 8 * 3)))

    assert refusal.code == "too-many-pixels"
    assert "40000 × 8" in str(refusal)
    assert "32767" in str(refusal)


@pytest.mark.parametrize(("width", "height"), [(1, 1), (7, 100), (100, 7)])
def test_a_picture_too_small_to_say_anything_is_refused(width, height):
    refusal = refused(png(width, height, bytes(width * height * 3)))

    assert refusal.code == "too-small"
    assert f"{width} × {height}" in str(refusal)


@pytest.mark.parametrize("data", [huge_png(0, 10), huge_jpeg(64, 0), tiff(0, 16, bytes(64))])
def test_a_picture_without_pixels_is_refused(data):
    assert refused(data).code in ("too-small", "damaged", "unsupported-format")


# --- bombs in what isn't pixels ---

ZEROS = zlib.compress(bytes(50_000_000), 9)


@pytest.mark.parametrize(
    ("chunk", "place"),
    [
        (png_chunk(b"zTXt", b"Comment\0\0" + ZEROS), "before"),
        (png_chunk(b"zTXt", b"Comment\0\0" + ZEROS), "after"),
        (png_chunk(b"iTXt", b"Comment\0\1\0\0\0" + ZEROS), "before"),
        (png_chunk(b"iTXt", b"Comment\0\1\0\0\0" + ZEROS), "after"),
        (png_chunk(b"iCCP", b"profile\0\0" + ZEROS), "before"),
    ],
)
def test_text_and_profile_chunks_that_unpack_to_far_too_much_are_refused(chunk, place):
    tracemalloc.start()
    refusal = refused(png(64, 64, PIXELS.tobytes(), **{place: chunk}))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert refusal.code == "decompression-bomb"
    assert "unpacks to far more" in str(refusal)
    assert peak < 20_000_000


def test_more_pixel_data_than_the_header_promises_is_never_unpacked():
    body = zlib.compress(b"\0" + bytes(63) + bytes(60_000_000), 9)
    header = struct.pack(">IIBBBBB", 21, 8, 8, 2, 0, 0, 0)
    data = PNG_SIGNATURE + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", body) + png_chunk(b"IEND", b"")

    image = normalise(data)

    assert image.pixels.shape == (8, 21, 3)
    assert not image.pixels.any()


# --- cut off, damaged ---


@pytest.mark.parametrize("fraction", [0.05, 0.3, 0.6, 0.9])
@pytest.mark.parametrize(
    ("format", "options"),
    [
        ("JPEG", {"quality": 90}),
        ("JPEG", {"quality": 90, "progressive": True}),
        ("PNG", {}),
        ("GIF", {}),
        ("WEBP", {"lossless": True}),
        ("WEBP", {}),
        ("AVIF", {"quality": 90}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
    ],
)
def test_a_file_that_was_cut_off_is_refused_as_such(format, options, fraction):
    data = saved(PIXELS, format, **options)
    refusal = refused(data[: int(len(data) * fraction)])

    assert refusal.code == "truncated"
    assert "ends before the picture does" in str(refusal)


def test_a_file_damaged_in_the_middle_is_refused_as_damaged():
    data = bytearray(saved(PIXELS, "PNG"))
    data[len(data) // 2 : len(data) // 2 + 200] = b"\xaa" * 200

    refusal = refused(bytes(data))

    assert refusal.code == "damaged"
    assert "PNG" in str(refusal)


def test_nothing_is_printed_warned_or_logged_on_the_console(capfd, recwarn):
    logging.getLogger("PIL").propagate = False
    try:
        for data in (
            huge_jpeg(10_000, 9_000),
            huge_gif(65_535, 65_535),
            tiff(16, 16, struct.pack("<I", 0x7F800001) * 256, bits=(32,), sample_format=3),
            tiff(16, 16, bytes(4) + struct.pack("<I", 0x7F800001) * 255, bits=(32,), sample_format=3),
            tiff(16, 16, bytes(256), bits=(8,) * 9, photometric=2),
            png(64, 64, PIXELS.tobytes(), before=png_chunk(b"acTL", bytes(8))),
            saved(Image.fromarray(PIXELS), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01"),
        ):
            with contextlib.suppress(ImageRefused):
                normalise(data)
    finally:
        logging.getLogger("PIL").propagate = True

    assert capfd.readouterr() == ("", "")
    assert [str(warning.message) for warning in recwarn] == []
