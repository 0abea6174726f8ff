"""Which works a question is scored against."""

from das.approximation import ALL_UP_TO_FEATURE_BYTES

# Where features are more than that, as many as the paper screens for.
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
