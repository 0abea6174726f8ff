"""The parts that the routes share, made at the start and ended at the stop of one API process."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, cast

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from app.catalogue import Catalogue
from app.samples import Samples
from app.screening import Screener
from das.images import ImageLimits, IsolatedNormaliser
from jobs.notify import ChangeFeed
from jobs.queue import Doorbell
from jobs.settings import Settings
from jobs.store import JobStore
from jobs.sweeper import Sweeper

logger = logging.getLogger(__name__)

# Uploads that are decoded at once. The decoder is one child process; what waits behind it holds its bytes in memory.
DECODING_AT_ONCE = 4


@dataclass
class Service:
    """Everything a route needs, hung on `app.state.service`."""

    settings: Settings
    store: JobStore
    catalogue: Catalogue
    screener: Screener
    samples: Samples
    normaliser: IsolatedNormaliser
    doorbell: Doorbell
    feed: ChangeFeed
    decoding: asyncio.Semaphore
    background: set[asyncio.Task[Any]]

    def keep(self, task: "asyncio.Task[Any]") -> None:
        """Let a task outlive its request; the event loop itself holds tasks only weakly."""
        self.background.add(task)
        task.add_done_callback(self.background.discard)


def service_of(request: Request) -> Service:
    return cast(Service, request.app.state.service)


@contextlib.asynccontextmanager
async def running_service(settings: Settings) -> AsyncIterator[Service]:
    """The service for the length of the block. The database has been brought up to date before."""
    catalogue = await run_in_threadpool(Catalogue.open, settings)
    if catalogue.missing:
        logger.error("no index: %s", catalogue.missing)
    store = await run_in_threadpool(JobStore, settings)
    limits = ImageLimits(max_bytes=settings.max_upload_bytes, max_pixels=settings.max_pixels)
    service = Service(
        settings=settings,
        store=store,
        catalogue=catalogue,
        screener=Screener(list(catalogue)),
        samples=Samples(settings.samples_dir),
        normaliser=IsolatedNormaliser(limits),
        doorbell=Doorbell(settings),
        feed=ChangeFeed(settings),
        decoding=asyncio.Semaphore(DECODING_AT_ONCE),
        background=set(),
    )
    sweeper = Sweeper(settings, store, service.doorbell)
    service.screener.start()
    await service.feed.start()
    sweeper.start()
    # The first question shall not wait for the connection that its bell takes.
    service.keep(asyncio.create_task(run_in_threadpool(service.doorbell.connect)))
    try:
        yield service
    finally:
        service.screener.close()
        for task in list(service.background):
            task.cancel()
        await service.feed.stop()
        await run_in_threadpool(sweeper.stop)
        await run_in_threadpool(service.normaliser.close)
        service.doorbell.close()
        store.close()
