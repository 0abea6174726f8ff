"""What a load uploads: pictures of noise that no other has, in forms."""

import numpy as np

from das.images import encode_png

BOUNDARY = "das-bench-service"
CONTENT_TYPE = f"multipart/form-data; boundary={BOUNDARY}"
PICTURES, SIDE = 256, 32


def bodies(seed: int) -> list[bytes]:
    """Forms to upload, each with one picture."""
    generator = np.random.default_rng(seed)
    return [form(generator) for _ in range(PICTURES)]


def form(generator: np.random.Generator, count: int = 1) -> bytes:
    """A form with so many pictures."""
    before = (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="noise.png"\r\n'
        "Content-Type: image/png\r\n\r\n"
    ).encode()
    drawn = [generator.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8) for _ in range(count)]
    return (
        b"".join(before + encode_png(pixels) + b"\r\n" for pixels in drawn) + f"--{BOUNDARY}--\r\n".encode()
    )
