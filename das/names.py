"""How names of people are compared: in policies, opt-outs, keys, and where works are chosen by them."""

import unicodedata
from functools import lru_cache


@lru_cache(maxsize=4096)
def folded(text: str) -> str:
    """A name as it is compared: without regard to case, to width and to how much space is in it."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())
