"""Reading the pictures of batches: a loop of each API process makes questions of what waits, as the queue has room.

Few are read at once and one goes through decoder and CLIP at a time, when nobody else's picture waits there: whoever
asks one question is not held up by the pictures of a batch. What can't be had at this moment, because a queue is full
or a disk, waits on; what is wrong with a picture ends it. A process that is killed loses its hold on what it was
reading, and another goes on with it.
"""

import asyncio
import logging
import time

from starlette.concurrency import run_in_threadpool

from app import batches, intake
from app.callers import Caller
from app.problems import CATALOGUE, Problem
from app.schemas import AttributionRequest
from app.service import Service
from app.uploads import fetched
from jobs.batch_rows import ItemClaim, ItemLost
from jobs.batches import HELD_FOR
from jobs.errors import QueueFull, StorageError
from jobs.outages import OUTAGE

logger = logging.getLogger(__name__)

# Pictures that are read at once: most of one's time may be somebody else's server, where it is an address.
AT_ONCE = 4
LOOK_EVERY_S = 0.5
RENEW_EVERY_S = HELD_FOR.total_seconds() / 3
MEND_EVERY_S = 600.0
# When what couldn't be done for a reason that passes is tried again.
RETRY_S = 5.0
ROOM_RETRY_S = 1.0
# Others go first at CLIP, for so long: then they come without a pause.
YIELD_S = 10.0
YIELD_LOOK_S = 0.05


async def keep_unpacking(service: Service) -> None:
    """Make questions of the pictures of batches, for as long as the service runs. Any number may do so at once."""
    one_at_a_time = asyncio.Lock()
    reading: dict[asyncio.Task[None], ItemClaim] = {}
    renewed, mended = time.monotonic(), -MEND_EVERY_S
    while True:
        try:
            if reading and time.monotonic() - renewed > RENEW_EVERY_S:
                renewed = time.monotonic()
                await run_in_threadpool(service.batches.renew, [claim.token for claim in reading.values()])
            if time.monotonic() - mended > MEND_EVERY_S:
                mended = time.monotonic()
                await run_in_threadpool(service.batches.mend)
            claim = None if len(reading) >= AT_ONCE else await run_in_threadpool(service.batches.take)
        except StorageError as error:
            OUTAGE.failed("unpack", error)
            claim = None
        else:
            OUTAGE.worked("unpack")
        if claim is not None:
            task = asyncio.create_task(_read(service, claim, one_at_a_time))
            service.keep(task)
            reading[task] = claim
        elif reading:
            await asyncio.wait(reading, timeout=LOOK_EVERY_S, return_when=asyncio.FIRST_COMPLETED)
        else:
            await asyncio.sleep(LOOK_EVERY_S)
        reading = {task: held for task, held in reading.items() if not task.done()}


async def _read(service: Service, claim: ItemClaim, one_at_a_time: asyncio.Lock) -> None:
    """Bring an item that is held one step further, whatever happens; it raises nothing."""
    try:
        try:
            await _ask(service, claim, one_at_a_time)
        except QueueFull:
            # For all that its owner has waiting, or each of them would be tried in turn.
            await run_in_threadpool(service.batches.put_back, claim, ROOM_RETRY_S)
            await run_in_threadpool(service.batches.defer, claim.owner, ROOM_RETRY_S)
        except Problem as problem:
            await _not_now_or_never(service, claim, problem)
        except ItemLost:
            logger.info("item %d of %s was ended meanwhile", claim.position, claim.batch_id)
        except StorageError:
            raise
        except Exception:
            logger.exception("item %d of %s can't be read", claim.position, claim.batch_id)
            await run_in_threadpool(lambda: service.batches.put_back(claim, RETRY_S, counts=True))
    except StorageError as error:
        # Its hold runs out, and it is tried again.
        logger.warning("item %d of %s waits: %s", claim.position, claim.batch_id, error)


async def _ask(service: Service, claim: ItemClaim, one_at_a_time: asyncio.Lock) -> None:
    await run_in_threadpool(lambda: service.store.check_room(claim.owner, bulk=True))
    asked = AttributionRequest(**claim.asked)
    # Others see this index only if their key lets them, which was looked at when the batch came.
    served = service.catalogue.choose(asked.index)
    # An address of its own, so that a batch takes turns at decoder and fetcher as one more caller would.
    caller = Caller(claim.owner, address=f"batches of {claim.owner}")
    picture = claim.address
    source = await run_in_threadpool(service.batches.picture, claim) if picture is None else picture
    async with fetched(service, caller, source) as data, one_at_a_time:
        await _let_others_go_first(service)
        await intake.accept(
            service, caller, served, data, asked, item=claim, webhook_endpoint=claim.webhook_endpoint
        )
    await run_in_threadpool(service.batches.ended, claim)


async def _let_others_go_first(service: Service) -> None:
    deadline = time.monotonic() + YIELD_S
    while service.screener.unanswered and time.monotonic() < deadline:
        await asyncio.sleep(YIELD_LOOK_S)


async def _not_now_or_never(service: Service, claim: ItemClaim, problem: Problem) -> None:
    if CATALOGUE[problem.code].status < 500:
        await run_in_threadpool(service.batches.fail, claim, batches.item_problem(problem))
        return
    logger.info("item %d of %s waits: %s", claim.position, claim.batch_id, problem.detail)
    await run_in_threadpool(service.batches.put_back, claim, RETRY_S)
