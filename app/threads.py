"""Threads for what a process does on the side, which requests don't take turns with."""

from collections.abc import Callable
from typing import Any, TypeVar

from anyio import CapacityLimiter, to_thread

T = TypeVar("T")


class RunInThread:
    """Runs what blocks, `most` at a time; cancelled, it waits for what it has begun."""

    def __init__(self, most: int) -> None:
        self._limiter = CapacityLimiter(most)

    async def __call__(self, work: Callable[..., T], *arguments: Any) -> T:
        return await to_thread.run_sync(work, *arguments, limiter=self._limiter)
