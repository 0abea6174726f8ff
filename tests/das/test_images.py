"""What comes out of `das.images.normalise`: pixel values and the steps that are named."""

import hashlib
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from image_files import (
    ADOBE_GAMMA,
    ADOBE_RGB,
    DISPLAY_P3,
    PNG_RGB,
    cmyk_profile_of_grey_inks,
    grey_profile,
    linear_to_srgb,
    png,
    png_chunk,
    rgb_profile,
    saved,
    tiff,
)
from PIL import Image, ImageCms

from das.images import ImageLimits, normalise

SMALL = ImageLimits(min_side=1)
SRGB_PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def solid(colour, mode: str = "RGB", size: tuple[int, int] = (16, 16)) -> Image.Image:
    return Image.new(mode, size, colour)


def noise(height: int = 24, width: int = 32, channels: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


# --- plain pictures ---


@pytest.mark.parametrize(
    ("format", "options"),
    [
        ("PNG", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("TIFF", {"compression": "tiff_deflate"}),
        ("WEBP", {"lossless": True}),
    ],
)
def test_lossless_formats_come_back_bit_for_bit(format, options):
    pixels = noise()
    data = saved(pixels, format, **options)

    image = normalise(data)

    np.testing.assert_array_equal(image.pixels, pixels)
    assert (image.format, image.width, image.height, image.steps) == (format, 32, 24, ())
    assert image.sha256 == hashlib.sha256(data).hexdigest()
    assert image.pixels.dtype == np.uint8
    assert image.pixels.flags["C_CONTIGUOUS"]


@pytest.mark.parametrize(("format", "tolerance"), [("JPEG", 4), ("WEBP", 6), ("AVIF", 4)])
def test_lossy_formats_come_back_close(format, tolerance):
    image = normalise(saved(solid((200, 80, 40)), format, quality=95))

    assert image.format == format
    assert np.abs(image.pixels.astype(int) - (200, 80, 40)).max() <= tolerance


def test_only_pixels_are_kept():
    text = png_chunk(b"tEXt", b"Author\0somebody private")
    image = normalise(png(16, 16, noise(16, 16).tobytes(), before=text))

    assert set(vars(image)) == {"pixels", "sha256", "width", "height", "format", "steps", "declared"}
    assert image.declared is None


# --- orientation ---

# Where EXIF puts the stored first row and the stored first column, so where the stored corners land.
#           first row, first column   first row, last column
LANDINGS = {
    1: ((0, 0), (0, -1)),
    2: ((0, -1), (0, 0)),
    3: ((-1, -1), (-1, 0)),
    4: ((-1, 0), (-1, -1)),
    5: ((0, 0), (-1, 0)),
    6: ((0, -1), (-1, -1)),
    7: ((-1, -1), (0, -1)),
    8: ((-1, 0), (0, 0)),
}


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_each_orientation_puts_the_corners_where_they_belong(format, orientation):
    stored = np.full((32, 64, 3), 128, np.uint8)
    stored[:16, :16] = (255, 0, 0)
    stored[:16, 48:] = (0, 0, 255)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"JPEG": {"quality": 95, "subsampling": 0}, "AVIF": {"quality": 95, "subsampling": "4:4:4"}}

    image = normalise(saved(stored, format, exif=exif, **options.get(format, {"lossless": True})))

    red, blue = LANDINGS[orientation]
    assert np.abs(image.pixels[red].astype(int) - (255, 0, 0)).max() < 16
    assert np.abs(image.pixels[blue].astype(int) - (0, 0, 255)).max() < 16
    assert (image.width, image.height) == ((64, 32) if orientation < 5 else (32, 64))
    assert image.steps == (() if orientation == 1 else ("orientation",))


def test_a_damaged_exif_block_is_passed_over():
    pixels = noise()
    image = normalise(saved(pixels, "PNG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff garbage"))

    np.testing.assert_array_equal(image.pixels, pixels)
    assert image.steps == ()


# --- colour profiles ---


@pytest.mark.parametrize("format", ["PNG", "TIFF", "WEBP", "JPEG", "AVIF"])
@pytest.mark.parametrize(
    ("profile", "stored", "expected"),
    [
        # sRGB's own primaries as their well-known codes in the wider spaces.
        pytest.param(rgb_profile(DISPLAY_P3), (234, 51, 35), (255, 0, 0), id="display-p3"),
        pytest.param(rgb_profile(ADOBE_RGB, ADOBE_GAMMA), (144, 255, 60), (0, 255, 0), id="adobe-rgb"),
    ],
)
def test_wide_gamut_colours_become_the_known_srgb(format, profile, stored, expected):
    options = {"JPEG": {"quality": 100, "subsampling": 0}, "AVIF": {"quality": 100, "subsampling": "4:4:4"}}
    data = saved(solid(stored), format, icc_profile=profile, **options.get(format, {"lossless": True}))

    image = normalise(data)

    # A dark channel near 0 is steep: one level more in the file is ten levels more in sRGB.
    tolerance = 20 if format in ("JPEG", "AVIF") else 12
    assert np.abs(image.pixels.astype(int) - expected).max() <= tolerance
    assert image.steps == ("icc",)


def test_neutral_grey_stays_the_same_through_a_profile_with_srgbs_curve():
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 8, axis=0).repeat(3, axis=2)
    image = normalise(saved(ramp, "PNG", icc_profile=rgb_profile(DISPLAY_P3)))

    assert np.abs(image.pixels.astype(int) - ramp).max() <= 1


