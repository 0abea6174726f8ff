"""The way of one upload: bytes, normalised pixels, look-alikes and job row, doorbell."""

import asyncio
import errno
import logging
from dataclasses import replace

from starlette.concurrency import run_in_threadpool

from app.callers import Caller
from app.candidates import wanted_count
from app.catalogue import ServedIndex
from app.patience import until_room
from app.problems import Problem, invalid, refused_image
from app.schemas import AttributionRequest
from app.screening import Nearest, ScreeningError
from app.service import Service
from das.errors import ImageRefused
from das.images import NormalisedImage, encode_png
from das.index import NO_SCREENING
from das.provenance import defaults
from jobs.batch_rows import ItemClaim
from jobs.errors import QueueFull, StorageError
from jobs.idempotency import Claim
from jobs.models import Job, JsonObject, NewJob
from jobs.turns import BULK_PRIORITY

logger = logging.getLogger(__name__)

# CLIP similarities kept with a question: the first are its look-alikes, the others are shown beside works that
# turn out to have had influence. Beyond these a similarity is null in the answer.
SIMILARITIES_KEPT = 200
# How long an answer is held back for its look-alikes. They take milliseconds, except while CLIP is loading. With more
# pictures before this one than `WORTH_WAITING` it isn't held back at all: they are told as soon as they are there.
SCREENING_PATIENCE_S = 2.0
WORTH_WAITING = 2
UNHELD_RETRY_S = 30
OUT_OF_SPACE = (errno.ENOSPC, errno.EDQUOT)


async def accept(
    service: Service,
    caller: Caller,
    served: ServedIndex,
    data: bytes,
    asked: AttributionRequest,
    known: JsonObject | None = None,
    claim: Claim | None = None,
    item: ItemClaim | None = None,
    webhook_endpoint: str | None = None,
) -> Job:
    """Keep an upload and set it going; the job comes back with its look-alikes where they could be had in time.

    Args:
        known: of a picture that is asked about again, the `input` that its file made; `data` is the stored picture.
        claim: of the request's Idempotency-Key, completed together with the job.
        item: of a batch, which the job is. Nobody waits for its answer, so its look-alikes are waited for.
        webhook_endpoint: the id of the only endpoint that hears of it; default: all of its owner.

    Raises `Problem` where the picture, the queue or the storage doesn't allow it; nothing is kept then.
    """
    refuse_unscreened(served, asked)
    image = await _normalise(service, caller, data)
    png = await run_in_threadpool(encode_png, image.pixels)
    method = asked.method or served.methods[0]
    count = None
    if served.index.screened:
        count = wanted_count(asked.candidates, len(served), served.feature_bytes(method))
    taken = defaults(image.declared, asked.prompt, asked.seed)
    declared = None
    if image.declared is not None:
        declared = {**image.declared.as_json(), "taken": list(taken.fields)}
    new = NewJob(
        owner=caller.owner,
        index_id=served.id,
        method=method,
        prompt=taken.prompt,
        seed=taken.seed,
        traceparent=service.meters.tracing.current(),
        priority=0 if item is None else BULK_PRIORITY,
        webhook_endpoint=webhook_endpoint,
        **asked.model_dump(exclude={"index", "method", "prompt", "seed", "webhook_url"}),
        input=known
        or {
            "sha256": image.sha256,
            "width": image.width,
            "height": image.height,
            "format": image.format,
            "normalisation": list(image.steps),
            "declared": declared,
        },
    )
    if count is None:
        return await _ask_all(service, new, image, png, claim, item)
    return await _ask_screened(service, new, image, png, count, claim, item)


def refuse_unscreened(served: ServedIndex, asked: AttributionRequest) -> None:
    """Raises `Problem` where candidates are to be screened and the index was built without that."""
    if asked.candidates.isdecimal() and not served.index.screened:
        raise invalid("candidates", f"{served.id} {NO_SCREENING} Ask for all.")


async def refuse_when_full(service: Service, caller: Caller) -> None:
    """Answer 503 or 429 before a body is read that could only be thrown away."""
    await service.limiter.refuse_exhausted(caller)
    try:
        await run_in_threadpool(service.store.check_room, caller.owner)
    except QueueFull as error:
        raise await run_in_threadpool(queue_full, service, error) from error


