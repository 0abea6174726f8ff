"""Random numbers that are a pure function of a seed and a label.

The sketch and the noise must come out the same in the builder and in every worker, on any machine, device and
library version. So they are made from the raw words of the counter-based generator Philox (whose raw stream
NumPy keeps stable, unlike its distributions), keyed by a digest of the label.
"""

import hashlib

import numpy as np


def random_words(seed: int, label: str, count: int) -> np.ndarray:
    """`count` uniform 64-bit words, shape (count,) uint64, fixed by `(seed, label)`."""
    digest = hashlib.sha256(f"{seed}\n{label}".encode()).digest()
    key = np.frombuffer(digest[:16], dtype="<u8")
    return np.random.Philox(key=key).random_raw(count)


def standard_normal(seed: int, label: str, shape: tuple[int, ...]) -> np.ndarray:
    """Independent N(0, 1) values of `shape`, float64, fixed by `(seed, label)` (Box–Muller)."""
    count = int(np.prod(shape, dtype=np.int64))
    pairs = (count + 1) // 2
    words = random_words(seed, label, 2 * pairs)
    # 53 bits make a float64 in (0, 1]; zero is left out because its logarithm is taken.
    uniform = ((words >> np.uint64(11)).astype(np.float64) + 1.0) * 2.0**-53
    radius = np.sqrt(-2.0 * np.log(uniform[:pairs]))
    angle = 2.0 * np.pi * uniform[pairs:]
    values = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])
    return values[:count].reshape(shape)
