"""What can be done with batches: the use cases of `/v1/attribution-batches`."""

import asyncio
from collections.abc import AsyncGenerator, Sequence

from starlette.concurrency import run_in_threadpool

from app import answers, intake, questions
from app.batch_schemas import (
    Batch,
    BatchItem,
    BatchList,
    BatchListQuery,
    BatchResult,
    BatchSummary,
    ItemProblem,
)
from app.batch_uploads import Sent, SentBatch, beneath
from app.callers import Caller
from app.catalogue import Catalogue, ServedIndex
from app.problems import CATALOGUE, Problem, bad_parameter, invalid
from app.schemas import AttributionRequest
from app.service import Service
from app.uploads import too_large
from app.waiting import MAX_WAIT_S, matches
from app.webhooks import endpoints
from jobs import batch_rows
from jobs.batch_rows import BATCH_ID, BatchNotFound, BatchState, NewItem
from jobs.batches import BatchFilters, is_open
from jobs.errors import BadCursor, QueueFull
from jobs.idempotency import Claim
from jobs.models import Job, JsonObject

PATH = "/v1/attribution-batches"
GONE = "This batch was deleted: its pictures and their results are gone."
NOT_FOUND = "There is no batch with this id."
# Items whose whole answers are read at once, while results are told.
READ_AT_ONCE = 5
# A failure of the question, not of the request: no status of HTTP means it.
FAILED = "The question ended without an answer"


async def refuse_when_full(service: Service, caller: Caller) -> None:
    """Answer 503 or 429 before a body is read that could only be thrown away."""
    await service.limiter.refuse_exhausted(caller)
    try:
        await run_in_threadpool(service.batches.check_room, caller.owner, 1)
    except QueueFull as error:
        raise await run_in_threadpool(intake.queue_full, service, error) from error


async def create(
    service: Service, caller: Caller, sent: SentBatch, claim: Claim | None = None
) -> batch_rows.BatchSummary:
    """Accept a batch: all of its pictures or, where the request, the quota or the storage doesn't allow it, none.

    What is wrong with a picture fails that picture, when it is read.

    Args:
        claim: of the request's Idempotency-Key, completed together with the batch.
    """
    catalogue = service.catalogue.within(caller.indexes)
    items = [_checked(service, catalogue, item, sent.shared) for item in sent.items]
    endpoint = await endpoints.chosen(service, caller, sent.shared.webhook_url)
    for index_id in {catalogue.choose(item.asked["index"]).id for item in items}:
        await intake.refuse_unheld(service, index_id)
    await service.limiter.questions(caller, len(items))
    try:
        return await run_in_threadpool(
            service.batches.create, caller.owner, items, sent.shared.client_tag, claim, endpoint
        )
    except BaseException as error:
        await service.limiter.give_back(caller, len(items))
        if isinstance(error, QueueFull):
            raise await run_in_threadpool(intake.queue_full, service, error) from error
        raise


async def told(
    service: Service, caller: Caller, batch_id: str, after: int = 0, limit: int = 100
) -> tuple[batch_rows.BatchSummary, Batch]:
    """A batch as it is kept, and as it is told with a page of its items; both are of the same moment.

    Raises `Problem`: not-found or erased.
    """
    found = await run_in_threadpool(service.batches.get_with_items, batch_id, caller.owner, after, limit + 1)
    batch = _there(None if found is None else found[0])
    items = [] if found is None else found[1]
    shown = await run_in_threadpool(_items, service, caller, items[:limit])
    return batch, Batch(
        **_summary(batch).model_dump(),
        items=shown,
        next_cursor=str(shown[-1].position) if len(items) > limit else None,
    )


async def find(service: Service, caller: Caller, batch_id: str) -> batch_rows.BatchSummary:
    """The caller's batch; raises `Problem`: not-found or erased."""
    return await run_in_threadpool(_look, service, caller, batch_id)