def test_an_srgb_profile_changes_no_pixel_and_is_no_step():
    pixels = noise()
    image = normalise(saved(pixels, "PNG", icc_profile=SRGB_PROFILE))

    np.testing.assert_array_equal(image.pixels, pixels)
    assert image.steps == ()


def test_a_grey_profile_is_applied():
    image = normalise(saved(solid(55, "L"), "PNG", icc_profile=grey_profile(1.0)))

    expected = round(
        255 * linear_to_srgb(55 / 255)
    )  # 128: linear light, shown as grey 55 without the profile
    assert np.abs(image.pixels.astype(int) - expected).max() <= 1
    assert image.steps == ("grey", "icc")


def test_a_grey_picture_with_an_rgb_profile_goes_through_it():
    image = normalise(saved(solid(100, "L"), "JPEG", icc_profile=rgb_profile(ADOBE_RGB, 1.0)))

    expected = round(255 * linear_to_srgb(100 / 255))
    assert np.abs(image.pixels.astype(int) - expected).max() <= 2
    assert image.steps == ("grey", "icc")


@pytest.mark.parametrize("format", ["JPEG", "TIFF"])
def test_a_cmyk_profile_is_applied(format):
    data = saved(solid((255, 0, 0, 0), "CMYK"), format, icc_profile=cmyk_profile_of_grey_inks(), quality=100)
    image = normalise(data)

    # Half the lightness, L* = 50, is sRGB 119; without the profile pure cyan would be (0, 255, 255).
    assert np.abs(image.pixels.astype(int) - 119).max() <= 2
    assert image.steps == ("cmyk", "icc")


@pytest.mark.parametrize(
    "profile",
    [
        pytest.param(b"not a profile at all", id="garbage"),
        pytest.param(rgb_profile(DISPLAY_P3)[:200], id="cut"),
        pytest.param(grey_profile(1.0), id="of another colour space"),
        pytest.param(rgb_profile(DISPLAY_P3)[:128] + b"\xff\xff\xff\xff" + bytes(400), id="absurd tag count"),
    ],
)
def test_an_unusable_profile_is_ignored_and_named(profile):
    pixels = noise()
    image = normalise(saved(pixels, "PNG", icc_profile=profile))

    np.testing.assert_array_equal(image.pixels, pixels)
    assert image.steps == ("icc-damaged",)


# --- CMYK, Lab ---


