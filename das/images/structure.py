"""How many parts a picture file consists of, counted before any of them is decoded.

A small file can ask for hours of work: a JPEG that goes over its picture thousands of times, an AVIF of tens of
thousands of tiles, a PNG of a million empty chunks. Here only the lengths are read that say where the next part
begins, and a file with more parts than any program writes is refused. What is damaged is left to the decoder, which
says so. Counting ends at the bound, so it takes hardly longer for a hostile file than for an honest one.
"""

import re
from collections import Counter

from das.errors import ImageRefused
from das.images.boxes import count_avif
from das.images.directory import count_tiff

MAX_SCANS = 100
"""Times that a JPEG may go over its picture. Encoders write 10, the thriftiest about 20; libtiff allows 100, too."""

# Small parts cost the same whether they hold anything. So many are free, and one more for so many bytes of the file.
MAX_PARTS = 10_000
BYTES_PER_PART = 2_000
MAX_PACKED_TEXTS = 200  # of a PNG; each may unpack to a megabyte
MAX_JOINED_SEGMENTS = 64  # of EXIF or Photoshop data in a JPEG: 4 MB
MAX_EXIF_BYTES = 4_000_000
MAX_SKIPPED_BYTES = 1_000_000  # before a JPEG's picture that belong to no segment
GIF_BYTES_PER_BLOCK = 100  # writers fill their blocks of 255

_JPEG_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")  # no stuffed byte, no restart
_GIF_EXTENSION, _GIF_FRAME, _GIF_END = 0x21, 0x2C, 0x3B
_TEM, _SOI, _EOI, _SOS = 0x01, 0xD8, 0xD9, 0xDA
_GIF_EXTENSION, _GIF_FRAME, _GIF_END = 0x21, 0x2C, 0x3B


def check_structure(data: bytes, format: str) -> None:
    """Raise `ImageRefused` with code "too-many-parts" if `data`, a file in `format`, has more parts than it may."""
    match format:
        case "JPEG":
            _check_jpeg(data)
        case "PNG":
            _check_png(data)
        case "GIF":
            _check_gif(data)
        case "WEBP":
            _check_webp(data)
        case "AVIF":
            for parts, bound, words in count_avif(data):
                _refuse_above(bound, parts, f"This AVIF file {words}")
        case "TIFF":
            for parts, bound, words in count_tiff(data):
                _refuse_above(bound, parts, f"This TIFF file {words}")


def _check_jpeg(data: bytes) -> None:
    segments = scans = skipped = 0
    joined: Counter[int] = Counter()
    most = MAX_PARTS + len(data) // BYTES_PER_PART
    at = 2
    while found := _JPEG_MARKER.search(data, at):
        marker = data[found.start() + 1]
        if marker == _EOI and scans:
            return  # what comes after is another picture, which isn't read
        if not scans:
            skipped += found.start() - at
        segments += 1
        scans += marker == _SOS
        at = found.end()
        if data.startswith((b"Exif\0\0", b"Photoshop 3.0\0"), at + 2):
            joined[marker] += 1
        if (
            segments > most
            or skipped > MAX_SKIPPED_BYTES
            or max(joined.values(), default=0) > MAX_JOINED_SEGMENTS
        ):
            raise _too_many(
                "This JPEG file carries more data beside its picture, in more pieces, than is read here"
            )
        _refuse_above(MAX_SCANS, scans, "This JPEG file goes over its picture more than {} times")
        if marker not in (_TEM, _SOI, _EOI):
            at += max(int.from_bytes(data[at : at + 2], "big"), 2)


def _check_png(data: bytes) -> None:
    at, chunks, packed = 8, 0, 0
    most = MAX_PARTS + len(data) // BYTES_PER_PART
    while at < len(data):
        length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        if kind == b"IEND":
            return
        chunks += 1
        packed += kind in (b"zTXt", b"iTXt", b"iCCP")
        _refuse_above(most, chunks, "This PNG file consists of more than {} chunks")
        _refuse_above(
            MAX_PACKED_TEXTS, packed, "This PNG file carries more than {} packed texts and profiles"
        )
        if kind == b"eXIf":
            _check_exif(length)
        at += 12 + length


def _check_gif(data: bytes) -> None:
    """Blocks up to the second frame, as far as Pillow looks; it passes over what is no block byte by byte."""
    at = 13 + (3 << (data[10] & 7) + 1 if len(data) > 10 and data[10] & 128 else 0)
    blocks = frames = 0
    most = MAX_PARTS + len(data) // GIF_BYTES_PER_BLOCK
    inside = False  # a chain of blocks, which one of length 0 ends
    while at < len(data) and frames < 2:
        blocks += 1
        _refuse_above(most, blocks, "This GIF file consists of more than {} blocks")
        kind = data[at]
        if inside:
            inside = kind > 0
            at += 1 + kind
        elif kind == _GIF_END:
            return
        elif kind == _GIF_FRAME:
            frames += 1
            flags = data[at + 9] if at + 9 < len(data) else 0
            at += 11 + (3 << (flags & 7) + 1 if flags & 128 else 0)
            inside = True
        else:
            inside = kind == _GIF_EXTENSION
            at += 2 if inside else 1


def _check_webp(data: bytes) -> None:
    at, chunks = 12, 0
    most = MAX_PARTS + len(data) // BYTES_PER_PART
    while at < len(data):
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        chunks += 1
        _refuse_above(most, chunks, "This WebP file consists of more than {} chunks")
        if data.startswith(b"EXIF", at):
            _check_exif(length)
        at += 8 + length + length % 2


def _check_exif(length: int) -> None:
    if length > MAX_EXIF_BYTES:
        raise _too_many(f"This file carries {length / 1e6:.1f} MB of camera data (EXIF)")


def _refuse_above(bound: int, parts: int, words: str) -> None:
    if parts > bound:
        raise _too_many(words.format(f"{bound:,}"))


def _too_many(words: str) -> ImageRefused:
    return ImageRefused(
        "too-many-parts",
        f"{words}. No picture needs that, and reading it could take for ever. Open it in an image program and save"
        " it anew, without metadata.",
    )
