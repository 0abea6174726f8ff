"""Wakes those who wait for a job: each change of a job is announced on the channel `das:job:{id}`.

Announcements are best effort. So the database is looked at as well, seldom while the broker is there and often while
it isn't: by `ChangeFeed`, for all who wait, in one query.
"""

import asyncio
import contextlib
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence

import redis
import redis.asyncio

from jobs.broker import broker_url
from jobs.errors import BrokerError, StorageError
from jobs.settings import Settings

log = logging.getLogger(__name__)

CHANNEL = "das:job:"

Versions = Callable[[Sequence[str]], Mapping[str, int]]
"""The versions of these jobs now; those that there aren't are left out. Raises `StorageError`."""

# How often the database is looked at.
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

    def __init__(self) -> None:
        self._changed = asyncio.Event()

    async def changed(self, timeout: float) -> None:
        """Return when it is time to look at the job again, `timeout` seconds from now at the latest."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), max(0.0, timeout))
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

    def __init__(self, settings: Settings, versions: Versions) -> None:
        self._settings = settings
        self._versions = versions
        self._watches: dict[str, set[Watch]] = {}
        self._seen: dict[str, int | None] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self.connected = False

    async def start(self) -> None:
        """Begin to listen and to look, from the running event loop."""
        self._tasks = [
            asyncio.create_task(self._listen(), name="job-changes"),
            asyncio.create_task(self._keep_looking(), name="job-versions"),
        ]

    async def stop(self) -> None:
        """Stop. Waiters are woken, and from then on only their time ends a wait."""
        for task in self._tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        self._tasks = []
        self._wake_all()

    @contextlib.contextmanager
    def watch(self, job_id: str) -> Iterator[Watch]:
        """Watch one job for the length of the block."""
        watch = Watch()
        self._watches.setdefault(job_id, set()).add(watch)
        try:
            yield watch
        finally:
            watches = self._watches[job_id]
            watches.discard(watch)
            if not watches:
                del self._watches[job_id]
                self._seen.pop(job_id, None)

    async def _listen(self) -> None:
        while True:
            try:
                async for job_id in self._announcements():
                    for watch in self._watches.get(job_id, ()):
                        watch.wake()
            except (redis.RedisError, OSError, BrokerError) as error:
                log.debug("not listening to changes: %s", error)
            finally:
                # What was announced since may be lost. Where nobody listened before either, the looks go on.
                if self.connected:
                    self.connected = False
                    self._wake_all()
            await asyncio.sleep(RECONNECT_S)

    async def _keep_looking(self) -> None:
        while True:
            await asyncio.sleep(LOOK_WITH_BROKER_S if self.connected else LOOK_WITHOUT_BROKER_S)
            if not self._watches:
                continue
            try:
                found = await asyncio.to_thread(self._versions, list(self._watches))
            except StorageError as error:
                # Each of them is told by its own look what is wrong.
                log.debug("the versions of jobs can't be read: %s", error)
                self._wake_all()
                continue
            except Exception:
                # If this ended, nobody would be woken any more but by announcements.
                log.exception("the versions of jobs can't be read; it is tried again")
                self._wake_all()
                continue
            for job_id, watches in self._watches.items():
                version = found.get(job_id)
                # What has no version of its own, a batch, is looked at by whoever waits for it.
                if version is None or self._seen.get(job_id) != version:
                    self._seen[job_id] = version
                    for watch in watches:
                        watch.wake()

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
