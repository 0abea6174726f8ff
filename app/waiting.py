"""Waiting for a job: woken by the workers' announcements, with a look at the database now and then."""

import asyncio
import contextlib
import re
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from app.callers import Caller
from app.problems import Problem
from app.service import Service
from jobs.errors import StorageError
from jobs.ids import JOB_ID
from jobs.models import Job, JobState, Standing
from jobs.near import Looks

Seen = TypeVar("Seen", Job, Standing)
Found = TypeVar("Found")
Done = TypeVar("Done")

# The longest that one request is held.
MAX_WAIT_S = 30.0
PREFER_WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,9})\"?(?:$|[,;\s])", re.IGNORECASE)


async def wait_until(
    service: Service, caller: Caller, job_id: str, enough: Callable[[Standing], bool], seconds: float
) -> Standing:
    """How the job stands as soon as `enough` says so, or after `seconds`.

    Raises `Problem`: not-found for an id that was never given, erased for a tombstone.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + min(seconds, MAX_WAIT_S)
    # Watch first, look then: a change between the two would be missed the other way round.
    with service.feed.watch(job_id) as watch:
        while True:
            standing = await glance(service, lambda looks: look(looks.standing, caller, job_id))
            left = deadline - loop.time()
            if enough(standing) or left <= 0:
                return standing
            await watch.changed(left)


async def unless_gone(request: Request, work: Coroutine[Any, Any, Done]) -> Done | None:
    """What comes of the work; None, and it is given up, as soon as the request's client has gone.

    The body has to have been read.
    """
    working = asyncio.create_task(work)
    gone = asyncio.create_task(_gone(request))
    try:
        await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        working.cancel()
        gone.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def find(service: Service, caller: Caller, job_id: str) -> Job:
    """The caller's job of this id; raises `Problem`: not-found or erased."""
    return await run_in_threadpool(look, service.store.get, caller, job_id)


async def glance(service: Service, what: Callable[[Looks], Found]) -> Found:
    """What a short look at the database finds: from here where it is near, else in a thread."""
    if service.near is not None:
        with contextlib.suppress(StorageError):
            return what(service.near)
    return await run_in_threadpool(what, service.store)


def look(read: Callable[[str, str], Seen | None], caller: Caller, job_id: str) -> Seen:
    """What `read` finds of the caller's job; raises `Problem`: not-found or erased. Blocks for a moment."""
    # Whatever else is asked for was never given, and a database may choke on it.
    seen = read(job_id, caller.owner) if JOB_ID.fullmatch(job_id) else None
    if seen is None:
        raise Problem("not-found", "There is no attribution with this id.")
    if seen.state == JobState.ERASED:
        raise Problem("erased", "This attribution was deleted: its picture and its result are gone.")
    return seen


def finished(job: Job | Standing) -> bool:
    """Whether nothing more will happen to a job by itself."""
    return job.finished


def etag(job: Job | Standing, shown: str = "") -> str:
    """The entity tag of a job's answer. Weak: the time left in it may differ between two equal versions.

    Args:
        shown: what tells it from the same version told to others: the tag of their view, their language.
    """
    return f'W/"{job.version}{shown}"'


def matches(header: str | None, tag: str) -> bool:
    """Whether an If-None-Match header holds the tag (RFC 9110's weak comparison)."""
    if header is None:
        return False
    tags = [item.strip().removeprefix("W/") for item in header.split(",")]
    return "*" in tags or tag.removeprefix("W/") in tags


def preferred_wait(prefer: str | None) -> int | None:
    """The seconds of `Prefer: wait=N`, at most MAX_WAIT_S; None without it. RFC 7240: what isn't known is ignored."""
    found = PREFER_WAIT.search(prefer or "")
    return None if found is None else min(int(found[1]), int(MAX_WAIT_S))