async def waited(
    service: Service, caller: Caller, batch_id: str, seconds: float, if_none_match: str | None
) -> batch_rows.BatchSummary:
    """A batch as soon as it is finished or, where the caller knows a version, has changed, or after so long."""
    now = asyncio.get_running_loop().time
    deadline = now() + min(seconds, MAX_WAIT_S)
    # Watch first, look then: a change between the two would be missed the other way round.
    with service.feed.watch(batch_id) as watch:
        while True:
            batch = await find(service, caller, batch_id)
            left = deadline - now()
            changed = not is_open(batch)
            if if_none_match is not None:
                changed = not matches(if_none_match, etag(batch, service.visibility.to(caller).tag))
            if changed or left <= 0:
                return batch
            # Its questions change without announcing it here, so the watch's own looks are what finds most.
            await watch.changed(left)


async def listed(service: Service, caller: Caller, query: BatchListQuery) -> BatchList:
    """A page of the caller's batches, newest first."""
    filters = BatchFilters(caller.owner, query.client_tag, query.created_after)
    try:
        page = await run_in_threadpool(service.batches.page, filters, query.cursor, query.limit)
    except BadCursor as error:
        raise bad_parameter("cursor", f"{error}.") from error
    return BatchList(items=[_summary(batch) for batch in page.batches], next_cursor=page.next_cursor)


async def results(service: Service, caller: Caller, batch_id: str, after: int) -> AsyncGenerator[bytes, None]:
    """The items after number `after` in their order, each with its whole answer, as lines of JSON."""
    while True:
        lines = await run_in_threadpool(_lines, service, caller, batch_id, after)
        if not lines:
            return
        for position, line in lines:
            yield line
            after = position


async def cancel(service: Service, caller: Caller, batch_id: str) -> batch_rows.BatchSummary:
    """Stop what is open of a batch; raises `Problem`: not-found, erased, or conflict where all of it has ended."""
    before = await find(service, caller, batch_id)
    if before.state != BatchState.CANCELLED and not is_open(before):
        raise Problem("conflict", "It can't be cancelled any more: all of its pictures have ended.")
    try:
        return await run_in_threadpool(service.batches.cancel, batch_id, caller.owner, caller.actor)
    except BatchNotFound as error:
        raise Problem("not-found", NOT_FOUND) from error


async def erase(service: Service, caller: Caller, batch_id: str) -> None:
    """Erase a batch with all of its questions; erasing it again changes nothing. Raises `Problem` not-found."""
    try:
        if not BATCH_ID.fullmatch(batch_id):
            raise BatchNotFound(batch_id)
        await run_in_threadpool(service.batches.erase, batch_id, caller.owner, caller.actor)
    except BatchNotFound as error:
        raise Problem("not-found", NOT_FOUND) from error


def etag(batch: batch_rows.BatchSummary, shown: str) -> str:
    """The entity tag of a batch: it grows with every change of one of its items.

    Args:
        shown: the tag of the view that it is told to.
    """
    return f'W/"{batch.version}{shown}"'


def item_problem(problem: Problem) -> JsonObject:
    """What is kept of a refusal that ends an item."""
    reason = {} if problem.reason is None else {"reason": problem.reason}
    return {"code": problem.code, "detail": problem.detail, **reason}


def _checked(service: Service, catalogue: Catalogue, sent: Sent, shared: AttributionRequest) -> NewItem:
    """An item as it is kept; raises `Problem` for what can't be asked of any picture."""
    try:
        if sent.asked.webhook_url != shared.webhook_url:
            raise invalid("webhook_url", "goes for a whole batch: send it beside its pictures.")
        served = catalogue.choose(sent.asked.index)
        questions.check_options(service, served, sent.asked)
        intake.refuse_unscreened(served, sent.asked)
    except Problem as problem:
        if problem.code != "invalid-request":
            raise
        raise Problem(problem.code, problem.detail, errors=beneath(sent.place, problem)) from problem
    asked = {
        **sent.asked.model_dump(mode="json", exclude={"webhook_url"}),
        "index": _kept_index(sent.asked.index, served),
    }
    if sent.problem is not None:
        return NewItem(asked, sent.name, problem=sent.problem)
    if isinstance(sent.picture, str):
        return NewItem(asked, sent.name, address=sent.picture)
    most = service.settings.max_upload_bytes
    if len(sent.picture) > most:
        return NewItem(asked, sent.name, problem=item_problem(too_large(most)))
    return NewItem(asked, sent.name, sent.picture)


