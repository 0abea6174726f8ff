"""Pictures of boxes."""

import numpy as np


def boxes(height: int, width: int, seed: int) -> np.ndarray:
    """Sixty boxes of any colour over one another, in integers alone: the same pixels on every machine."""
    state = seed

    def below(bound: int) -> int:
        nonlocal state
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        return (state >> 33) % bound

    pixels = np.zeros((height, width, 3), np.uint8)
    for _ in range(60):
        top, left = below(height), below(width)
        down, right = top + 1 + below(height), left + 1 + below(width)
        pixels[top:down, left:right] = [below(256) for _ in range(3)]
    return pixels
