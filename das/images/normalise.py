"""Decode an untrusted image file into sRGB pixels, or refuse it with a sentence."""

import hashlib
import io
import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

# The plugins are imported by name: Image.open would otherwise import all forty at the first TIFF or AVIF.
from PIL import (
    AvifImagePlugin,  # noqa: F401
    ExifTags,
    GifImagePlugin,  # noqa: F401
    Image,
    JpegImagePlugin,  # noqa: F401
    MpoImagePlugin,  # noqa: F401
    PngImagePlugin,  # noqa: F401
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,  # noqa: F401
)

from das.errors import ImageRefused
from das.images.colour import Layout, to_srgb
from das.images.declared import Declared, read_declared
from das.images.formats import ACCEPTED_IN_WORDS, identify, looks_cut_short
from das.images.scans import breaks_off
from das.images.structure import check_structure

Pixels = npt.NDArray[np.uint8]

# Pillow logs what it finds odd in a file; without a handler Python would print that on stderr.
logging.getLogger("PIL").addHandler(logging.NullHandler())

_TIFF_DNG_VERSION = 50706
_TIFF_PLANAR = 284
_TIFF_SEPARATE_PLANES = 2

_TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class ImageLimits:
    """What an upload may be. All are checked before a single pixel is decoded."""

    max_bytes: int = 25_000_000
    max_pixels: int = 40_000_000
    max_side: int = 32_767  # pixels
    min_side: int = 8  # pixels; no model here sees anything in less


@dataclass(frozen=True, eq=False)
class NormalisedImage:
    """The pixels of an upload, and what it says of itself as a record of its own; nothing else of it."""

    pixels: Pixels = field(repr=False)  # (H, W, 3) uint8, sRGB
    sha256: str  # of the uploaded bytes, in hex
    width: int  # after orientation
    height: int
    format: str  # "JPEG", "PNG", "WEBP", "AVIF", "GIF" or "TIFF"
    steps: tuple[str, ...]  # what was done, in order; empty if the file held plain 8-bit sRGB
    declared: Declared | None = (
        None  # how it says that it was made; C2PA manifests only by IsolatedNormaliser
    )


class Decoded(NamedTuple):
    """Pixels (H, W, 3) uint8 in sRGB, the steps this took, and what the file says of itself."""

    pixels: Pixels
    steps: tuple[str, ...]
    declared: Declared | None


DEFAULT_LIMITS = ImageLimits()


def normalise(data: bytes, limits: ImageLimits = DEFAULT_LIMITS) -> NormalisedImage:
    """Decode `data`, the whole of an untrusted file, in this process.

    Steps that may be named in the result: "first-frame", "16-bit", "32-bit", "float", "palette", "cmyk",
    "lab", "grey", "icc", "icc-damaged" (the profile was unusable, colours were read as sRGB), "alpha" (laid
    over white), "orientation".

    Raises `ImageRefused` and nothing else, with code "empty", "too-large", "too-many-pixels", "too-small",
    "unsupported-format", "svg", "not-an-image", "truncated", "damaged", "decompression-bomb", "too-many-parts"
    (as only files have that are made to exhaust a computer) or "decoder-died" (out of memory). libtiff may write a
    line about a damaged TIFF on standard error, which `IsolatedNormaliser` keeps quiet.
    """
    format = check_before_decoding(data, limits)
    pixels, steps, declared = decode(data, format, limits)
    return NormalisedImage(
        pixels=pixels,
        sha256=hashlib.sha256(data).hexdigest(),
        width=pixels.shape[1],
        height=pixels.shape[0],
        format=format,
        steps=steps,
        declared=declared,
    )


def check_before_decoding(data: bytes, limits: ImageLimits) -> str:
    """The format of `data`, after the checks that need no decoder. Raises `ImageRefused`."""
    if len(data) > limits.max_bytes:
        raise ImageRefused(
            "too-large",
            f"The file has {len(data) / 1e6:.1f} MB; the limit is {limits.max_bytes / 1e6:g} MB. "
            "Save it smaller, or as JPEG or WebP.",
        )
    return identify(data)


def decode(data: bytes, format: str, limits: ImageLimits) -> Decoded:
    """What a file holds. Raises `ImageRefused` and nothing else."""
    try:
        check_structure(data, format)
        with quiet_pillow(), Image.open(io.BytesIO(data), formats=[format]) as image:
            return _decoded(image, data, format, limits)
    except ImageRefused:
        raise
    except Exception as error:
        # Hostile files make the plugins raise anything at all.
        raise _refusal(data, format, limits, error) from error


