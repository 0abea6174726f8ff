"""Waiting a moment for questions that are about to come, so that they share a pass with those that wait."""

import time
from collections.abc import Callable, Sequence

from jobs.models import ClaimedJob
from jobs.settings import Settings
from jobs.turns import BULK_PRIORITY

# Who had an answer of a pass of several is about to ask again within this time, or doesn't.
LATELY_S = 0.25
_LOOK_S = 0.004


class Linger:
    """Only after a pass of several questions: who asks alone, or beside pictures of batches, isn't kept waiting."""

    def __init__(self, settings: Settings) -> None:
        self._seconds = settings.linger_seconds
        self._full = settings.batch_size
        self._shared_until = 0.0

    def after(self, jobs: Sequence[ClaimedJob]) -> None:
        """A pass of these jobs has just ended."""
        shared = len(jobs) > 1 and jobs[0].priority < BULK_PRIORITY
        self._shared_until = time.monotonic() + LATELY_S if shared else 0.0

    def wait(self, waiting: Callable[[int], int]) -> None:
        """Return when the next pass is full, or after a moment; at once where nothing tells that more will come.

        Args:
            waiting: says how many questions wait, up to the number that it is given.
        """
        began = time.monotonic()
        if not self._seconds or began >= self._shared_until:
            return
        # Where none waits, a picture of a batch may: nobody is about to send one more.
        while 0 < waiting(self._full) < self._full and time.monotonic() - began < self._seconds:
            time.sleep(_LOOK_S)
