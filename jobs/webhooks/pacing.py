"""When a delivery that failed is tried again, and when an endpoint is given up."""

import random
from datetime import datetime, timedelta

# 5 s, 20 s, 80 s, … up to six hours, each a fifth more or less: ten attempts or so within a day.
FIRST_DELAY_S = 5.0
GROWTH = 4.0
LONGEST_DELAY_S = 6 * 3600.0
JITTER = 0.2
# Counted from the first attempt, so that what waited while the service was down is tried as well.
TRIED_FOR = timedelta(hours=24)
# An endpoint that took nothing for so long is disabled, where nothing between two attempts lasted `TRIED_FOR`.
ENDPOINT_PATIENCE = timedelta(days=3)


def delay(attempt: int, retry_after: float | None, chance: random.Random) -> timedelta:
    """How long to wait after this attempt of a delivery, the first being 1.

    Args:
        retry_after: the seconds that the receiver asked for; they make it later, up to the longest delay.
    """
    # Beyond the exponent the power is the longest delay anyhow.
    grown = min(LONGEST_DELAY_S, FIRST_DELAY_S * GROWTH ** min(attempt - 1, 20))
    seconds = grown * chance.uniform(1 - JITTER, 1 + JITTER)
    return timedelta(seconds=max(seconds, min(retry_after or 0.0, LONGEST_DELAY_S)))


def next_attempt(
    now: datetime, give_up_at: datetime, attempt: int, retry_after: float | None, chance: random.Random
) -> datetime | None:
    """When to try again; None once the time is over. The last attempt is made when the time ends."""
    return None if now >= give_up_at else min(give_up_at, now + delay(attempt, retry_after, chance))
