"""Any pixel layout that the accepted formats can hold, brought to 8-bit sRGB over white."""

import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms, TiffImagePlugin

# A profile whose conversion moves no colour of the probe by more than this is sRGB under another name: its
# pixels are kept exactly, rather than shaken by the rounding of a conversion to themselves.
SAME_COLOUR_TOLERANCE = 2

# Profiles of printing processes reach 3 MB; anything far above that is ballast or an attack.
MAX_PROFILE_BYTES = 8_000_000

_TIFF_BITS_PER_SAMPLE = 258
_TIFF_PHOTOMETRIC = 262
_TIFF_WHITE_IS_ZERO = 0

# Rows are converted in blocks, so that float64 copies of a 40-megapixel picture never exist at once.
_ROWS_PER_BLOCK = 256

_SIXTEEN_BIT_MODES = ("I;16", "I;16B", "I;16L", "I;16N")


@dataclass(frozen=True)
class Layout:
    """What the file says about its samples and Pillow forgets while loading."""

    rawmode: str  # Pillow's name of the packing in the file, as "RGB;16B"
    bits: int  # significant bits of a sample that Pillow keeps in 16
    white_is_zero: bool  # Pillow inverts this for 8 bits only

    @classmethod
    def of(cls, image: Image.Image) -> "Layout":
        """Read the layout of an opened image that isn't loaded yet."""
        rawmode = ""
        tiles = getattr(image, "tile", [])
        if tiles:
            arguments = tiles[0].args
            if isinstance(arguments, tuple):
                arguments = arguments[0] if arguments else ""
            rawmode = arguments if isinstance(arguments, str) else ""
        bits, white_is_zero = 16, False
        if isinstance(image, TiffImagePlugin.TiffImageFile):
            bits = int(image.tag_v2.get(_TIFF_BITS_PER_SAMPLE, (16,))[0])
            white_is_zero = image.tag_v2.get(_TIFF_PHOTOMETRIC, 0) == _TIFF_WHITE_IS_ZERO
        return cls(rawmode, bits, white_is_zero)


def to_srgb(image: Image.Image, layout: Layout) -> tuple[Image.Image, list[str]]:
    """Bring a loaded image to mode RGB in sRGB, over white; also the names of the steps this took.

    Raises ValueError if the samples hold no number at all (a float TIFF of NaN).
    """
    profile = image.info.get("icc_profile")
    alpha, image, steps = _separate_alpha(image, layout)
    image, depth_steps = _to_eight_bits(image, layout)
    image, colour_steps = _colours_to_srgb(image, profile)
    steps = [*depth_steps, *steps, *colour_steps]
    if alpha is not None and alpha.getextrema() != (255, 255):
        white = Image.new("RGB", image.size, (255, 255, 255))
        white.paste(image, mask=alpha)
        image = white
        steps.append("alpha")
    return image, steps


def _separate_alpha(image: Image.Image, layout: Layout) -> tuple[Image.Image | None, Image.Image, list[str]]:
    """Split off the opacity: (mode L or None, the colours without it, steps)."""
    transparency = image.info.get("transparency")
    match image.mode:
        case "P" | "PA":
            if image.mode == "PA" or transparency is not None:
                rgba = image.convert("RGBA")
                return rgba.getchannel("A"), rgba.convert("RGB"), ["palette"]
            return None, image.convert("RGB"), ["palette"]
        case "RGBA":
            return image.getchannel("A"), image.convert("RGB"), []
        case "LA":
            return image.getchannel("A"), image.getchannel("L"), []
        case "RGBa":
            return _separate_alpha(image.convert("RGBA"), layout)
        case "La":
            return _separate_alpha(image.convert("LA"), layout)
    if transparency is None:
        return None, image, []
    return _alpha_of_transparent_colour(image, transparency, layout), image, []


def _alpha_of_transparent_colour(image: Image.Image, colour: object, layout: Layout) -> Image.Image | None:
    """The opacity of a PNG or GIF that names one colour as transparent.

    The colour is given in the file's own depth. Pillow scales the samples of 2, 4 and 16-bit files but not
    this colour, so it is scaled here.
    """
    if isinstance(colour, int) and image.mode in ("1", "L", *_SIXTEEN_BIT_MODES):
        scale = {"L;2": 85, "L;4": 17}.get(layout.rawmode, 1)
        samples = np.asarray(image.convert("L") if image.mode == "1" else image)
        opaque = samples != colour * scale
    elif isinstance(colour, tuple) and len(colour) == 3 and image.mode == "RGB":
        shift = 8 if layout.rawmode.startswith("RGB;16") else 0
        target = np.array([int(value) >> shift for value in colour])
        opaque = (np.asarray(image) != target).any(axis=2)
    else:
        return None
    return Image.fromarray(np.where(opaque, np.uint8(255), np.uint8(0)))


