"""What an AVIF file consists of, from the lengths and tables in it: boxes, items, tiles, frames.

The boxes are those of ISO/IEC 14496-12 and 23008-12; in them lie open bitstream units of AV1 (section 5.3 there).
"""

from collections.abc import Iterator

MAX_BOXES = 10_000
MAX_ITEMS = 2_000
MAX_TILES = 1_024
"""Of one picture. Phones write tiles of 512 × 512, so 160 of them in forty megapixels."""
MAX_FRAMES = 16
"""Coded one after the other for one picture; layered files have up to 4."""
MAX_PIECES = 10_000
MAX_EXIF_BYTES = 4_000_000

MAX_UNITS = 1_000
"""Of the bitstream, for one picture: a few, and one for each of its tiles where they come apart."""

_MAX_DEPTH = 8
_FRAME_HEADER, _FRAME = 3, 6
_IN_FILE = 0  # construction method: offsets count from the file's beginning
_CONTAINERS = {b"moov", b"trak", b"mdia", b"minf", b"stbl", b"iprp", b"ipco"}

_TOO_MANY_FRAMES = "holds a picture of more than {} frames one over the other"

Count = tuple[int, int, str]
"""How many parts there are, how many there may be, and words with {} for the latter."""


def count_avif(data: bytes) -> Iterator[Count]:
    """Every count of an AVIF file that is bounded."""
    boxes = dict[bytes, list[tuple[int, int]]]()
    number = 0
    for kind, begin, end in _walk(data, 0, len(data)):
        number += 1
        boxes.setdefault(kind, []).append((begin, end))
        if number > MAX_BOXES:
            break
    yield number, MAX_BOXES, "consists of more than {} boxes"

    types: dict[int, bytes] = {}
    for begin, end in boxes.get(b"infe", []):
        wide = data[begin : begin + 1] == b"\x03"
        at = begin + 4 + (4 if wide else 2)
        types[_number(data, begin + 4, at)] = data[at + 2 : min(at + 6, end)]
    yield len(types), MAX_ITEMS, "holds more than {} items"

    of_id = 4 if any(data[begin : begin + 1] == b"\x01" for begin, _ in boxes.get(b"iref", [])) else 2
    for begin, end in boxes.get(b"dimg", []):
        yield (end - begin) // of_id, MAX_TILES + 2, "is put together from more than {} tiles"

    pieces = joined = 0
    for item, extents in _places(data, boxes.get(b"iloc", [])):
        pieces += 1 + len(extents)
        yield pieces, MAX_PIECES, "is cut into more than {} pieces"
        holds = types.get(item)
        size = sum(length for _, length in extents)
        if holds == b"av01" and len(extents) == 1:
            (place,) = extents
            yield _frames(data, place[0], place[0] + size), MAX_FRAMES, _TOO_MANY_FRAMES
        elif holds == b"av01":
            joined += size
            yield joined, 2 * len(data), "joins its pieces to more than {} bytes"
            coded = b"".join(data[begin : begin + length] for begin, length in extents)
            yield _frames(coded, 0, size), MAX_FRAMES, _TOO_MANY_FRAMES
        if holds == b"Exif":
            yield size, MAX_EXIF_BYTES, "carries more than {} bytes of camera data (EXIF)"
    for first in _first_samples(data, boxes):
        yield _frames(data, *first), MAX_FRAMES, _TOO_MANY_FRAMES


def _walk(data: bytes, at: int, end: int, depth: int = 0) -> Iterator[tuple[bytes, int, int]]:
    """Kind, begin and end of the contents of every box between `at` and `end`, and in the boxes in it."""
    while at + 8 <= end:
        length, kind, begin = _number(data, at, at + 4), data[at + 4 : at + 8], at + 8
        if length == 1:
            length, begin = _number(data, begin, begin + 8), begin + 8
        stop = end if length == 0 else min(at + length, end)
        if stop < begin:
            return
        yield kind, begin, stop
        inside = begin
        if kind in (b"meta", b"iref"):
            inside += 4
        elif kind == b"iinf":
            inside += 6 if data[begin : begin + 1] == b"\0" else 8
        elif kind not in _CONTAINERS:
            inside = stop
        if depth < _MAX_DEPTH:
            yield from _walk(data, inside, stop, depth + 1)
        at = stop


def _places(data: bytes, boxes: list[tuple[int, int]]) -> Iterator[tuple[int, list[tuple[int, int]]]]:
    """Every item's number with the offsets and lengths of its pieces in the file, as the `iloc` boxes say."""
    for begin, end in boxes:
        version = _number(data, begin, begin + 1)
        widths = _number(data, begin + 4, begin + 6)
        of_offset, of_length, of_base = widths >> 12, widths >> 8 & 15, widths >> 4 & 15
        of_index = widths & 15 if version else 0
        of_item = 4 if version == 2 else 2
        at = begin + 6 + of_item
        while at < end:
            item = _number(data, at, at + of_item)
            at += of_item
            method = _number(data, at, at + 2) & 15 if version else _IN_FILE
            at += (2 if version else 0) + 2
            base = _number(data, at, at + of_base)
            at += of_base
            count = _number(data, at, at + 2)
            at += 2
            pieces = []
            for _ in range(count if at < end else 0):
                offset = base + _number(data, at + of_index, at + of_index + of_offset)
                at += of_index + of_offset
                pieces.append((offset, _number(data, at, at + of_length)))
                at += of_length
            if method == _IN_FILE:
                yield item, pieces


def _first_samples(data: bytes, boxes: dict[bytes, list[tuple[int, int]]]) -> Iterator[tuple[int, int]]:
    """Begin and end of the first picture of each track of a film."""
    offsets = [_number(data, begin + 8, begin + 12) for begin, _ in boxes.get(b"stco", [])]
    offsets += [_number(data, begin + 8, begin + 16) for begin, _ in boxes.get(b"co64", [])]
    for (begin, _), offset in zip(boxes.get(b"stsz", []), offsets, strict=False):
        same = _number(data, begin + 4, begin + 8)
        yield offset, offset + (same or _number(data, begin + 12, begin + 16))


def _frames(coded: bytes, at: int, end: int) -> int:
    """Frames in a stretch of AV1; more than may be if it is made of too many units to tell."""
    frames = 0
    for _ in range(MAX_UNITS):
        if at >= min(end, len(coded)) or frames > MAX_FRAMES:
            return frames
        header = coded[at]
        frames += (header >> 3 & 15) in (_FRAME_HEADER, _FRAME)
        at += 2 if header & 4 else 1
        if not header & 2:
            return frames  # the last one needs no length
        size = shift = 0
        while at < len(coded) and shift < 56:
            size |= (coded[at] & 127) << shift
            shift += 7
            at += 1
            if coded[at - 1] < 128:
                break
        at += size
    return MAX_FRAMES + 1


def _number(data: bytes, begin: int, end: int) -> int:
    return int.from_bytes(data[begin:end], "big")