@pytest.mark.parametrize(
    ("inks", "expected"),
    [
        ((0, 0, 0, 0), (255, 255, 255)),
        ((255, 0, 0, 0), (0, 255, 255)),
        ((0, 255, 0, 0), (255, 0, 255)),
        ((0, 0, 0, 255), (0, 0, 0)),
        ((0, 0, 255, 128), (127, 127, 0)),
    ],
)
@pytest.mark.parametrize("format", ["JPEG", "TIFF"])
def test_cmyk_without_a_profile(format, inks, expected):
    image = normalise(saved(solid(inks, "CMYK"), format, quality=100))

    assert np.abs(image.pixels.astype(int) - expected).max() <= 2
    assert image.steps == ("cmyk",)


@pytest.mark.parametrize(
    ("ycc", "expected"),
    [((0, 128, 128), (255, 255, 255)), ((255, 128, 128), (0, 0, 0)), ((76, 85, 255), (0, 255, 255))],
)
def test_an_adobe_ycck_jpeg_has_its_inverted_inks_turned_back(ycc, expected):
    # An encoder's CMYK JPEG stores its four planes inverted. Saying "transform 2" declares the first three to
    # be the YCbCr of the amounts of cyan, magenta and yellow.
    planes = [solid(255 - value, "L") for value in (*ycc, 255)]
    stored = saved(Image.merge("CMYK", planes), "JPEG", quality=100)
    adobe = stored.index(b"Adobe")
    ycck = stored[: adobe + 11] + b"\x02" + stored[adobe + 12 :]

    image = normalise(ycck)

    assert np.abs(image.pixels.astype(int) - expected).max() <= 3
    assert image.steps == ("cmyk",)


def test_lab_becomes_srgb():
    # L* = 54.29, a* = 80.81, b* = 69.89 under D50 is sRGB red; TIFF stores L* x 2.55 and signed a*, b*.
    samples = struct.pack("Bbb", round(54.29 * 2.55), 81, 70) * 256
    image = normalise(tiff(16, 16, samples, bits=(8, 8, 8), photometric=8))

    assert np.abs(image.pixels.astype(int) - (255, 0, 0)).max() <= 6
    assert image.steps == ("lab",)


# --- animations and pages ---


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP", "AVIF", "TIFF"])
def test_the_first_frame_of_several_is_taken(format):
    frames = [solid(colour) for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255))]
    image = normalise(saved(frames[0], format, save_all=True, append_images=frames[1:], duration=50))

    assert np.abs(image.pixels.astype(int) - (255, 0, 0)).max() <= 4
    assert image.steps[0] == "first-frame"


def test_a_gif_frame_smaller_than_its_canvas_leaves_the_rest_white():
    frame = solid(0, "P", (8, 8))
    frame.putpalette((200, 10, 10, 0, 0, 0))
    data = bytearray(saved(frame, "GIF", transparency=1))
    data[6:10] = struct.pack("<HH", 16, 16)  # widen the canvas in the header
    image = normalise(bytes(data))

    assert image.pixels.shape == (16, 16, 3)
    assert image.pixels[0, 0].tolist() == [200, 10, 10]
    assert image.pixels[15, 15].tolist() == [255, 255, 255]


def test_one_pixel_is_enough_where_the_limits_allow_it():
    assert normalise(png(1, 1, b"\x01\x02\x03"), SMALL).pixels.tolist() == [[[1, 2, 3]]]


# --- the module ---


def test_importing_the_module_is_light():
    code = (
        "import sys, das.images; "
        "print(sorted({'torch', 'open_clip', 'faiss', 'diffusers', 'fastapi', 'celery', 'sqlalchemy'} & "
        "set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_interlaced_png_is_read():
    # Adam7 of an 8 × 8 picture of one colour: seven passes, each with its own rows.
    passes = [(1, 1), (1, 1), (2, 1), (2, 2), (4, 2), (4, 4), (8, 4)]
    body = b"".join((b"\0" + bytes((9, 8, 7)) * width) * height for width, height in passes)
    header = struct.pack(">IIBBBBB", 8, 8, 8, PNG_RGB, 0, 0, 1)
    data = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(body))

    image = normalise(data + png_chunk(b"IEND", b""))

    assert np.unique(image.pixels.reshape(-1, 3), axis=0).tolist() == [[9, 8, 7]]
