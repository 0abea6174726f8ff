"""Pictures as a caller of the library may have them."""

from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from das.images.normalise import normalise

ImageLike = np.ndarray | Image.Image | bytes | Path | str


def pixels_of(image: ImageLike) -> np.ndarray:
    """Any image a caller may have as (H, W, 3) uint8 sRGB."""
    if isinstance(image, np.ndarray):
        return image
    if isinstance(image, Image.Image):
        if image.mode == "RGB":
            return np.asarray(image)
        buffer = BytesIO()
        image.save(buffer, "TIFF")  # the format that holds every mode
        image = buffer.getvalue()
    if isinstance(image, str | Path):
        image = Path(image).read_bytes()
    return normalise(image).pixels
