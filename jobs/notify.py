"""Wakes those who wait for a job: each change of a job is announced on the channel `das:job:{id}`.

Announcements are best effort. Who waits has to look at the database as well, seldom while the broker is there
and often while it isn't; `ChangeFeed` does both.
"""

import asyncio
import contextlib
import logging
import threading
from collections.abc import AsyncIterator, Iterator

import redis
import redis.asyncio

from jobs.broker import broker_url
from jobs.errors import BrokerError
from jobs.settings import Settings

log = logging.getLogger(__name__)

CHANNEL = "das:job:"

# How long a waiter sleeps before it looks at the database by itself.
LOOK_WITH_BROKER_S = 1.0
LOOK_WITHOUT_BROKER_S = 0.1
RECONNECT_S = 0.5
# An announcement is a courtesy on the way of a result: it may not hold that up.
PUBLISH_TIMEOUT_S = 0.25


class Notifier:
    """Announces changes. May be shared by threads; not to be carried over a fork."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._client: redis.Redis | None = None

    def publish(self, job_id: str, version: int) -> None:
        """Say that the job now has this version. A broker that isn't there is none of the job's concern."""
        try:
            self._connected().publish(CHANNEL + job_id, str(version))
        except (redis.RedisError, OSError, BrokerError) as error:
            log.debug("the change of %s was not announced: %s", job_id, error)

    def _connected(self) -> redis.Redis:
        with self._lock:
            if self._client is None:
                self._client = redis.Redis.from_url(
                    broker_url(self._settings),
                    socket_timeout=PUBLISH_TIMEOUT_S,
                    socket_connect_timeout=PUBLISH_TIMEOUT_S,
                )
            return self._client


class Watch:
    """One waiter's view of one job; from `ChangeFeed.watch`."""

    def __init__(self, feed: "ChangeFeed") -> None:
        self._feed = feed
        self._changed = asyncio.Event()

    async def changed(self, timeout: float) -> None:
        """Return when it is time to look at the job again, `timeout` seconds from now at the latest."""
        limit = LOOK_WITH_BROKER_S if self._feed.connected else LOOK_WITHOUT_BROKER_S
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), max(0.0, min(timeout, limit)))
        self._changed.clear()

    def wake(self) -> None:
        self._changed.set()


class ChangeFeed:
    """Listens to all announcements for one event loop, over one connection, and wakes who waits.

    The way to wait for a job without missing a change is to watch first and look then::

        with feed.watch(job_id) as watch:
            while (job := await in_a_thread(store.get, job_id)).version == known and time_is_left:
                await watch.changed(time_left)
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._watches: dict[str, set[Watch]] = {}
        self._task: asyncio.Task[None] | None = None
        self.connected = False

    async def start(self) -> None:
        """Begin to listen, from the running event loop."""
        self._task = asyncio.create_task(self._listen(), name="job-changes")

    async def stop(self) -> None:
        """Stop listening. Waiters are woken and go on by looking at the database."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    @contextlib.contextmanager
    def watch(self, job_id: str) -> Iterator[Watch]:
        """Watch one job for the length of the block."""
        watch = Watch(self)
        self._watches.setdefault(job_id, set()).add(watch)
        try:
            yield watch
        finally:
            watches = self._watches[job_id]
            watches.discard(watch)
            if not watches:
                del self._watches[job_id]

    async def _listen(self) -> None:
        while True:
            try:
                async for job_id in self._announcements():
                    for watch in self._watches.get(job_id, ()):
                        watch.wake()
            except (redis.RedisError, OSError, BrokerError) as error:
                log.debug("not listening to changes: %s", error)
            finally:
                self.connected = False
                self._wake_all()
            await asyncio.sleep(RECONNECT_S)

    async def _announcements(self) -> AsyncIterator[str]:
        client = redis.asyncio.Redis.from_url(
            broker_url(self._settings), socket_connect_timeout=self._settings.broker_timeout_seconds
        )
        async with client, client.pubsub(ignore_subscribe_messages=True) as subscription:
            await subscription.psubscribe(CHANNEL + "*")
            self.connected = True
            # Something may have been announced while nobody listened.
            self._wake_all()
            async for message in subscription.listen():
                yield message["channel"].decode().removeprefix(CHANNEL)

    def _wake_all(self) -> None:
        for watches in self._watches.values():
            for watch in watches:
                watch.wake()
