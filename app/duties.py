"""Duties: what a service does again and again beside answering requests.

By default every API process does them. With DAS_DUTIES=io-worker that is left to processes of `das io-worker`, which
are as many as one likes: each duty takes what is due in the database by lease or in one statement, so that what one
process does no other does as well, and what a killed one had begun another takes up.

To add one, write a function that makes a `Duty` of a `Service`, and name it in `MAKERS`.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

from app.decisions import LOOK_EVERY_S, decide_due
from app.metrics.meters import Meters
from app.service import Service
from app.threads import RunInThread
from app.unpacking import keep_unpacking
from app.webhooks.delivering import Deliverer
from jobs.errors import StorageError
from jobs.outages import OUTAGE
from jobs.retention import Retention
from jobs.sweeper import Sweeper

logger = logging.getLogger(__name__)

DELIVER_EVERY_S = 0.5
TIDY_EVERY_S = 600.0
DROP_EVERY_S = 60.0
RETAIN_EVERY_S = 20.0
# After it failed; it ends by itself never.
UNPACK_AGAIN_S = 5.0
# Duties that block at once, in threads of their own: however many requests there are, these come to their turn.
THREADS = 4


@dataclass(frozen=True)
class Duty:
    """Something that is done every `every_s` seconds. `once` does what is due and comes back, or goes on and on.

    `at_start`: whether that is done when the process starts, too. `everywhere`: it is about the process itself, so
    that an API process does it whoever has the other duties. `stop` lets what `once` has begun come to its end.
    """

    name: str
    every_s: float
    once: Callable[[], Awaitable[object]]
    at_start: bool = True
    everywhere: bool = False
    stop: Callable[[], Awaitable[object]] | None = None


Maker = Callable[[Service, RunInThread], Duty]


def forgetting(service: Service, threads: RunInThread) -> Duty:
    """See that what this process erased stands in no log of the database."""
    again = partial(threads, service.store.database.forget_again)
    return Duty("forget", service.settings.sweep_seconds, again, everywhere=True)


def sweeping(service: Service, threads: RunInThread) -> Duty:
    """Find jobs that would wait for ever."""
    sweeper = Sweeper(service.settings, service.store, service.doorbell)
    return Duty("sweep", service.settings.sweep_seconds, partial(threads, sweeper.sweep_once), at_start=False)


def tidying(service: Service, threads: RunInThread) -> Duty:
    """Remove what nobody needs any more, and keep room for erasing."""
    store = service.store

    def tidy() -> None:
        store.upkeep.tidy()
        store.webhook_deliveries.forget_old()

    return Duty("tidy", TIDY_EVERY_S, partial(threads, tidy), at_start=False)


def retaining(service: Service, threads: RunInThread) -> Duty:
    """Remove pictures and questions that were kept for long enough."""
    retention = Retention(service.store, service.batches)
    return Duty("retain", RETAIN_EVERY_S, partial(threads, retention.round), at_start=False)


def dropping(service: Service, threads: RunInThread) -> Duty:
    """Drop what the audit log has had for long enough, sessions that have ended, and what was shown a day ago."""
    store, kept = service.store, timedelta(seconds=service.settings.keep_audit_seconds)

    def drop() -> None:
        store.audit.drop_old(kept)
        store.sessions.drop_ended()
        store.revealed.drop_old()

    return Duty("drop", DROP_EVERY_S, partial(threads, drop), at_start=False)


def deciding(service: Service, threads: RunInThread) -> Duty:
    """Make decisions whose questions have ended."""
    failed: set[str] = set()
    return Duty("decide", LOOK_EVERY_S, partial(decide_due, service, threads, failed))


def unpacking(service: Service, _threads: RunInThread) -> Duty:
    """Make questions of the pictures of batches."""
    return Duty("unpack", UNPACK_AGAIN_S, partial(keep_unpacking, service))


def delivering(service: Service, threads: RunInThread) -> Duty:
    """Send webhooks."""
    deliverer = Deliverer(service.store.webhook_deliveries, service.connector, threads)
    return Duty("deliver", DELIVER_EVERY_S, deliverer.deliver_due, stop=deliverer.stop)


MAKERS: tuple[Maker, ...] = (
    forgetting,
    sweeping,
    tidying,
    retaining,
    dropping,
    deciding,
    unpacking,
    delivering,
)


@contextlib.asynccontextmanager
async def performing(service: Service, *, here: bool) -> AsyncIterator[list[str]]:
    """Perform the duties for the length of the block; yields their names.

    Args:
        here: False leaves those that aren't about this process to others.
    """
    threads = RunInThread(THREADS)
    duties = [duty for make in MAKERS if (duty := make(service, threads)).everywhere or here]
    tasks = [asyncio.create_task(_perform(duty, service.meters), name=duty.name) for duty in duties]
    try:
        yield [duty.name for duty in duties]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for duty in duties:
            if duty.stop is not None:
                await duty.stop()


async def _perform(duty: Duty, meters: Meters) -> None:
    if not duty.at_start:
        await asyncio.sleep(duty.every_s)
    while True:
        try:
            await duty.once()
            meters.round(duty.name, True)
            OUTAGE.worked(duty.name)
        except StorageError as error:
            meters.round(duty.name, False)
            OUTAGE.failed(duty.name, error)
        except Exception:
            meters.round(duty.name, False)
            logger.exception("%s failed; it is tried again in %g s", duty.name, duty.every_s)
        await asyncio.sleep(duty.every_s)
