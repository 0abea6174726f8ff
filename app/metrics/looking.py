"""Looking at what may hang, a database or a broker, without hanging."""

import logging
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

logger = logging.getLogger(__name__)

T = TypeVar("T")

# How long what was seen is told again: several may scrape at once.
FRESH_S = 1.0
# How long a scrape waits for a look. Prometheus itself waits for ten seconds.
PATIENCE_S = 2.0


class Look(Generic[T]):
    """What a function returns, seen a second ago at most; None where it raises or hasn't returned in time.

    One look at a time is under way, in a thread of its own: where it hangs, nobody waits longer than `PATIENCE_S`.
    """

    def __init__(self, name: str, look: Callable[[], T], failures: type[Exception]) -> None:
        self._name = name
        self._look = look
        self._failures = failures
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._seen: T | None = None
        self._seen_at = -FRESH_S

    def latest(self) -> T | None:
        """What is seen now."""
        with self._lock:
            if time.monotonic() - self._seen_at < FRESH_S:
                return self._seen
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name=f"look at {self._name}", daemon=True)
                self._thread.start()
            thread = self._thread
        thread.join(PATIENCE_S)
        with self._lock:
            return self._seen if time.monotonic() - self._seen_at < FRESH_S + PATIENCE_S else None

    def _run(self) -> None:
        seen: T | None = None
        try:
            seen = self._look()
        except self._failures as error:
            logger.debug("the %s can't be looked at: %s", self._name, error)
        except Exception:
            logger.exception("the %s can't be looked at", self._name)
        with self._lock:
            self._seen, self._seen_at = seen, time.monotonic()
