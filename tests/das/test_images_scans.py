"""JPEGs whose picture breaks off before their end marker are refused; whole ones never are, whatever is in them."""

import io
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image

from das.errors import ImageRefused
from das.images import normalise
from das.images.scans import breaks_off

WAYS: tuple[dict[str, Any], ...] = (
    {}, {"progressive": True}, {"subsampling": 0}, {"subsampling": 1}, {"subsampling": 2}, {"optimize": True},
    {"restart_marker_blocks": 3}, {"restart_marker_rows": 1}, {"restart_marker_rows": 1, "progressive": True},
)  # fmt: skip
QUALITIES = (5, 50, 95)


def photo(width: int, height: int) -> Image.Image:
    """Something like a photograph: soft shapes with noise."""
    rng = np.random.default_rng(width * height)
    small = Image.fromarray(rng.integers(0, 256, (height // 16, width // 16, 3), dtype=np.uint8))
    soft = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC), dtype=int)
    return Image.fromarray((soft + rng.integers(-12, 13, soft.shape)).clip(0, 255).astype(np.uint8))


def grey_below(image: Image.Image) -> Image.Image:
    """The picture with a lower half that is as grey as what a decoder makes of nothing."""
    image.paste((128, 128, 128), (0, image.height // 2, image.width, image.height))
    return image


WHOLE = {
    "photo": photo(333, 257),
    "grey below": grey_below(photo(320, 240)),
    "grey": Image.new("RGB", (200, 150), (128, 128, 128)),
    "white": Image.new("RGB", (64, 64), "white"),
    "one channel": photo(120, 90).convert("L"),
    "grey channel": Image.new("L", (99, 77), 128),
    "nearly that grey": Image.new("L", (99, 77), 127),
    "cmyk": photo(160, 120).convert("CMYK"),
    "grey cmyk": Image.new("CMYK", (80, 80), (127, 127, 127, 127)),
    "small": Image.new("RGB", (8, 8), (128, 128, 128)),
}


def saved(image: Image.Image, **way: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, "JPEG", **way)
    return out.getvalue()


def scans(data: bytes) -> Iterator[tuple[int, int]]:
    """Where the coded data of each scan begins and ends."""
    at = 2
    while data[at + 1] != 0xD9:
        length = 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        marker, at = data[at + 1], at + length
        if marker == 0xDA:
            begin = at
            while data[at] != 0xFF or data[at + 1] in (0, *range(0xD0, 0xD8)):
                at += 1
            yield begin, at


def cut(data: bytes, part: float) -> bytes:
    """The file with this part of its first scan, and an end marker right behind."""
    begin, end = next(scans(data))
    return data[: begin + int((end - begin) * part)].rstrip(b"\xff") + b"\xff\xd9"


@pytest.mark.parametrize("name", WHOLE)
def test_no_whole_picture_is_refused(name: str) -> None:
    for quality, way in itertools.product(QUALITIES, WAYS):
        data = saved(WHOLE[name], quality=quality, **way)
        assert normalise(data).format == "JPEG"
        # What follows the picture, such as another one, is nothing to it.
        assert normalise(data + data).format == "JPEG"


def test_no_photograph_of_any_size_is_refused() -> None:
    rng = np.random.default_rng(0)
    for _ in range(150):
        image = photo(*map(int, rng.integers(32, 200, 2)))
        image.paste((128, 128, 128), (image.width - 9, image.height - 9, image.width, image.height))
        way = WAYS[rng.integers(len(WAYS))]
        normalise(saved(image, quality=int(rng.integers(1, 100)), **way))


@pytest.mark.parametrize("part", [0.05, 0.3, 0.5])
@pytest.mark.parametrize("name", ["photo", "one channel", "cmyk"])
def test_what_breaks_off_is_refused(name: str, part: float) -> None:
    for quality, way in itertools.product(QUALITIES, WAYS):
        data = cut(saved(WHOLE[name], quality=quality, **way), part)
        with pytest.raises(ImageRefused) as refused:
            normalise(data)
        assert refused.value.code == "truncated", (quality, way)


def test_the_last_bits_of_a_picture_may_be_missing() -> None:
    data = saved(WHOLE["grey below"], quality=80)
    normalise(data[:-3] + b"\xff\xd9")


def test_a_progressive_picture_without_its_last_passes_is_a_whole_one() -> None:
    data = saved(WHOLE["grey below"], progressive=True)
    for _, end in list(scans(data))[:-1]:
        normalise(data[:end] + b"\xff\xd9")


def test_what_cannot_be_told_is_not_told() -> None:
    data = saved(WHOLE["photo"])
    image = Image.new("RGB", (64, 64), (128, 128, 128))
    for damaged in (b"", b"\xff\xd8", data[:-2], data[:-2] + b"\xff\xff\xff\xd9"):
        assert not breaks_off(damaged, image)
