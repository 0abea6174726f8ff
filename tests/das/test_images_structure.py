"""Files of far too many parts are refused before a pixel is decoded; honest ones of every make are read."""

import itertools
import random
import struct
import time
import zlib
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from image_files import (
    avif_of_frames,
    avif_of_tiles,
    box,
    gif_with_blocks,
    jpeg_segment,
    jpeg_with_more_scans,
    jpeg_with_segments,
    png,
    png_chunk,
    saved,
    tiff,
    webp_with_chunks,
)
from PIL import Image, features

from das.errors import ImageRefused
from das.images import ImageLimits, normalise
from das.images.structure import MAX_SCANS, check_structure

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (64, 96, 3), dtype=np.uint8)
SMOOTH = np.asarray(Image.fromarray(PIXELS).resize((640, 480)))
JPEG = saved(SMOOTH, "JPEG", progressive=True)
GIF = saved(Image.fromarray(PIXELS).quantize(256), "GIF")
WEBP = saved(np.dstack([PIXELS, PIXELS[..., 0]]), "WEBP")
AVIF = saved(PIXELS[:, :64], "AVIF")
PIXEL_LIMIT = ImageLimits(max_bytes=2**30)

PACKED = zlib.compress(bytes(1_000_000), 9)
COLOURS = {"bits": (8, 8, 8), "photometric": 2}


def big_tiff_of_tags(count: int) -> bytes:
    tags = b"".join(struct.pack("<HHQQ", 30_000, 1, 1, 0) for _ in range(count))
    return b"II+\0" + struct.pack("<HHQQ", 8, 0, 16, count) + tags + bytes(8)


def tiff_of_strips(count: int) -> bytes:
    """64 × 64 grey pixels of which every strip is the upper half."""
    data = bytearray(tiff(64, 64, bytes(64 * 64)))
    at = len(data)
    directory = struct.unpack_from("<I", data, 4)[0]
    for entry in range(struct.unpack_from("<H", data, directory)[0]):
        place = directory + 2 + 12 * entry
        match struct.unpack_from("<H", data, place)[0]:
            case 273:
                struct.pack_into("<II", data, place + 4, count, at)
            case 278:
                struct.pack_into("<II", data, place + 4, 1, 32)
    return bytes(data) + struct.pack(f"<{count}I", *[8] * count)


