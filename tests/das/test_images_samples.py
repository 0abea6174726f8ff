"""Sample layouts that `das.images.normalise` brings to 8 bits over white: depth, palettes, opacity."""

import struct

import numpy as np
import pytest
from image_files import (
    ADOBE_RGB,
    PNG_GREY,
    PNG_GREY_ALPHA,
    PNG_PALETTE,
    PNG_RGB,
    PNG_RGBA,
    linear_to_srgb,
    png,
    png_chunk,
    rgb_profile,
    saved,
    tiff,
)
from PIL import Image

from das.images import normalise


def solid(colour, mode: str = "RGB", size: tuple[int, int] = (16, 16)) -> Image.Image:
    return Image.new(mode, size, colour)


def noise(height: int = 24, width: int = 32, channels: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


# --- depth ---

GRADIENT16 = np.linspace(0, 65535, 16 * 16).astype(np.uint16).reshape(16, 16)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(png(16, 16, GRADIENT16.astype(">u2").tobytes(), depth=16, colour=PNG_GREY), id="png"),
        pytest.param(tiff(16, 16, GRADIENT16.astype("<u2").tobytes(), bits=(16,)), id="tiff-little"),
        pytest.param(tiff(16, 16, GRADIENT16.astype(">u2").tobytes(), bits=(16,), order=">"), id="tiff-big"),
        pytest.param(saved(Image.fromarray(GRADIENT16), "TIFF", compression="tiff_lzw"), id="tiff-lzw"),
    ],
)
def test_sixteen_bit_grey_keeps_its_top_byte(data):
    image = normalise(data)

    np.testing.assert_array_equal(image.pixels, np.repeat((GRADIENT16 >> 8)[..., None], 3, axis=2))
    assert image.steps == ("16-bit", "grey")


def test_sixteen_bit_rgb_keeps_its_top_byte():
    samples = np.random.default_rng(1).integers(0, 65536, (16, 16, 3), dtype=np.uint16)
    top = (samples >> 8).astype(np.uint8)

    for data in (
        png(16, 16, samples.astype(">u2").tobytes(), depth=16),
        tiff(16, 16, samples.astype("<u2").tobytes(), bits=(16, 16, 16), photometric=2),
        tiff(16, 16, samples.astype(">u2").tobytes(), bits=(16, 16, 16), photometric=2, order=">"),
    ):
        image = normalise(data)
        np.testing.assert_array_equal(image.pixels, top)
        assert image.steps == ("16-bit",)


@pytest.mark.parametrize(("colour", "channels"), [(PNG_GREY_ALPHA, 2), (PNG_RGBA, 4)])
def test_sixteen_bit_with_alpha(colour, channels):
    samples = np.full((16, 16, channels), 0x4000, np.uint16)
    samples[..., -1] = 0x8000
    image = normalise(png(16, 16, samples.astype(">u2").tobytes(), depth=16, colour=colour))

    assert np.unique(image.pixels).tolist() == [round((0x40 * 0x80 + 255 * 0x7F) / 255)]
    assert image.steps == ("16-bit", "alpha")


def test_twelve_bit_tiff_uses_its_whole_range():
    # Two samples in three bytes: 0x000 and 0xFFF, black and white.
    image = normalise(tiff(16, 16, b"\x00\x0f\xff" * 128, bits=(12,)))

    assert image.pixels[0, :2, 0].tolist() == [0, 255]
    assert image.steps == ("16-bit", "grey")


