"""Whether a JPEG's picture breaks off before its end marker, which its decoder fills with grey and doesn't tell.

The test: what follows a whole picture is never read, so bytes put between it and the end marker change nothing. Where
they change what is decoded, the decoder was still in want of data.
"""

import hashlib
import io
import re

import numpy as np
import numpy.typing as npt
from PIL import Image

# What an inverse transform makes of coefficients that aren't there; 127 where the values are stored inverted.
GREY = (127, 128)
# Huffman coded: baseline, extended, progressive. An arithmetic coder may leave out the zeros at its end.
FRAMES = (0xC0, 0xC1, 0xC2)
SOS, EOI = 0xDA, 0xD9
_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")  # no stuffed byte, no restart
_FILL = hashlib.shake_128(b"some coefficients").digest(4096).replace(b"\xff", b"\x7f")
# Data for the interval that broke off, and for those after it: restart markers count to eight, whichever comes next.
_MORE = _FILL + b"".join(bytes((0xFF, 0xD0 + number % 8)) + _FILL[:256] for number in range(64))
# Pictures are compared at an eighth of their size, at which the largest unit of coding (32 × 32 pixels) is this much.
# An encoder that left out its last few bits costs one unit and is forgiven.
ONE_UNIT = 16


def breaks_off(data: bytes, image: Image.Image) -> bool:
    """Whether the picture of a JPEG file, which was decoded without an error, has more than a last piece missing.

    True is sure. A progressive file that lacks whole passes is none of these: it has the whole picture, less sharp.
    """
    corner = np.asarray(image.crop((image.width - 4, image.height - 4, image.width, image.height)))
    if not np.isin(corner, GREY).all():
        return False
    end = _end_of_scans(data)
    if end is None:
        return False
    try:
        whole, more = (_eighth(one) for one in (data, data[:end] + _MORE + data[end:]))
    except Exception:  # noqa: BLE001 (what the decoder makes of it can't be told, so nothing is said)
        return False
    if whole.shape != more.shape:
        return False
    differing = whole != more
    return int((differing if differing.ndim == 2 else differing.any(axis=2)).sum()) > ONE_UNIT


def _eighth(data: bytes) -> npt.NDArray[np.uint8]:
    with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
        image.draft(None, (1, 1))
        return np.array(image)


def _end_of_scans(data: bytes) -> int | None:
    """Where the end marker of the file's first picture is; None where it has none, or is coded in another way."""
    at, begun = 2, False
    while found := _MARKER.search(data, at):
        marker = data[found.start() + 1]
        if marker == EOI and begun:
            end = found.start()
            while data[end - 1] == 0xFF:
                end -= 1
            return end
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC) and marker not in FRAMES:
            return None
        begun |= marker == SOS
        at = found.end()
        if marker not in (0x01, 0xD8, EOI):
            at += max(int.from_bytes(data[at : at + 2], "big"), 2)
    return None