HOSTILE = {
    "jpeg-scans": lambda: jpeg_with_more_scans(JPEG, 200),
    "jpeg-comments": lambda: jpeg_with_segments(JPEG, jpeg_segment(0xFE, b"") * 1_000_000),
    "jpeg-tables": lambda: jpeg_with_segments(JPEG, jpeg_segment(0xDD, b"\0\0") * 1_000_000),
    "jpeg-starts": lambda: jpeg_with_segments(JPEG, b"\xff\xd8" * 1_000_000),
    "jpeg-nothing": lambda: jpeg_with_segments(JPEG, jpeg_segment(0xFE, b"") + bytes(5_000_000)),
    "jpeg-exif": lambda: jpeg_with_segments(JPEG, jpeg_segment(0xE1, b"Exif\0\0".ljust(60_000, b"\0")) * 100),
    "jpeg-photoshop": lambda: jpeg_with_segments(JPEG, jpeg_segment(0xED, b"Photoshop 3.0\0") * 100),
    "png-chunks": lambda: png(96, 64, PIXELS.tobytes(), before=png_chunk(b"teXt", b"") * 300_000),
    "png-chunks-after": lambda: png(96, 64, PIXELS.tobytes(), after=png_chunk(b"teXt", b"") * 300_000),
    "png-profiles": lambda: png(
        96, 64, PIXELS.tobytes(), before=png_chunk(b"iCCP", b"p\0\0" + PACKED) * 1000
    ),
    "png-texts": lambda: png(
        96, 64, PIXELS.tobytes(), after=png_chunk(b"zTXt", b"\0\0" + PACKED[:-4]) * 1000
    ),
    "png-exif": lambda: png(96, 64, PIXELS.tobytes(), before=png_chunk(b"eXIf", big_tiff_of_tags(300_000))),
    "gif-comment": lambda: gif_with_blocks(GIF, 254, b"\1x" * 1_000_000),
    "gif-extensions": lambda: gif_with_blocks(GIF, 1, b"\0" + b"\x21\1\0" * 1_000_000 + b"\x21\1"),
    "gif-nothing": lambda: gif_with_blocks(GIF, 1, b"\0" + b"." * 3_000_000 + b"\x21\1"),
    "webp-chunks": lambda: webp_with_chunks(WEBP, (b"ABCD" + bytes(4)) * 1_000_000),
    "webp-exif": lambda: webp_with_chunks(WEBP, b"EXIF" + struct.pack("<I", 6_000_000) + bytes(6_000_000)),
    "avif-tiles": lambda: avif_of_tiles(AVIF, 64, 64),
    "avif-frames": lambda: avif_of_frames(AVIF, 1000),
    "avif-boxes": lambda: AVIF + box(b"free") * 1_000_000,
    "tiff-tags": lambda: big_tiff_of_tags(1_000_000),
    "tiff-strips": lambda: tiff_of_strips(1_000_000),
    "tiff-tiny-tiles": lambda: tiff(
        4096, 4096, bytes(100), more={322: 1, 323: 1, 324: 8}, without=(273, 278, 279)
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_has_far_too_many_parts_is_refused_at_once(name: str) -> None:
    data = HOSTILE[name]()
    assert len(data) < 25_000_000
    begin = time.process_time()
    with pytest.raises(ImageRefused) as caught:
        normalise(data)
    assert caught.value.code == "too-many-parts"
    assert str(caught.value).endswith("without metadata.")
    assert time.process_time() - begin < 0.5


def test_a_hundred_scans_are_read_and_one_more_is_not() -> None:
    scans = JPEG.count(b"\xff\xda")
    np.testing.assert_array_equal(
        normalise(jpeg_with_more_scans(JPEG, 1)).pixels.shape, normalise(JPEG).pixels.shape
    )
    normalise(jpeg_with_more_scans(JPEG, MAX_SCANS - scans))
    with pytest.raises(ImageRefused, match="more than 100 times"):
        normalise(jpeg_with_more_scans(JPEG, MAX_SCANS - scans + 1))


def test_scans_cannot_hide_behind_what_decoders_pass_over() -> None:
    """Fill bytes before a marker, restart markers and a segment of a wrong length don't end the counting."""
    scan = JPEG[JPEG.rindex(b"\xff\xda") : -2]
    for between in (b"\xff\xff\xff", b"\xff\xd3", b"\0\0\0", b"\xff\xfe\0\0", b"\xff\x01"):
        with pytest.raises(ImageRefused, match="more than 100 times"):
            normalise(JPEG[:-2] + (between + scan) * 120 + JPEG[-2:])


def test_scans_of_a_second_picture_in_the_file_dont_count() -> None:
    """As in the files of stereo cameras, and of phones that keep a gain map."""
    np.testing.assert_array_equal(normalise(JPEG + JPEG * 50).pixels, normalise(JPEG).pixels)


def test_the_tiles_of_a_grid_are_read() -> None:
    # Colours at full size don't run over the tiles' edges.
    alone = saved(PIXELS[:, :64], "AVIF", subsampling="4:4:4")
    whole, tile = normalise(avif_of_tiles(alone, 3, 2)).pixels, normalise(alone).pixels
    assert whole.shape == (128, 192, 3)
    for row, column in itertools.product(range(2), range(3)):
        np.testing.assert_array_equal(whole[row * 64 :, column * 64 :][:64, :64], tile)


def test_boxes_in_boxes_in_boxes_are_no_trap() -> None:
    nested = AVIF + struct.pack(">I4s", 8_000_000, b"moov") * 1_000_000
    assert normalise(nested).pixels.shape == (64, 64, 3)


def test_a_picture_of_a_few_frames_one_over_the_other_is_read() -> None:
    assert normalise(avif_of_frames(AVIF, 3)).pixels.shape == (64, 64, 3)


@cache
def honest_files() -> list[tuple[str, bytes]]:
    """Everything that Pillow can write of the accepted formats, by its options."""
    rgb = Image.fromarray(SMOOTH)
    frames = [Image.fromarray(RNG.integers(0, 256, (32, 40, 3), dtype=np.uint8)) for _ in range(30)]
    films = {"save_all": True, "append_images": frames[1:], "duration": 20}
    exif = Image.Exif()
    exif[0x0112] = 1
    exif[0x010E] = "d" * 40_000
    files = []
    for progressive, sampling, optimise, restart, extra in itertools.product(
        (False, True),
        ("4:4:4", "4:2:0"),
        (False, True),
        ({}, {"restart_marker_blocks": 1}, {"restart_marker_rows": 1}),
        ({}, {"exif": exif, "comment": b"c" * 60_000, "icc_profile": bytes(300_000), "xmp": b"x" * 60_000}),
    ):
        options = {
            "progressive": progressive,
            "subsampling": sampling,
            "optimize": optimise,
            **restart,
            **extra,
        }
        files.append(("JPEG", saved(rgb, "JPEG", **options)))
    for mode in ("L", "CMYK"):
        files.append(("JPEG", saved(rgb.convert(mode), "JPEG", progressive=True)))
    # Of copies: Pillow keeps the options of a picture's last saving in it.
    stereo = [frame.copy() for frame in frames[:2]]
    files.append(("JPEG", saved(stereo[0], "MPO", save_all=True, append_images=stereo[1:])))
    for mode, level in itertools.product(("1", "L", "LA", "P", "RGB", "RGBA", "I;16"), (0, 1, 9)):
        picture = rgb.convert("L").convert(mode) if mode == "I;16" else rgb.convert(mode)
        files.append(("PNG", saved(picture, "PNG", compress_level=level, exif=exif)))
    files.append(("PNG", saved(frames[0], "PNG", **films)))
    files += [("GIF", saved(rgb.convert("P"), "GIF", interlace=i, comment=b"c" * 9000)) for i in (0, 1)]
    files.append(("GIF", saved(frames[0], "GIF", **films)))
    for lossless, method in itertools.product((False, True), (0, 4)):
        files.append(("WEBP", saved(rgb, "WEBP", lossless=lossless, method=method, exif=exif)))
    files.append(("WEBP", saved(frames[0], "WEBP", **films)))
    for sampling, tiles in itertools.product(("4:4:4", "4:2:0", "4:0:0"), (0, 2)):
        options = {"subsampling": sampling, "tile_rows": tiles, "tile_cols": tiles, "speed": 10, "exif": exif}
        files.append(("AVIF", saved(rgb, "AVIF", autotiling=False, **options)))
    files.append(("AVIF", saved(Image.fromarray(np.dstack([SMOOTH, SMOOTH[..., 0]])), "AVIF", speed=10)))
    files.append(("AVIF", saved(frames[0], "AVIF", speed=10, **films)))
    kinds = [None, "packbits", "tiff_adobe_deflate", "tiff_lzw", "jpeg", "zstd", "lzma"]
    for kind, strip, big in itertools.product(kinds, (1, 16384, 1 << 20), (False, True)):
        strip = max(strip, 8 * 3 * rgb.width) if kind == "jpeg" else strip
        options = {"compression": kind, "big_tiff": big, "exif": exif, "strip_size": strip}
        files.append(("TIFF", saved(rgb, "TIFF", **options)))
    files += [("TIFF", saved(rgb.convert("1"), "TIFF", compression=kind)) for kind in ("group3", "group4")]
    files.append(("TIFF", saved(frames[0], "TIFF", **films)))
    return files


def test_everything_that_pillow_writes_is_read() -> None:
    assert features.check("avif")
    files = honest_files()
    assert len(files) > 130
    for format, data in files:
        check_structure(data, format)
        assert normalise(data).format == format


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "WEBP", "AVIF", "TIFF"])
def test_counting_a_damaged_file_ends_and_says_nothing_else(format: str) -> None:
    """Whatever the bytes are: counted, or refused with this code."""
    chance, codes = random.Random(0), set()
    ones = [data for kind, data in honest_files() if kind == format]
    for _ in range(300):
        data = bytearray(chance.choice(ones))
        for _ in range(chance.randint(1, 20)):
            data[chance.randrange(min(len(data), chance.choice((60, 600, 60_000))))] = chance.randrange(256)
        del data[chance.randrange(len(data)) :]
        try:
            check_structure(bytes(data), format)
        except ImageRefused as refusal:
            codes.add(refusal.code)
    assert codes <= {"too-many-parts"}


@pytest.mark.parametrize(
    ("format", "make"),
    [
        ("JPEG", lambda: saved(RNG.integers(0, 256, (3000, 3600, 3), dtype=np.uint8), "JPEG", quality=98)),
        (
            "PNG",
            lambda: saved(RNG.integers(0, 256, (2800, 3000, 3), dtype=np.uint8), "PNG", compress_level=1),
        ),
        ("GIF", lambda: saved(Image.fromarray(RNG.integers(0, 256, (4000, 4500), dtype=np.uint8)), "GIF")),
    ],
)
def test_counting_costs_little(format: str, make: Callable[[], bytes]) -> None:
    """Of files of 15 to 25 MB."""
    data = make()
    assert 12_000_000 < len(data) < 30_000_000
    seconds = []
    for _ in range(3):
        begin = time.process_time()
        check_structure(data, format)
        seconds.append(time.process_time() - begin)
    assert min(seconds) < 0.2