def _to_eight_bits(image: Image.Image, layout: Layout) -> tuple[Image.Image, list[str]]:
    """Rescale 16-bit, 32-bit and float samples to 8 bits; nothing that fits its range is clipped."""
    if image.mode in _SIXTEEN_BIT_MODES:
        samples = np.asarray(image) >> max(layout.bits - 8, 0)
        grey, step = samples.astype(np.uint8), "16-bit"
    elif image.mode == "I":
        grey, step = _numbers_to_bytes(np.asarray(image)), "32-bit"
    elif image.mode == "F":
        grey, step = _numbers_to_bytes(np.asarray(image)), "float"
    else:
        # Pillow has already kept the top byte of 16-bit RGB, RGBA and CMYK.
        return image, ["16-bit"] if ";16" in layout.rawmode else []
    if layout.white_is_zero:
        grey = 255 - grey
    return Image.fromarray(grey), [step]


def _numbers_to_bytes(samples: npt.NDArray[np.int32] | npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Map samples (H, W) without a stated white point to 0..255.

    White is the smallest of 1.0 (floats only), 255 and 65535 that no sample exceeds; samples outside all of
    these, or negative ones, are stretched from the least to the greatest. NaN becomes black.
    """
    finite = np.isfinite(samples)
    if not finite.any():
        raise ValueError("the samples hold no finite number")
    low = float(samples.min(where=finite, initial=np.inf if samples.dtype.kind == "f" else 2**31 - 1))
    high = float(samples.max(where=finite, initial=-np.inf if samples.dtype.kind == "f" else -(2**31)))
    whites = (1.0, 255.0, 65535.0) if samples.dtype.kind == "f" else (255.0, 65535.0)
    if low >= 0 and high <= whites[-1]:
        low, high = 0.0, next(white for white in whites if high <= white)
    scale = 255.0 / (high - low) if high > low else 0.0
    grey = np.empty(samples.shape, np.uint8)
    for start in range(0, len(samples), _ROWS_PER_BLOCK):
        with np.errstate(invalid="ignore"):  # a signalling NaN becomes a quiet one
            block = samples[start : start + _ROWS_PER_BLOCK].astype(np.float64)
        block = np.nan_to_num(block, nan=low, posinf=high, neginf=low)
        grey[start : start + _ROWS_PER_BLOCK] = np.rint((block - low) * scale)
    return grey


def _colours_to_srgb(image: Image.Image, profile: object) -> tuple[Image.Image, list[str]]:
    """Colours of an 8-bit image without opacity to mode RGB, through its profile if it has a usable one."""
    steps: list[str] = []
    if image.mode == "LAB":
        return _lab_to_srgb(image), ["lab"]
    if image.mode == "CMYK":
        steps.append("cmyk")
    elif image.mode in ("1", "L"):
        image = image.convert("L")
        steps.append("grey")
    elif image.mode != "RGB":
        image = image.convert("RGB")
    if profile:
        converted = _through_profile(image, profile) if isinstance(profile, bytes) else None
        if converted is None:
            steps.append("icc-damaged")
        else:
            if converted is not image:
                steps.append("icc")
            image = converted
    return image.convert("RGB"), steps


def _through_profile(image: Image.Image, profile: bytes) -> Image.Image | None:
    """`image` (mode L, RGB or CMYK) in sRGB; itself if its profile is sRGB; None if that is unusable."""
    if len(profile) > MAX_PROFILE_BYTES:
        return None
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        space = source.profile.xcolor_space.strip()
        if space == "RGB" and image.mode == "L":
            # A grey picture saved with the profile of an RGB working space, as many programs do.
            image = image.convert("RGB")
        if space != {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK"}[image.mode]:
            return None
        transform = ImageCms.buildTransform(
            source,
            ImageCms.createProfile("sRGB"),
            image.mode,
            "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
        if image.mode != "CMYK" and _changes_nothing(transform, image.mode):
            return image
        return _apply(transform, image)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError, AttributeError):
        # Little CMS refused the profile. The colours are then read as sRGB, as browsers do.
        return None


def _changes_nothing(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    if mode == "L":
        ramp = np.arange(256, dtype=np.uint8)[None, :]
        probe, expected = Image.fromarray(ramp), np.repeat(ramp[..., None], 3, axis=2)
    else:
        levels = np.linspace(0, 255, 9).astype(np.uint8)
        cube = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(27, 27, 3)
        probe, expected = Image.fromarray(cube), cube
    result = np.asarray(_apply(transform, probe)).astype(np.int16)
    return bool(np.abs(result - expected).max() <= SAME_COLOUR_TOLERANCE)


def _lab_to_srgb(image: Image.Image) -> Image.Image:
    transform = ImageCms.buildTransform(
        ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB"
    )
    return _apply(transform, image)


def _apply(transform: ImageCms.ImageCmsTransform, image: Image.Image) -> Image.Image:
    converted = ImageCms.applyTransform(image, transform)
    assert converted is not None  # None is the answer to inPlace only
    return converted
