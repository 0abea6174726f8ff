"""The parent looks after its child more often than Celery does by itself, and takes no bell that it can't hear."""

from collections.abc import Callable
from typing import Any

from celery import bootsteps

# What a lost computation waits before it is noticed, at most.
LOOK_EVERY_S = 0.25


class WatchChild(bootsteps.StartStopStep):  # type: ignore[misc]
    """Look for a dead child every `LOOK_EVERY_S`.

    Celery is woken by the end of a pipe that the child holds. The kernel closes that a moment before the child can
    be waited for, so that mostly nothing is found then, and Celery (5.7) looks again only every five seconds.
    """

    requires = ("celery.worker.components:Pool",)

    def __init__(self, worker: Any, **options: Any) -> None:
        super().__init__(worker, **options)
        self._timer: Any = None

    def register_with_event_loop(self, worker: Any, hub: Any) -> None:
        # Called anew after every reconnection.
        if self._timer is not None:
            self._timer.cancel()
        self._timer = hub.call_repeatedly(LOOK_EVERY_S, worker.pool.maintain_pool)


def hearing_when(hears: Callable[[], bool]) -> type[bootsteps.StartStopStep]:
    """A step of the consumer: it asks for bells only while `hears` says that one would be taken up.

    Until then they lie in the broker, where another worker hears them; one that was on its way is put back there. The
    event loop turns at least every `LOOK_EVERY_S`, and at once when the child says that it is up.
    """

    class Hearing(bootsteps.StartStopStep):  # type: ignore[misc]
        requires = ("celery.worker.consumer.tasks:Tasks",)

        def start(self, consumer: Any) -> None:
            # Called anew after every reconnection, which makes another channel.
            consumer.task_consumer.channel.hears = hears

    return Hearing
