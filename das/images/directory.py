"""What the first picture of a TIFF file consists of, from its directory: tags, strips or tiles."""

import math
from collections.abc import Iterator

MAX_TAGS = 10_000
MAX_TILES = 150_000
"""Strips of one row, of each colour apart, of the tallest picture that is read; or tiles of 16 × 16."""
MAX_TILE_PIXELS = 400_000_000

_WIDTH, _HEIGHT, _SAMPLES, _ROWS_PER_STRIP, _PLANAR = 256, 257, 277, 278, 284
_STRIP_OFFSETS, _TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS = 273, 322, 323, 324
_SIZES = {1: 1, 3: 2, 4: 4, 16: 8}  # bytes of the types that numbers are given in

Count = tuple[int, int, str]
"""How many parts there are, how many there may be, and words with {} for the latter."""


def count_tiff(data: bytes) -> Iterator[Count]:
    """Every count of a TIFF file that is bounded."""
    order = "little" if data.startswith(b"II") else "big"

    def number(begin: int, size: int) -> int:
        return int.from_bytes(data[begin : begin + size], order)  # type: ignore[arg-type]

    big = number(2, 2) == 43
    word, of_count, of_entry = (8, 8, 20) if big else (4, 2, 12)
    directory = number(8, 8) if big else number(4, 4)
    tags = min(number(directory, of_count), max(len(data) - directory, 0) // of_entry)
    yield tags, MAX_TAGS, "has more than {} tags"

    values: dict[int, tuple[int, int]] = {}  # of a tag, how many values it has and the first one
    for entry in range(tags):
        at = directory + of_count + entry * of_entry
        tag, kind, count = number(at, 2), number(at + 2, 2), number(at + 4, word)
        if tag not in values and kind in _SIZES:
            place = at + 4 + word
            here = count * _SIZES[kind] <= word
            values[tag] = count, number(place if here else number(place, word), _SIZES[kind])

    width, height = (values.get(tag, (1, 0))[1] for tag in (_WIDTH, _HEIGHT))
    planes = values.get(_SAMPLES, (1, 1))[1] if values.get(_PLANAR, (1, 1))[1] == 2 else 1
    if _STRIP_OFFSETS in values:
        across, down, given = width, values.get(_ROWS_PER_STRIP, (1, height))[1], values[_STRIP_OFFSETS][0]
    elif _TILE_OFFSETS in values:
        across, down = (values.get(tag, (1, 0))[1] for tag in (_TILE_WIDTH, _TILE_HEIGHT))
        given = values[_TILE_OFFSETS][0]
        yield across * down, MAX_TILE_PIXELS, "has tiles of more than {} pixels"
    else:
        return
    if not (across and down and width and height):
        return  # damaged
    tiles = math.ceil(width / across) * math.ceil(height / down) * planes
    yield tiles, MAX_TILES, "is cut into more than {} strips or tiles"
    # Each of the others would be painted over the whole picture once more.
    yield given, tiles, "has more than the {} strips or tiles that its picture consists of"
