"""PDQ: a hash of what a picture looks like, 256 bits, of which a re-encoded or resized copy changes few.

The algorithm is Meta's (ThreatExchange, "The TMK+PDQF video-hashing algorithm and the PDQ image-hashing
algorithm", 2019): luminance, a tent filter, 64 × 64 samples, the 16 × 16 lowest frequencies of their cosine
transform without the constant one, and a bit for each that is above the median. Filter and sampling are linear, so
they are one matrix for the rows and one for the columns. No torch in here; a decision tells why it isn't a package's
(docs/decisions/0021-copies-are-another-verdict.md).
"""

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
from PIL import Image

BITS = 256
BYTES = BITS // 8
_WORDS = BITS // 64
_CHUNK = 8192
"""Hashes that are compared at once: a core's cache holds what is made of them."""

SIDE = 64
"""Samples a side."""

LARGEST_SIDE = 512
"""Larger pictures are first made smaller to this, as by the reference: the filter's cost grows with the sides."""

SMALLEST_SIDE = 5
"""Pictures with a smaller side have no hash: all zeros, of quality 0."""

_FREQUENCIES = 16
_LUMA = np.array([0.299, 0.587, 0.114])
_FULL_QUALITY = 100
_GRADIENTS_A_POINT = 90


def pdq(pixels: np.ndarray) -> tuple[np.ndarray, int]:
    """The hash (32,) uint8 of a picture (H, W, 3) uint8 sRGB, and its quality from 0 to 100.

    The hash's hexadecimal form is PDQ's. Quality counts the differences between neighbouring
    samples: a flat or blurred picture has little, and its bits say little.
    """
    if min(pixels.shape[:2]) < SMALLEST_SIDE:
        return np.zeros(BYTES, np.uint8), 0
    samples = _samples(pixels)
    return _hash(_cosines() @ samples @ _cosines().T), _quality(samples)


def distances(hashes: np.ndarray, asked: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """In how many bits hashes (N, 32) uint8 differ from each of some (Q, 32): the first row and (Q, n) uint16, for
    some rows after another, overwritten by those that come next."""
    queries, size = np.ascontiguousarray(asked).view(np.uint64), min(_CHUNK, len(hashes))
    words, differing = np.empty((2, _WORDS, size), np.uint64)
    bits, found = np.empty((_WORDS, size), np.uint8), np.empty((len(asked), size), np.uint16)
    for start in range(0, len(hashes), _CHUNK):
        piece = np.ascontiguousarray(hashes[start : start + _CHUNK]).view(np.uint64)
        width = len(piece)
        # Word by word, so that each step goes through one stretch of memory that the cache holds.
        words[:, :width] = piece.T
        for query, total in zip(queries, found, strict=True):
            np.bitwise_xor(words, query[:, None], out=differing)
            np.bitwise_count(differing, out=bits)
            np.sum(bits, 0, np.uint16, out=total)
        yield start, found[:, :width]


def _samples(pixels: np.ndarray) -> np.ndarray:
    """(64, 64) float64: the luminance under a tent filter as wide as two samples, at evenly spaced places."""
    height, width = (min(side, LARGEST_SIDE) for side in pixels.shape[:2])
    if (height, width) != pixels.shape[:2]:
        pixels = np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BOX))
    luma = pixels @ _LUMA
    samples: np.ndarray = _sampler(height) @ luma @ _sampler(width).T
    return samples


@lru_cache(maxsize=64)
def _sampler(length: int) -> np.ndarray:
    """(64, length): two passes of a running mean, and the samples at the middles of 64 equal parts.

    A side shorter than 64 isn't filtered, and its values are taken more than once.
    """
    window = -(-length // (2 * SIDE))
    before = (window + 2) // 2 - 1  # how far an even window reaches ahead, one farther than back
    place = np.arange(length)
    offset = place[None] - place[:, None]
    box = ((offset <= before) & (offset > before - window)).astype(np.float64)
    box /= box.sum(1, keepdims=True)  # at the edges the mean is over fewer
    middles = ((np.arange(SIDE) + 0.5) * length / SIDE).astype(np.int64)
    return (box @ box)[middles]


@lru_cache(maxsize=1)
def _cosines() -> np.ndarray:
    """(16, 64): the waves 1 to 16 of the discrete cosine transform; the constant one is left out."""
    wave, place = np.arange(1, _FREQUENCIES + 1)[:, None], np.arange(SIDE)[None]
    waves: np.ndarray = np.sqrt(2 / SIDE) * np.cos(np.pi / (2 * SIDE) * wave * (2 * place + 1))
    return waves


def _hash(transform: np.ndarray) -> np.ndarray:
    """(32,) uint8 of a transform (16, 16); its last bit is the lowest frequency's, as in the reference."""
    values = transform.ravel()
    median = np.partition(values, BITS // 2 - 1)[BITS // 2 - 1]  # the lower of the middle two
    return np.packbits(values[::-1] > median)


def _quality(samples: np.ndarray) -> int:
    """Differences of neighbours in whole percent of the range, summed; only those of a percent or more count."""
    total = sum(int(np.abs(np.trunc(np.diff(samples, axis=axis) * 100 / 255)).sum()) for axis in (0, 1))
    return min(_FULL_QUALITY, total // _GRADIENTS_A_POINT)
