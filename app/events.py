"""A question's events as they happen (server-sent events), for as long as it isn't finished.

What happens to a job is kept in order with a number, which is the event's id: who lost the connection says the last
one that came, and is told the rest. Progress is told in between, without an id, since only the latest counts.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from datetime import datetime
from typing import Literal

from pydantic import BaseModel, Field
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from app.answers import progress_of
from app.callers import Caller
from app.problems import FieldProblem, Problem
from app.schemas import Failure, Progress
from app.service import Service
from app.waiting import glance, look
from jobs.errors import StorageError
from jobs.models import Event, Standing
from jobs.near import Looks

logger = logging.getLogger(__name__)

MEDIA_TYPE = "text/event-stream"
# Proxies end a connection on which nothing came for a minute, most of them.
HEARTBEAT_S = 15.0
HEARTBEAT = b": still there\n\n"
# A stream ends after this, and its client opens another: so nothing that holds for its caller holds for ever.
MAX_STREAM_S = 900.0
# How long a browser waits before it opens a stream again.
RETRY = b"retry: 2000\n\n"
# A proxy that gathers an answer before it passes it on would hold up every event.
HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
LONGEST_NUMBER = 18
LAST_KINDS = ("succeeded", "failed", "cancelled", "erased")


class AttributionEvent(BaseModel):
    """The `data` of an event; its name is `kind`."""

    attribution_id: str
    kind: Literal["created", "screened", "started", "retrying", "succeeded", "failed", "cancelled", "erased"]
    at: datetime
    attempt: int | None = Field(None, description="Of `started` and `retrying`: how often it was started.")
    reason: str | None = Field(None, description="Of `retrying`: what became of the attempt before.")
    error: Failure | None = Field(None, description="Of `failed`.")


class ProgressEvent(BaseModel):
    """The `data` of an event named `progress`, which has no id."""

    attribution_id: str
    progress: Progress


class EventStream(StreamingResponse):
    """A stream that gives back all that it holds as soon as it ends, by itself or because its client has gone."""

    media_type = MEDIA_TYPE

    def __init__(self, events: AsyncGenerator[bytes, None], at_end: Callable[[], None]) -> None:
        super().__init__(events, headers=HEADERS)
        self._events = events
        self._at_end = at_end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            try:
                await self._events.aclose()
            finally:
                self._at_end()


def last_event(header: str | None) -> int:
    """The number in a Last-Event-ID; 0 without one. Raises `Problem` for what was no id of ours."""
    if not header:
        return 0
    if header.isascii() and header.isdigit() and len(header) <= LONGEST_NUMBER:
        # PostgreSQL's numbers of events end there.
        return min(int(header), 2**31 - 1)
    why = "is no id of an event of this service; leave it out to have all of them."
    raise Problem(
        "invalid-request", f"Last-Event-ID: {why}", errors=[FieldProblem(detail=why, header="Last-Event-ID")]
    )


async def stream(service: Service, caller: Caller, job_id: str, after: int) -> Response | None:
    """The events of the caller's question from the one after number `after` on; None where none is left to come.

    Raises `Problem`: not-found, erased, too-many-streams, busy.
    """

    def look_once(looks: Looks) -> Sequence[Event] | None:
        finished = look(looks.standing, caller, job_id).finished
        return looks.events(job_id, after) if finished else None

    rest = await glance(service, look_once)
    if rest is None:
        give_back = service.streams.take(caller.owner)
        return EventStream(_events(service, caller, job_id, after), give_back)
    # Nothing more will come: this takes no stream.
    told = b"".join(_written(event) for event in rest)
    return Response(RETRY + told, media_type=MEDIA_TYPE, headers=HEADERS) if rest else None


async def _events(service: Service, caller: Caller, job_id: str, after: int) -> AsyncGenerator[bytes, None]:
    now = asyncio.get_running_loop().time
    ends = now() + MAX_STREAM_S
    yield RETRY
    spoke = now()
    version, told = 0, None

    def look_again(looks: Looks) -> tuple[Standing, Sequence[Event]]:
        # What happens between the two is told by the events first.
        standing = look(looks.standing, caller, job_id)
        return standing, () if standing.version == version else looks.events(job_id, after)

    # Watch first, look then: a change between the two would be missed the other way round.
    with service.feed.watch(job_id) as watch, _ending_quietly(job_id):
        while now() < ends:
            try:
                standing, events = await glance(service, look_again)
            except Problem:
                # Erased while somebody looked on. That is the only event left, and SQLite may give it the number of
                # one that is gone.
                for event in await glance(service, lambda looks: looks.events(job_id)):
                    yield _written(event)
                return
            for event in events:
                after = event.id
                yield _written(event)
                spoke = now()
                if event.kind in LAST_KINDS:
                    return
            if standing.finished:
                return
            if standing.version != version:
                version = standing.version
                progress = _progress(standing)
                if progress != told:
                    told = progress
                    yield progress
                    spoke = now()
            if now() - spoke >= HEARTBEAT_S:
                yield HEARTBEAT
                spoke = now()
            await watch.changed(min(ends, spoke + HEARTBEAT_S) - now())


@contextlib.contextmanager
def _ending_quietly(job_id: str) -> Iterator[None]:
    """A database that can't be read ends the stream; its client opens another, and then it is told what is wrong."""
    try:
        yield
    except StorageError as error:
        logger.warning("the events of %s can't be read: %s", job_id, error)


def _written(event: Event) -> bytes:
    data = dict(event.data)
    error = Failure.model_validate(data) if event.kind == "failed" else None
    told = AttributionEvent(
        attribution_id=event.job_id,
        kind=event.kind,  # type: ignore[arg-type]
        at=event.at,
        attempt=data.get("attempt"),
        reason=data.get("reason"),
        error=error,
    )
    return _frame(event.kind, told, event.id)


def _progress(standing: Standing) -> bytes:
    told = ProgressEvent(attribution_id=standing.id, progress=progress_of(standing, None))
    return _frame("progress", told, None)


def _frame(name: str, data: BaseModel, number: int | None) -> bytes:
    """An event on the wire. JSON has no line ends of its own, so one line of data is enough."""
    numbered = "" if number is None else f"id: {number}\n"
    return f"event: {name}\n{numbered}data: {data.model_dump_json()}\n\n".encode()
