"""Lengths of time as people write them: `90d`, `12h`, `30m` or `45s`."""

import re
from datetime import timedelta

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
DURATION = re.compile(r"([1-9][0-9]{0,8})([smhd])")


def length_of(text: str) -> timedelta | None:
    """The length of time that a text means; None where it is none."""
    found = DURATION.fullmatch(text)
    return None if found is None else timedelta(seconds=int(found[1]) * UNITS[found[2]])
