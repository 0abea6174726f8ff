"""How many streams may be open at once: each holds a connection, and looks at the database now and then."""

from collections import Counter
from collections.abc import Callable

from app.problems import Problem

STREAMS_RETRY_S = 5


class Streams:
    """The streams that are open at this moment, of this process."""

    def __init__(self, most: int, most_of_one: int) -> None:
        self._most = most
        self._most_of_one = most_of_one
        self._open: Counter[str] = Counter()

    @property
    def open(self) -> int:
        """How many there are, of all callers."""
        return self._open.total()

    def take(self, owner: str) -> Callable[[], None]:
        """A place for one stream of this owner; call what comes back when it is over. Raises `Problem`."""
        retry = {"Retry-After": str(STREAMS_RETRY_S)}
        if self._open[owner] >= self._most_of_one:
            raise Problem(
                "too-many-streams", f"{self._most_of_one} of your streams are open: end some of them.", retry
            )
        if self.open >= self._most:
            raise Problem(
                "busy", "Too many streams are open at this moment: ask for the answer itself.", retry
            )
        self._open[owner] += 1

        def give_back() -> None:
            self._open[owner] -= 1
            if not self._open[owner]:
                del self._open[owner]

        return give_back
