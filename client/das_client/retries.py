"""When to send a request again, and when to give up. Nothing here sends, sleeps or reads a clock by itself."""

import email.utils
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass

RETRIED_STATUSES = frozenset({429, 502, 503, 504})
# An earlier sending of the same request, whose connection broke, is still being worked on.
IN_FLIGHT = "request-in-flight"
LONGEST_DIGITS = 9


@dataclass(frozen=True)
class Retries:
    """How patient a client is.

    Attributes:
        attempts: how often a request is sent at most, not counting those after which the service said when to come
            back: it is taken at its word until the deadline.
        deadline_s: seconds for a request with all of its repetitions. A `Retry-After` beyond it isn't waited for.
        first_s: the first pause, where the service says none; each next one is twice as long.
        most_s: the longest of those pauses.
        jitter: draws a number from 0 to 1, on which a part of each pause depends: so many clients don't come back
            at once.
    """

    attempts: int = 6
    deadline_s: float = 120.0
    first_s: float = 0.5
    most_s: float = 20.0
    jitter: Callable[[], float] = random.random

    def pause(self, failures: int, elapsed_s: float, retry_after_s: float | None) -> float | None:
        """Seconds to wait before the request is sent again; None: give up.

        Args:
            failures: how often it was sent in vain, without the service saying when to come back.
            elapsed_s: since it was sent for the first time.
            retry_after_s: what the service asks to wait at least; None: nothing.
        """
        if retry_after_s is None and failures >= self.attempts:
            return None
        if retry_after_s:
            # Later than asked by a tenth at most, and never earlier.
            pause = retry_after_s * (1 + self.jitter() / 10)
        else:
            doubled = min(self.most_s, self.first_s * 2.0 ** min(max(failures, 1) - 1, 30))
            pause = doubled * (0.5 + self.jitter() / 2)
        return pause if elapsed_s + pause <= self.deadline_s else None


NEVER = Retries(attempts=1, deadline_s=0.0)
"""Send a request once."""


def retry_after(headers: Mapping[str, str], now_s: float) -> float | None:
    """The seconds that a `Retry-After` asks for: as a number, or as a date (RFC 9110, section 10.2.3).

    A date counts from the answer's own `Date`, so that the two clocks needn't agree. What is neither is None, as is
    an answer without one.

    Args:
        now_s: seconds since 1970, for an answer without a `Date`.
    """
    given = headers.get("retry-after", "").strip()
    if given.isascii() and given.isdigit():
        return float(given) if len(given) <= LONGEST_DIGITS else float(10**LONGEST_DIGITS)
    then = _moment(given)
    if then is None:
        return None
    told = _moment(headers.get("date", ""))
    return max(0.0, then - (now_s if told is None else told))


def _moment(text: str) -> float | None:
    try:
        return email.utils.parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