async def refuse_unheld(service: Service, index_id: str) -> None:
    """Answer 503 where no worker could answer. While the service starts, one may be about to say that it can."""
    if service.starting or index_id in await run_in_threadpool(service.store.workers.reach):
        return
    raise Problem(
        "not-ready",
        f"No worker holds the index {index_id} at the moment: start one whose DAS_INDEX_DIR has it.",
        {"Retry-After": str(UNHELD_RETRY_S)},
    )


async def _ask_all(
    service: Service,
    new: NewJob,
    image: NormalisedImage,
    png: bytes,
    claim: Claim | None,
    item: ItemClaim | None,
) -> Job:
    """Every work is scored, so the worker can begin at once; CLIP looks for look-alikes meanwhile."""
    patience: float | None = SCREENING_PATIENCE_S if service.screener.unanswered <= WORTH_WAITING else 0.0
    if item is not None:
        patience = None
    screening = asyncio.create_task(_nearest(service, new.index_id, image, SIMILARITIES_KEPT))
    try:
        job = await _create(service, new, png, claim, item)
    except BaseException:
        screening.cancel()
        raise
    await run_in_threadpool(service.doorbell.ring, job.id)
    following = asyncio.create_task(_add_lookalikes(service, job.id, screening))
    service.keep(following)
    await asyncio.wait({following}, timeout=patience)
    return await run_in_threadpool(service.store.get, job.id) or job


async def _ask_screened(
    service: Service,
    new: NewJob,
    image: NormalisedImage,
    png: bytes,
    count: int,
    claim: Claim | None,
    item: ItemClaim | None,
) -> Job:
    """CLIP chooses the candidates, so it comes first; should it fail, all works are scored instead."""
    found = await _nearest(service, new.index_id, image, max(count, SIMILARITIES_KEPT))
    if found is not None:
        new = replace(new, lookalikes=_lookalikes(found), candidate_works=found.work_ids[:count])
    job = await _create(service, new, png, claim, item)
    await run_in_threadpool(service.doorbell.ring, job.id)
    return job


async def _nearest(service: Service, index_id: str, image: NormalisedImage, count: int) -> Nearest | None:
    try:
        with service.meters.step("screening"):
            return await service.screener.nearest(index_id, image.pixels, count)
    except ScreeningError as error:
        logger.warning("no look-alikes: %s", error)
        return None


async def _add_lookalikes(service: Service, job_id: str, screening: "asyncio.Task[Nearest | None]") -> None:
    found = await screening
    if found is None:
        return
    try:
        await run_in_threadpool(service.store.set_screened, job_id, _lookalikes(found))
    except StorageError as error:
        logger.warning("the look-alikes of %s couldn't be kept: %s", job_id, error)


def _lookalikes(found: Nearest) -> list[JsonObject]:
    pairs = zip(found.work_ids[:SIMILARITIES_KEPT], found.similarities, strict=False)
    return [{"work_id": work_id, "similarity": round(similarity, 6)} for work_id, similarity in pairs]


async def _normalise(service: Service, caller: Caller, data: bytes) -> NormalisedImage:
    async with service.decoding.turn(caller.address):
        try:
            with service.meters.step("decoding"):
                return await run_in_threadpool(service.normaliser.normalise, data)
        except ImageRefused as error:
            raise refused_image(error) from error


async def _create(
    service: Service, new: NewJob, png: bytes, claim: Claim | None, item: ItemClaim | None
) -> Job:
    try:
        return await run_in_threadpool(service.store.create, new, png, claim, item)
    except QueueFull as error:
        raise await run_in_threadpool(queue_full, service, error) from error


def queue_full(service: Service, error: QueueFull) -> Problem:
    """The 503 for a full queue, which says when to come back. Blocks for a moment."""
    seconds = until_room(service.store.pace, error.ahead)
    return Problem("queue-full", f"{error}.", {"Retry-After": str(seconds)})


def storage_problem(error: StorageError | OSError) -> Problem:
    """The problem for a disk, blob store or database that fails; whether the disk is full decides which."""
    cause: BaseException | None = error
    while cause is not None:
        full = isinstance(cause, OSError) and cause.errno in OUT_OF_SPACE
        if full or "database or disk is full" in str(cause):
            return Problem("storage-full", "The server has no room left for the picture. Nothing was kept.")
        cause = cause.__cause__
    return Problem(
        "storage-unavailable", "The storage can't be reached at the moment.", {"Retry-After": "10"}
    )
