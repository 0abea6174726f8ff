"""The parts that the routes share, made at the start and ended at the stop of one API process."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

from anyio import CapacityLimiter
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from app.access import Access
from app.addresses import Allowed
from app.bodies import Bodies
from app.budgets import Budgets
from app.catalogue import Catalogue
from app.connecting import Connector
from app.fetching import Fetcher
from app.limiting import Limiter
from app.metrics.meters import Meters
from app.metrics.whole import Whole
from app.recent import RecentAnswers
from app.report.signing import certificate_of
from app.samples import Samples
from app.screening import Screener
from app.sessions import Sessions
from app.sign_ins import SignIns
from app.streams import Streams
from app.turns import Turns
from app.versions import Versions, loaded_by
from app.visibility import Visibility
from das.evidence.certificate import Certificate
from das.evidence.seal import SigningKey
from das.images import ImageLimits, IsolatedNormaliser
from jobs.batches import Batches
from jobs.keys import Keys
from jobs.near import Near
from jobs.notify import ChangeFeed
from jobs.queue import Doorbell
from jobs.rows import name_works
from jobs.settings import Settings
from jobs.store import JobStore
from jobs.workers import COMING_BACK

logger = logging.getLogger(__name__)

# Pictures that are decoded at once, each in a process of its own.
DECODERS = 2
# Pictures that may wait for a decoder, and for how long: whoever waits holds their bytes in memory.
DECODING_QUEUE = 32
DECODING_PATIENCE_S = 30.0
# Pictures that are fetched from their addresses at once, and how many may wait for that and for how long. A fetch
# takes as long as somebody else's server likes, up to its limit.
FETCHES = 8
FETCHING_QUEUE = 64
FETCHING_PATIENCE_S = 20.0
# Reports that are drawn as PDF at once, each for seconds in a process of its own; as above.
DRAWINGS = 1
DRAWING_QUEUE = 16
DRAWING_PATIENCE_S = 60.0
# Bodies that are parsed at once. Each takes several times its size in memory, and a part of this process's one
# interpreter, meanwhile.
PARSING_AT_ONCE = 1


@dataclass
class Service:
    """Everything a route needs, hung on `app.state.service`."""

    settings: Settings
    store: JobStore
    near: Near | None
    batches: Batches
    catalogue: Catalogue
    versions: Versions
    visibility: Visibility
    budgets: Budgets
    keys: Keys
    sessions: Sessions
    sign_ins: SignIns
    access: Access
    limiter: Limiter
    screener: Screener
    samples: Samples
    normaliser: IsolatedNormaliser
    doorbell: Doorbell
    feed: ChangeFeed
    recent: RecentAnswers
    bodies: Bodies
    parsing: CapacityLimiter
    decoding: Turns
    fetcher: Fetcher
    connector: Connector
    fetching: Turns
    streams: Streams
    backtesting: CapacityLimiter
    background: set[asyncio.Task[Any]]
    meters: Meters
    drawing: Turns
    signing_key: SigningKey | None = None
    certificate: Certificate | None = None
    started_at: float = field(default_factory=time.monotonic)

    @property
    def starting(self) -> bool:
        """Whether the service is so young that its workers may not have spoken yet."""
        return time.monotonic() - self.started_at < COMING_BACK.total_seconds()

    def keep(self, task: "asyncio.Task[Any]") -> None:
        """Let a task outlive its request; the event loop itself holds tasks only weakly."""
        self.background.add(task)
        task.add_done_callback(self.background.discard)


def service_of(request: Request) -> Service:
    return cast(Service, request.app.state.service)


def _opened(settings: Settings, store: JobStore) -> Catalogue:
    """The indexes, of each the version that workers have loaded where there is one: what they haven't comes later."""
    return Catalogue.open(settings, loaded_by(store.workers.known()))


def _name_works(store: JobStore, catalogue: Catalogue) -> None:
    for served in catalogue:
        named = name_works(store.database, served.id, partial(served.index.works.column, "id"))
        if named:
            logger.info("%d answers of an earlier version now name the works of %s by id", named, served.id)


@contextlib.asynccontextmanager
async def running_service(settings: Settings, meters: Meters | None = None) -> AsyncIterator[Service]:
    """The service for the length of the block. The database has been brought up to date before."""
    meters = meters or Meters()
    key_file = settings.report_key_file
    signing_key = None if key_file is None else await run_in_threadpool(SigningKey.read, key_file)
    certificate = await run_in_threadpool(certificate_of, settings)
    store = await run_in_threadpool(JobStore, settings)
    catalogue = await run_in_threadpool(_opened, settings, store)
    if catalogue.missing:
        logger.error("no index: %s", catalogue.missing)
    await run_in_threadpool(_name_works, store, catalogue)
    limits = ImageLimits(max_bytes=settings.max_upload_bytes, max_pixels=settings.max_pixels)
    limiter = Limiter(settings)
    connector = Connector(Allowed.of(settings.fetch_allowed))
    keys, sessions = Keys(store.database), await run_in_threadpool(Sessions, settings, store.sessions)
    budgets = Budgets(settings, store.revealed, keys)
    visibility = await run_in_threadpool(Visibility, settings, catalogue, store.opt_outs, budgets)
    screener = Screener(list(catalogue))
    service = Service(
        settings=settings,
        store=store,
        near=await run_in_threadpool(Near.to, settings),
        batches=Batches(store),
        catalogue=catalogue,
        versions=Versions(settings, store, catalogue, visibility, screener),
        visibility=visibility,
        budgets=budgets,
        keys=keys,
        sessions=sessions,
        sign_ins=SignIns(keys, store.audit),
        access=Access(settings, keys, sessions, limiter),
        limiter=limiter,
        screener=screener,
        samples=Samples(settings.samples_dir),
        normaliser=IsolatedNormaliser(limits, processes=DECODERS),
        doorbell=Doorbell(settings),
        feed=ChangeFeed(settings, store.versions),
        recent=RecentAnswers(),
        bodies=Bodies(settings.bodies_in_flight_bytes, settings.body_seconds, settings.body_stall_seconds),
        parsing=CapacityLimiter(PARSING_AT_ONCE),
        decoding=Turns(DECODERS, DECODING_QUEUE, DECODING_PATIENCE_S),
        fetcher=Fetcher(connector),
        connector=connector,
        fetching=Turns(FETCHES, FETCHING_QUEUE, FETCHING_PATIENCE_S),
        streams=Streams(settings.streams_limit, settings.owner_streams_limit),
        backtesting=CapacityLimiter(1),
        background=set(),
        meters=meters,
        drawing=Turns(DRAWINGS, DRAWING_QUEUE, DRAWING_PATIENCE_S, "reports are being drawn"),
        signing_key=signing_key,
        certificate=certificate,
    )
    meters.registry.register(Whole(service))
    await run_in_threadpool(store.database.keep_reserve)
    service.screener.start()
    await service.feed.start()
    # The first question shall not wait for the connection that its bell takes.
    service.keep(asyncio.create_task(run_in_threadpool(service.doorbell.connect)))
    service.keep(asyncio.create_task(service.visibility.keep_looking()))
    service.keep(asyncio.create_task(service.versions.keep_looking()))
    try:
        yield service
    finally:
        service.screener.close()
        for task in list(service.background):
            task.cancel()
        await service.feed.stop()
        await run_in_threadpool(service.normaliser.close)
        service.doorbell.close()
        if service.near is not None:
            service.near.close()
        store.close()
