"""Which works a question is scored against."""

# One product over all works reads every stored feature once: half a gigabyte is 0.2 to 0.5 s of memory bandwidth
# on two cores, below what a real model's gradients of one picture cost. Up to there, screening would save less
# than it costs: CLIP misses works that had influence and don't look alike, and the shares would be shares of a
# selection. In works: 65,536 at 4096 dimensions in float16.
ALL_UP_TO_FEATURE_BYTES = 512 * 2**20
# Beyond it, as many as the paper screens for.
SCREENED = 1000


def wanted_count(asked: str, works: int, feature_bytes: int) -> int | None:
    """How many candidates CLIP has to choose for a request of `auto`, `all` or a number; None for all works.

    Args:
        works: N, the works of the index.
        feature_bytes: size of the stored features that scoring all of them reads.
    """
    if asked == "all" or (asked == "auto" and feature_bytes <= ALL_UP_TO_FEATURE_BYTES):
        return None
    count = SCREENED if asked == "auto" else int(asked)
    return count if count < works else None
