"""What can be done with questions: the use cases that the API and the page have in common.

Each takes the service and the caller, and raises `Problem` where it can't be done. A route turns a request into
one of these calls and what comes back into a response; it does nothing else.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from starlette.concurrency import run_in_threadpool

from app import answers, evidence, intake, redaction
from app.callers import Caller
from app.catalogue import ServedIndex
from app.language import ENGLISH, Language
from app.patience import until_a_look
from app.problems import Problem, bad_parameter, invalid
from app.recent import Told
from app.retelling import retold
from app.schemas import Attribution, AttributionList, AttributionRequest, AttributionSummary, ListQuery
from app.service import Service
from app.uploads import parse_fields
from app.visibility import View
from app.waiting import etag, find, finished, glance, look, matches, wait_until
from app.webhooks import endpoints
from jobs.errors import BadCursor, JobNotFound
from jobs.idempotency import Claim
from jobs.ids import JOB_ID
from jobs.models import Job, JobFilters, JobState, JobSummary, JsonObject, Standing


@dataclass(frozen=True)
class Answer:
    """What the address of a question answers with. `body` is what is told as JSON, empty where the caller has this
    version already; `look_again_s` is when to come back while it isn't finished. `left` are sentences in it that are
    English, whatever the language is."""

    etag: str
    finished: bool
    body: bytes
    language: Language
    look_again_s: int = 1
    left: frozenset[str] = frozenset()

    @cached_property
    def told(self) -> Attribution | None:
        """What is told; None where the caller has it."""
        return Attribution.model_validate_json(self.body) if self.body else None

    def telling(self, told: Attribution) -> "Answer":
        """The same with what it tells."""
        # Written by pydantic at once: through FastAPI each answer would be checked and taken apart again.
        answer = replace(self, body=told.model_dump_json(by_alias=True).encode())
        # It needn't be read from that again.
        answer.__dict__["told"] = told
        return answer


async def ask(
    service: Service,
    caller: Caller,
    data: bytes,
    asked: AttributionRequest,
    known: JsonObject | None = None,
    claim: Claim | None = None,
    webhook_endpoint: str | None = None,
) -> Job:
    """Accept a picture and set it going; the job comes back with its look-alikes where they could be had in time.

    Nothing is kept where the request, the picture, the queue or the storage doesn't allow it.

    Args:
        known: the `input` that the picture's file made, where `data` is the stored picture.
        claim: of the request's Idempotency-Key, completed together with the job.
        webhook_endpoint: the id of the only one that hears of it, where that isn't said by its address.
    """
    served = service.catalogue.within(caller.indexes).choose(asked.index)
    check_options(service, served, asked)
    endpoint = await endpoints.chosen(service, caller, asked.webhook_url) or webhook_endpoint
    await intake.refuse_unheld(service, served.id)
    await service.limiter.question(caller)
    try:
        return await intake.accept(
            service, caller, served, data, asked, known, claim, webhook_endpoint=endpoint
        )
    except Exception as error:
        # A refused picture was decoded and counts; where the service failed, it is to be sent again.
        if not isinstance(error, Problem) or error.kind.status >= 500:
            await service.limiter.give_back(caller, 1)
        raise


async def again(service: Service, caller: Caller, job_id: str, prompt: str | None = None) -> Job:
    """Ask anew about the same picture with the same options, in a new job: what failed or was cancelled, or with
    another prompt, an empty one perhaps, whatever is known by now."""
    job = await find(service, caller, job_id)
    if prompt is None and job.state not in (JobState.FAILED, JobState.CANCELLED):
        raise Problem("conflict", "Only a question that failed or was cancelled can be asked again.")
    if job.upload_gone_at is not None:
        raise Problem("conflict", "The picture isn't kept any more: to ask about it again, send it again.")
    await intake.refuse_when_full(service, caller)
    fields = AttributionRequest.model_fields.keys() - {"index", "webhook_url"}
    reading = service.catalogue.reading(job.index_id)
    # The version that is served, where the one that was asked isn't any more.
    index = job.index_id if reading is None or reading.id == job.index_id else reading.name
    given = {"index": index, **{name: getattr(job, name) for name in fields}}
    known = job.input
    if prompt is not None:
        given["prompt"] = prompt
        if (declared := known.get("declared")) is not None:
            taken = [name for name in declared["taken"] if name != "prompt"]
            known = {**known, "declared": {**declared, "taken": taken}}
    asked = parse_fields(given)
    data = await run_in_threadpool(service.store.image, job.id)
    return await ask(service, caller, data, asked, known, webhook_endpoint=job.webhook_endpoint)


async def answer(
    service: Service, caller: Caller, job_id: str, wait: float | None, if_none_match: str | None
) -> Answer:
    """What is told of a question, after waiting for its end or, where the caller knows a version, for a change."""
    if wait or if_none_match is not None:
        shown = _shown(service.visibility.to(caller), caller.language)

        def changed(standing: Standing) -> bool:
            if if_none_match is None:
                return finished(standing)
            return not matches(if_none_match, etag(standing, shown))

        standing = await wait_until(service, caller, job_id, changed, wait or 0)
        if matches(if_none_match, etag(standing, shown)):
            return Answer(etag(standing, shown), finished(standing), b"", caller.language)
    else:
        standing = await glance(service, lambda looks: look(looks.standing, caller, job_id))
    if standing.finished:
        # A view of now: the wait may have been long.
        kept = service.recent.find(Told.of(standing, service.visibility.to(caller), caller.language))
        if kept is not None:
            return kept
    return await run_in_threadpool(_look_and_tell, service, caller, job_id)


async def listed(service: Service, caller: Caller, query: ListQuery) -> AttributionList:
    """A page of the caller's questions, newest first, each in short."""
    filters = JobFilters(
        owner=caller.owner,
        state=query.state,
        client_tag=query.client_tag,
        created_after=query.created_after,
    )
    try:
        page = await run_in_threadpool(service.store.list, filters, query.cursor, query.limit)
    except BadCursor as error:
        raise bad_parameter("cursor", f"{error}.") from error
    items = await run_in_threadpool(summaries, service, caller, page.jobs)
    return AttributionList(items=items, next_cursor=page.next_cursor)