def _kept_index(asked: str | None, served: ServedIndex) -> str:
    """What an item that waits names: only who asked for one version gets no other, should it be replaced."""
    return served.id if asked == served.id else served.name


def _look(service: Service, caller: Caller, batch_id: str) -> batch_rows.BatchSummary:
    # Whatever else is asked for was never given, and a database may choke on it.
    return _there(service.batches.get(batch_id, caller.owner) if BATCH_ID.fullmatch(batch_id) else None)


def _there(batch: batch_rows.BatchSummary | None) -> batch_rows.BatchSummary:
    if batch is None:
        raise Problem("not-found", NOT_FOUND)
    if batch.state == BatchState.ERASED:
        raise Problem("erased", GONE)
    return batch


def _summary(batch: batch_rows.BatchSummary) -> BatchSummary:
    state = batch.state
    return BatchSummary.model_validate(
        {
            "id": batch.id,
            "state": "finished" if state == BatchState.OPEN and not is_open(batch) else str(state),
            "created_at": batch.created_at,
            "client_tag": batch.client_tag,
            "size": batch.size,
            "counts": batch.counts,
            "links": {"self": f"{PATH}/{batch.id}", "results": f"{PATH}/{batch.id}/results.jsonl"},
        }
    )


def _items(service: Service, caller: Caller, items: Sequence[batch_rows.ItemSummary]) -> list[BatchItem]:
    jobs = [item.job for item in items if item.job is not None and item.state != "erased"]
    told = {one.id: one for one in questions.summaries(service, caller, jobs)}
    return [
        BatchItem(
            position=item.position,
            name=item.name,
            state=item.state,  # type: ignore[arg-type]
            client_tag=item.client_tag,
            problem=_problem(item.problem, None),
            attribution=None if item.job is None else told.get(item.job.id),
        )
        for item in items
    ]


def _lines(service: Service, caller: Caller, batch_id: str, after: int) -> list[tuple[int, bytes]]:
    """The next lines of the results, by position; they are read now and not before. Blocks for a moment."""
    lines = []
    items = service.batches.items(batch_id, after, READ_AT_ONCE)
    jobs = service.batches.jobs_of(batch_id, [item.position for item in items])
    for item in items:
        job = jobs.get(item.position)
        # It may have gone on between the two; what is told is one state of it.
        state = item.state if job is None else job.state
        whole = None
        if job is not None and state != "erased":
            failure = service.screener.failure(job.index_id)
            view = service.visibility.to(caller)
            whole = answers.attribution(
                job,
                service.catalogue,
                waiting=None,
                screening=failure,
                view=view,
                expires_at=service.store.keeping.expires_at(job),
            )
        line = BatchResult(
            position=item.position,
            name=None if state == "erased" else item.name,
            state=state,  # type: ignore[arg-type]
            client_tag=None if state == "erased" else item.client_tag,
            problem=None if state == "erased" else _problem(item.problem, job),
            attribution=whole,
        )
        lines.append((item.position, line.model_dump_json(by_alias=True).encode() + b"\n"))
    return lines


def _problem(kept: JsonObject | None, job: Job | None) -> ItemProblem | None:
    if kept is None and (job is None or job.error is None):
        return None
    if kept is None:
        assert job is not None
        failure = job.error or {}
        return ItemProblem(
            type="about:blank",
            code=failure["code"],
            title=FAILED,
            status=None,
            detail=failure["message"],
            reason=None,
        )
    kind = CATALOGUE.get(kept["code"])
    return ItemProblem(
        type="about:blank" if kind is None else f"/problems#{kept['code']}",
        code=kept["code"],
        title=FAILED if kind is None else kind.title,
        status=None if kind is None else kind.status,
        detail=kept["detail"],
        reason=kept.get("reason"),
    )
