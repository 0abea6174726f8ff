"""Waiting for a job: woken by the workers' announcements, with a look at the database now and then."""

import asyncio
from collections.abc import Callable

from starlette.concurrency import run_in_threadpool

from app.problems import Problem
from app.service import Service
from jobs.models import Job, JobState

# The longest that one request is held.
MAX_WAIT_S = 30.0


async def wait_until(service: Service, job_id: str, enough: Callable[[Job], bool], seconds: float) -> Job:
    """The job as soon as `enough` says so, or as it is after `seconds`.

    Raises `Problem`: not-found for an id that was never given, erased for a tombstone.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + min(seconds, MAX_WAIT_S)
    # Watch first, look then: a change between the two would be missed the other way round.
    with service.feed.watch(job_id) as watch:
        while True:
            job = await find(service, job_id)
            left = deadline - loop.time()
            if enough(job) or left <= 0:
                return job
            await watch.changed(left)


async def find(service: Service, job_id: str) -> Job:
    """The job; raises `Problem`: not-found or erased."""
    job = await run_in_threadpool(service.store.get, job_id)
    if job is None:
        raise Problem("not-found", "There is no attribution with this id.")
    if job.state == JobState.ERASED:
        raise Problem("erased", "This attribution was deleted: its picture and its result are gone.")
    return job


def finished(job: Job) -> bool:
    """Whether nothing more will happen to a job by itself."""
    return job.finished


def etag(job: Job) -> str:
    """The entity tag of a job's answer. Weak: the time left in it may differ between two equal versions."""
    return f'W/"{job.version}"'


def matches(header: str | None, tag: str) -> bool:
    """Whether an If-None-Match header holds the tag (RFC 9110's weak comparison)."""
    if header is None:
        return False
    tags = [item.strip().removeprefix("W/") for item in header.split(",")]
    return "*" in tags or tag.removeprefix("W/") in tags