@pytest.mark.parametrize("bits", [8, 16])
def test_white_is_zero_is_inverted(bits):
    samples = GRADIENT16 >> 8 if bits == 8 else GRADIENT16
    data = tiff(16, 16, samples.astype(f"<u{bits // 8}").tobytes(), bits=(bits,), photometric=0)

    np.testing.assert_array_equal(normalise(data).pixels[..., 0], 255 - (GRADIENT16 >> 8))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        pytest.param([0.0, 0.25, 0.5, 1.0], [0, 64, 128, 255], id="0 to 1"),
        pytest.param([0.0, 64.0, 128.0, 255.0], [0, 64, 128, 255], id="0 to 255"),
        pytest.param([0.0, 257.0, 32896.0, 65535.0], [0, 1, 128, 255], id="0 to 65535"),
        pytest.param([-1.0, 0.0, 1.0, 1.0], [0, 128, 255, 255], id="negative"),
        pytest.param([0.0, 1e6, 2e6, 4e6], [0, 64, 128, 255], id="large"),
        pytest.param([float("nan"), float("-inf"), float("inf"), 1.0], [0, 0, 255, 255], id="one finite"),
        pytest.param([float("nan"), 0.0, float("inf"), 0.5], [0, 0, 255, 128], id="not finite"),
        pytest.param([-3e38, 0.0, 3e38, 3e38], [0, 128, 255, 255], id="the ends of float32"),
    ],
)
@pytest.mark.parametrize("order", ["<", ">"])
def test_float_tiff_is_rescaled(values, expected, order):
    samples = np.tile(np.array(values, f"{order}f4"), (16, 4))
    image = normalise(tiff(16, 16, samples.tobytes(), bits=(32,), sample_format=3, order=order))

    assert image.pixels[0, :4, 0].tolist() == expected
    assert image.steps == ("float", "grey")


