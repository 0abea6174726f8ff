"""Telling of something that fails again and again, such as a database that is away: once, then now and then, and once
when it is back."""

import logging
import threading
import time

logger = logging.getLogger(__name__)

TOLD_EVERY_S = 60.0
# When nothing has failed for so long, what is done more rarely would work too.
QUIET_S = 5.0


class Outage:
    """What of a process fails at this moment because the database or the like is away. For any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._failing: set[str] = set()
        self._began = self._failed_at = 0.0
        self._told_at = -TOLD_EVERY_S
        self._told = False

    def failed(self, what: str, error: Exception) -> None:
        """`what` has failed for this reason; a warning says so unless one did within the last minute."""
        with self._lock:
            now = time.monotonic()
            if not self._failing:
                self._began = now
            self._failing.add(what)
            self._failed_at = now
            if now - self._told_at < TOLD_EVERY_S:
                return
            self._told_at, self._told = now, True
            waiting = ", ".join(sorted(self._failing))
        logger.warning("waiting (%s): %s", waiting, error)

    def worked(self, what: str) -> None:
        """`what` has worked; when nothing fails any more, and that it did was told, this is told too."""
        with self._lock:
            self._failing.discard(what)
            now = time.monotonic()
            if now - self._failed_at > QUIET_S:
                self._failing.clear()
            if self._failing or not self._told:
                return
            self._told = False
            seconds = now - self._began
        logger.warning("it works again after %.0f s", seconds)


# Of all that this process does again and again, so that what stands still for one reason is told together.
OUTAGE = Outage()
