"""The files that `das.images` writes itself."""

import io

import numpy as np
import pytest
from image_files import saved
from PIL import Image

from das.errors import ImageRefused
from das.images import THUMBNAIL_MEDIA_TYPE, decode_png, encode_png, encode_thumbnail, normalise

PIXELS = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)


def smooth(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 255 // width, y * 255 // height, np.full_like(x, 90)], axis=2).astype(np.uint8)


def test_png_comes_back_bit_for_bit_and_carries_nothing_else():
    data = encode_png(PIXELS)

    np.testing.assert_array_equal(decode_png(data), PIXELS)
    np.testing.assert_array_equal(normalise(data).pixels, PIXELS)
    assert Image.open(io.BytesIO(data)).info == {}
    assert encode_png(PIXELS) == data


def test_a_view_that_is_not_contiguous_is_encoded_rightly():
    view = PIXELS[::-2, ::3]
    np.testing.assert_array_equal(decode_png(encode_png(view)), view)


@pytest.mark.parametrize(
    "data",
    [b"", b"nothing", encode_png(PIXELS)[:400], saved(PIXELS[..., 0], "PNG"), saved(PIXELS, "GIF")],
)
def test_decode_png_refuses_what_encode_png_did_not_write(data):
    with pytest.raises(ImageRefused) as caught:
        decode_png(data)
    assert caught.value.code == "damaged"


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [
        (512, 512, (256, 256)),
        (300, 900, (85, 256)),
        (900, 300, (256, 85)),
        (20, 5000, (1, 256)),
        (256, 256, (256, 256)),
        (32, 40, (32, 40)),
    ],
)
def test_a_thumbnail_keeps_the_aspect_and_is_never_enlarged(height, width, expected):
    data = encode_thumbnail(smooth(height, width))
    with Image.open(io.BytesIO(data)) as image:
        assert (image.height, image.width) == expected
        assert Image.MIME[image.format] == THUMBNAIL_MEDIA_TYPE
        assert not {"exif", "xmp", "icc_profile"} & set(image.info)


def test_a_thumbnail_looks_like_its_picture():
    pixels = smooth(512, 512)
    with Image.open(io.BytesIO(encode_thumbnail(pixels, max_side=128))) as image:
        thumbnail = np.asarray(image.convert("RGB")).astype(float)

    exact = pixels.reshape(128, 4, 128, 4, 3).mean(axis=(1, 3))
    assert np.abs(thumbnail - exact).mean() < 3


@pytest.mark.parametrize(
    "pixels",
    [PIXELS.astype(np.float32), PIXELS[..., 0], PIXELS[..., :2], PIXELS[:0], np.zeros((4, 4, 4), np.uint8)],
)
def test_anything_but_rgb_bytes_is_a_programming_error(pixels):
    for encode in (encode_png, encode_thumbnail):
        with pytest.raises(ValueError, match=r"\(H, W, 3\) uint8"):
            encode(pixels)