@pytest.mark.parametrize(
    ("values", "sample_format", "bits", "expected"),
    [
        ([0, 1, 128, 255], 1, 32, [0, 1, 128, 255]),
        ([0, 256, 32768, 65535], 1, 32, [0, 1, 128, 255]),
        ([0, 1 << 29, 1 << 30, (1 << 31) - 1], 2, 32, [0, 64, 128, 255]),
        ([-32768, -16384, 0, 32767], 2, 16, [0, 64, 128, 255]),
    ],
)
def test_integers_without_a_stated_white_are_rescaled(values, sample_format, bits, expected):
    kind = "u" if sample_format == 1 else "i"
    samples = np.tile(np.array(values, f"<{kind}{bits // 8}"), (16, 4))
    image = normalise(tiff(16, 16, samples.tobytes(), bits=(bits,), sample_format=sample_format))

    assert np.abs(image.pixels[0, :4, 0].astype(int) - expected).max() <= 1
    assert image.steps == ("32-bit", "grey")


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_shallow_grey_is_spread_over_the_whole_range(depth):
    # One row of eight samples: 0 … the deepest, repeated.
    deepest = (1 << depth) - 1
    values = [index % (deepest + 1) for index in range(8)]
    packed = int("".join(f"{value:0{depth}b}" for value in values), 2).to_bytes(depth, "big")
    image = normalise(png(8, 8, packed * 8, depth=depth, colour=PNG_GREY))

    assert image.pixels[0, :, 0].tolist() == [value * 255 // deepest for value in values]
    assert image.steps == ("grey",)


# --- palette and opacity ---


def test_palette_colours_are_looked_up():
    palette = png_chunk(b"PLTE", bytes((10, 20, 30, 200, 100, 50)))
    image = normalise(png(8, 8, b"\x55" * 8, depth=1, colour=PNG_PALETTE, before=palette))

    assert image.pixels[0, :2].tolist() == [[10, 20, 30], [200, 100, 50]]
    assert image.steps == ("palette",)


@pytest.mark.parametrize("alphas", [bytes((0, 128)), bytes((0, 255))])
def test_palette_with_transparency_is_laid_over_white(alphas):
    chunks = png_chunk(b"PLTE", bytes((10, 20, 30, 200, 100, 50))) + png_chunk(b"tRNS", alphas)
    image = normalise(png(8, 8, b"\x55" * 8, depth=1, colour=PNG_PALETTE, before=chunks))

    a = alphas[1]
    blended = [round((value * a + 255 * (255 - a)) / 255) for value in (200, 100, 50)]
    assert image.pixels[0, :2].tolist() == [[255, 255, 255], blended]
    assert image.steps == ("palette", "alpha")


@pytest.mark.parametrize("format", ["PNG", "TIFF", "WEBP"])
def test_alpha_blends_to_the_exact_value(format):
    rgba = noise(32, 32, 4, seed=3)
    image = normalise(saved(rgba, format, lossless=True, exact=True))

    colours, alpha = rgba[..., :3].astype(float), rgba[..., 3:].astype(float)
    expected = np.rint((colours * alpha + 255 * (255 - alpha)) / 255)
    np.testing.assert_array_equal(image.pixels, expected)
    assert image.steps == ("alpha",)


def test_grey_alpha_and_palette_alpha_blend_too():
    grey = normalise(saved(solid((100, 51), "LA"), "PNG"))
    assert np.unique(grey.pixels).tolist() == [round((100 * 51 + 255 * 204) / 255)]
    assert grey.steps == ("grey", "alpha")

    palette = png_chunk(b"PLTE", bytes((100, 150, 200)))
    indexed = png(8, 8, bytes(64), colour=PNG_PALETTE, before=palette + png_chunk(b"tRNS", b"\x33"))
    assert normalise(indexed).pixels[0, 0].tolist() == [
        round((value * 51 + 255 * 204) / 255) for value in (100, 150, 200)
    ]


def test_full_opacity_is_no_step():
    rgba = np.dstack([noise(), np.full((24, 32), 255, np.uint8)])
    image = normalise(saved(rgba, "PNG"))

    np.testing.assert_array_equal(image.pixels, rgba[..., :3])
    assert image.steps == ()


def test_the_profile_is_applied_before_the_opacity():
    rgba = np.zeros((16, 16, 4), np.uint8)
    rgba[:] = (55, 55, 55, 128)
    image = normalise(saved(rgba, "PNG", icc_profile=rgb_profile(ADOBE_RGB, 1.0)))

    colour = 255 * linear_to_srgb(55 / 255)
    assert np.abs(image.pixels - (colour * 128 + 255 * 127) / 255).max() <= 1.5
    assert image.steps == ("icc", "alpha")


@pytest.mark.parametrize(
    ("depth", "row", "transparent", "expected"),
    [
        (1, b"\x55", 1, [0, 255, 0, 255]),  # samples 0 1 0 1: sample 1 was white and is white now
        (1, b"\x55", 0, [255, 255, 255, 255]),
        (2, b"\x1b\x1b", 1, [0, 255, 170, 255]),  # samples 0 1 2 3
        (4, b"\x01\x23\x01\x23", 2, [0, 17, 255, 51]),
        (8, bytes((0, 50, 100, 150)) * 2, 50, [0, 255, 100, 150]),
        (16, struct.pack(">4H", 0, 0x3201, 0x3202, 0x9600) * 2, 0x3201, [0, 255, 0x32, 0x96]),
    ],
)
def test_the_transparent_grey_of_every_depth(depth, row, transparent, expected):
    chunk = png_chunk(b"tRNS", struct.pack(">H", transparent))
    image = normalise(png(8, 8, row * 8, depth=depth, colour=PNG_GREY, before=chunk))

    assert image.pixels[0, :4, 0].tolist() == expected


@pytest.mark.parametrize("depth", [8, 16])
def test_the_transparent_colour_of_rgb(depth):
    scale = 257 if depth == 16 else 1
    colours = np.array([(1, 2, 3), (1, 2, 4)] * 4) * scale
    row = colours.astype(f">u{depth // 8}").tobytes()
    chunk = png_chunk(b"tRNS", struct.pack(">3H", 1 * scale, 2 * scale, 3 * scale))
    image = normalise(png(8, 8, row * 8, depth=depth, colour=PNG_RGB, before=chunk))

    assert image.pixels[0, :2].tolist() == [[255, 255, 255], [1, 2, 4]]
