"""Names of jobs: `att_` and a UUID version 7 in hex, so that names sort by the time they were given."""

import os
import threading
import time

PREFIX = "att_"
_lock = threading.Lock()
_last = 0


def uuid7_hex() -> str:
    """A UUID version 7 (RFC 9562) as 32 hex digits.

    48 bits of Unix milliseconds, then 12 bits that count on within one millisecond, so that two names given
    by one process keep their order, then 62 random bits.
    """
    global _last
    now = time.time_ns()
    stamp = (now // 1_000_000) << 12 | (now % 1_000_000) * 4096 // 1_000_000
    with _lock:
        stamp = _last = max(stamp, _last + 1)
    milliseconds, counter = stamp >> 12, stamp & 0xFFF
    tail = int.from_bytes(os.urandom(8), "big") & (1 << 62) - 1
    value = milliseconds << 80 | 0x7 << 76 | counter << 64 | 0b10 << 62 | tail
    return f"{value:032x}"


def new_job_id() -> str:
    """A name for a new job: `att_` and 32 hex digits, later than every name this process gave before."""
    return PREFIX + uuid7_hex()
