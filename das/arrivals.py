"""What is done to pictures on their way: re-encoded, made smaller or larger, cut, mirrored. No torch in here."""

import io
from collections.abc import Callable, Mapping

import numpy as np
from PIL import Image

Arrival = Callable[[np.ndarray], np.ndarray]
"""From pixels (H, W, 3) uint8 to what arrives of them, of another size perhaps."""

CUT = 0.05
ENLARGED = 1.5


def _jpeg(quality: int) -> Arrival:
    def through(pixels: np.ndarray) -> np.ndarray:
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "JPEG", quality=quality)
        with Image.open(stream) as image:
            return np.asarray(image.convert("RGB"))

    return through


def _scaled(pixels: np.ndarray, factor: float) -> np.ndarray:
    height, width = pixels.shape[:2]
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))


def _half_size(pixels: np.ndarray) -> np.ndarray:
    """Half the sides and back, as a thumbnail that was enlarged."""
    height, width = pixels.shape[:2]
    small = Image.fromarray(_scaled(pixels, 0.5))
    return np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))


def _cropped(pixels: np.ndarray) -> np.ndarray:
    """Without a twentieth of each side, half of it at each edge, a pixel at least."""
    height, width = pixels.shape[:2]
    top, left = max(1, round(height * CUT / 2)), max(1, round(width * CUT / 2))
    return pixels[top : height - top, left : width - left]


def _screenshot(pixels: np.ndarray) -> np.ndarray:
    """As a browser shows it, enlarged and moved by part of a pixel, and then as a JPEG of good quality."""
    return _jpeg(90)(_scaled(pixels, ENLARGED)[1:, 1:])


ARRIVALS: Mapping[str, Arrival] = {
    "jpeg-90": _jpeg(90),
    "jpeg-75": _jpeg(75),
    "jpeg-50": _jpeg(50),
    "half-size": _half_size,
    "crop-5": _cropped,
    "screenshot": _screenshot,
    "flip": lambda pixels: np.ascontiguousarray(pixels[:, ::-1]),
}
"""By name; none changes what a person would say the picture is."""