async def image(service: Service, caller: Caller, job_id: str) -> bytes:
    """The picture that was asked about, as it was normalised: a PNG."""
    job = await find(service, caller, job_id)
    if job.upload_gone_at is not None:
        raise Problem(
            "erased", "The picture was kept for as long as it is here, and removed; its answer stays."
        )
    return await run_in_threadpool(service.store.image, job.id)


async def report(service: Service, caller: Caller, job_id: str, kind: evidence.Kind) -> bytes:
    """The report of a question's answer; raises `Problem`: not-found, erased, or conflict where there is none."""
    job = await find(service, caller, job_id)
    view = service.visibility.to(caller)

    def make() -> bytes:
        made = evidence.MADE_AS[kind](service, evidence.telling(service, job, view))
        service.store.audit.write(caller.actor, "report.read", job_id, kind=kind)
        return made

    if kind == "pdf":
        async with service.drawing.turn(caller.address):
            return await run_in_threadpool(make)
    return await run_in_threadpool(make)


async def cancel(service: Service, caller: Caller, job_id: str) -> Job:
    """Cancel an open job; raises `Problem`: not-found, erased, or conflict for one that ended otherwise."""
    await find(service, caller, job_id)
    try:
        job = await run_in_threadpool(service.store.cancel, job_id, caller.owner, caller.actor)
    except JobNotFound as error:
        raise Problem("erased", "This attribution was deleted meanwhile.") from error
    if job.state != JobState.CANCELLED:
        raise Problem("conflict", f"It can't be cancelled any more: it has {job.state}.")
    return job


async def erase(service: Service, caller: Caller, job_id: str) -> None:
    """Erase a job; raises `Problem` not-found for an id that was never given. Erasing it again changes nothing."""
    if not JOB_ID.fullmatch(job_id):
        raise Problem("not-found", "There is no attribution with this id.")
    try:
        await run_in_threadpool(service.store.erase, job_id, caller.owner, caller.actor)
    except JobNotFound as error:
        raise Problem("not-found", "There is no attribution with this id.") from error
    service.recent.forget(job_id)