def _decoded(image: Image.Image, data: bytes, format: str, limits: ImageLimits) -> Decoded:
    _check_size(image.size, limits)
    _check_tiff(image)
    steps = ["first-frame"] if getattr(image, "is_animated", False) else []
    layout = Layout.of(image)
    # Pillow turns a TIFF while loading it and leaves every other format as it lies.
    turned_by_pillow = _orientation(image) if isinstance(image, TiffImagePlugin.TiffImageFile) else 1
    image.load()
    if format == "JPEG" and breaks_off(data, image):
        raise _cut_short(format)
    # Frames may widen the canvas of a GIF while it is read.
    _check_size(image.size, limits)
    orientation = _orientation(image)
    declared = read_declared(image, data, format)
    rgb, colour_steps = to_srgb(image, layout)
    steps += colour_steps
    if orientation in _TRANSPOSITIONS:
        rgb = rgb.transpose(_TRANSPOSITIONS[orientation])
    if orientation in _TRANSPOSITIONS or turned_by_pillow in _TRANSPOSITIONS:
        steps.append("orientation")
    return Decoded(np.array(rgb, dtype=np.uint8), tuple(steps), declared)


def _check_size(size: tuple[int, int], limits: ImageLimits) -> None:
    width, height = size
    if width * height > limits.max_pixels:
        raise _too_many_pixels(f"The picture has {width} × {height} pixels", limits)
    if max(width, height) > limits.max_side:
        raise ImageRefused(
            "too-many-pixels",
            f"The picture has {width} × {height} pixels; a side may have at most {limits.max_side}.",
        )
    if min(width, height) < limits.min_side:
        raise ImageRefused(
            "too-small",
            f"The picture has {width} × {height} pixels; each side needs at least {limits.min_side}.",
        )


def _check_tiff(image: Image.Image) -> None:
    """Refuse the TIFF files that Pillow would open and show wrongly."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return
    if _TIFF_DNG_VERSION in image.tag_v2:
        raise ImageRefused(
            "unsupported-format",
            "This is a camera raw file (DNG), of which only a preview could be read. Export it as "
            "JPEG or TIFF.",
        )
    bits = image.tag_v2.get(258, (1,))
    if image.tag_v2.get(_TIFF_PLANAR) == _TIFF_SEPARATE_PLANES and len(bits) > 1 and max(bits) > 8:
        raise _unsupported_tiff()


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 if there is none or it can't be read."""
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # noqa: BLE001 (a damaged EXIF block raises anything, and says nothing about orientation)
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _refusal(data: bytes, format: str, limits: ImageLimits, error: Exception) -> ImageRefused:
    """The sentence for what Pillow raised."""
    said = str(error)
    name = "WebP" if format == "WEBP" else format
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return _too_many_pixels("The picture has far more pixels than are read here", limits)
    if isinstance(error, MemoryError) or "out of memory" in said:
        return out_of_memory()
    if "Decompressed data too large" in said or "Too much memory used in text chunks" in said:
        return ImageRefused(
            "decompression-bomb",
            f"This {name} file carries a text or colour-profile block that unpacks to far more than any "
            "picture needs, as files made to exhaust a computer do. Save the picture anew without metadata.",
        )
    if "truncated" in said.lower() or looks_cut_short(data, format):
        return _cut_short(name)
    if format == "TIFF" and isinstance(error, UnidentifiedImageError):
        return _unsupported_tiff()
    return ImageRefused(
        "damaged",
        f"This {name} file is damaged and can't be decoded. Open it in an image program and save it anew, "
        f"as {ACCEPTED_IN_WORDS}.",
    )


def _cut_short(name: str) -> ImageRefused:
    return ImageRefused(
        "truncated",
        f"This {name} file ends before the picture does; it was probably cut off on its way. "
        "Copy or download it again.",
    )


def out_of_memory() -> ImageRefused:
    """The refusal of a picture whose decoding needs more memory than there is."""
    return ImageRefused(
        "decoder-died",
        "Decoding this picture needed more memory than one picture may use. Save it smaller, or in a plainer "
        "form (8-bit PNG or JPEG), and send that.",
    )


def _too_many_pixels(begin: str, limits: ImageLimits) -> ImageRefused:
    return ImageRefused(
        "too-many-pixels",
        f"{begin}; the limit is {limits.max_pixels / 1e6:g} megapixels. Scale it down and send it again.",
    )


def _unsupported_tiff() -> ImageRefused:
    return ImageRefused(
        "unsupported-format",
        "This TIFF file stores its pixels in a way that isn't read here (or it is damaged). Save it as an "
        "8-bit or 16-bit RGB or grey TIFF without layers, or as PNG.",
    )


_quiet_lock = threading.Lock()
_quiet_depth = 0
_quiet_filters = warnings.catch_warnings()


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """Make Pillow's warning of a decompression bomb an error, and its other warnings silent.

    `warnings.catch_warnings` restores the wrong filters when two threads overlap, so the first thread in sets
    them and the last one out restores them.
    """
    global _quiet_depth, _quiet_filters
    with _quiet_lock:
        if _quiet_depth == 0:
            _quiet_filters = warnings.catch_warnings()
            _quiet_filters.__enter__()
            warnings.filterwarnings("ignore", module=r"PIL\.")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
        _quiet_depth += 1
    try:
        yield
    finally:
        with _quiet_lock:
            _quiet_depth -= 1
            if _quiet_depth == 0:
                _quiet_filters.__exit__(None, None, None)