async def told(service: Service, caller: Caller, job: Job) -> Answer:
    """What is told of a job that the caller has."""
    return await run_in_threadpool(_tell, service, caller, job)


# One turn of a thread for all of it: under load, each turn is a wait for the interpreter.
def _look_and_tell(service: Service, caller: Caller, job_id: str) -> Answer:
    # Taken before: what is hidden meanwhile makes another view, and this answer is found by none of it.
    view = service.visibility.to(caller)
    job = look(service.store.get, caller, job_id)
    answer = _tell(service, caller, job)
    if answer.finished:
        service.recent.keep(Told.of(job, view, caller.language), answer)
    return answer


def summaries(service: Service, caller: Caller, jobs: Sequence[JobSummary]) -> list[AttributionSummary]:
    """Questions in short, as they may be told to a caller. Blocks for a moment where a sentence may name what the
    caller isn't shown, or has exact shares: then it is made anew, of answers that are all read at once."""
    view = service.visibility.to(caller)
    anew, firsts = set(), dict[str, list[JobSummary]]()
    for job in jobs:
        served = service.catalogue.reading(job.index_id)
        if redaction.may_name(job, view.of(served), served):
            anew.add(job.id)
        elif job.summary is not None and job.first_work is not None and served is not None:
            firsts.setdefault(served.id, []).append(job)
    allowed: frozenset[str] = frozenset()
    if view.budget is not None:
        # A list names the first work of each answer and no other.
        for served in service.catalogue:
            of_it = firsts.get(served.id, [])
            free = view.allowed([job.first_work for job in of_it if job.first_work is not None])
            allowed |= free
            # A sentence may be about another creator than the first work's.
            shade = view.narrowed(served, free)
            anew |= {
                job.id for job in of_it if job.first_work not in free or shade.named_in(job.summary or "")
            }
    if view.rounding is not None:
        anew |= {job.id for job in jobs}
    wholes = service.store.get_all([job.id for job in jobs if job.id in anew and job.summary is not None])
    if view.budget is not None:
        # Beside these the sentence may name whom the answer itself was shown with.
        further = [one for whole in wholes if not whole.by_row for one in redaction.works_of(whole)]
        view = view.granting(allowed | view.budget.free(further))
    told = {
        whole.id: None if whole.by_row else redaction.shown(whole, view, service.catalogue).result
        for whole in wholes
    }
    return [
        answers.listed(
            replace(job, summary=(told.get(job.id) or {}).get("summary")) if job.id in anew else job
        )
        for job in jobs
    ]


def _tell(service: Service, caller: Caller, job: Job) -> Answer:
    waiting = service.store.queue_depth() if job.state == JobState.QUEUED else None
    failure = service.screener.failure(job.index_id)
    view = service.visibility.to(caller)
    attribution = answers.attribution(
        job,
        service.catalogue,
        waiting=waiting,
        screening=failure,
        view=view,
        expires_at=service.store.keeping.expires_at(job),
    )
    look_again_s = until_a_look(service.store.pace, waiting) if waiting else 1
    told = retold(attribution, caller.language)
    shown = _shown(view, caller.language)
    answer = Answer(etag(job, shown), finished(job), b"", caller.language, look_again_s, told.left)
    return answer.telling(told.answer)


def _shown(view: View, language: Language) -> str:
    """What makes the answers of one version differ: who looks, and in which language."""
    return view.tag if language is ENGLISH else f"{view.tag}-{language.code}"


def check_options(service: Service, served: ServedIndex, asked: AttributionRequest) -> None:
    """Raises `Problem` where this index can't be asked so."""
    limit = service.settings.top_k_max
    if asked.top_k > limit:
        raise invalid("top_k", f"has to be between 1 and {limit}.")
    if asked.method is not None and asked.method not in served.methods:
        raise invalid(
            "method",
            f"{served.id} was built for {', '.join(served.methods)} only;"
            f" das build --method {asked.method} makes an index that answers it.",
        )
