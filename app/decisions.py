"""What can be done with decisions: the use cases of `/v1/decisions`, and the making of those that are due."""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from starlette.concurrency import run_in_threadpool

from app import answers, policies, questions
from app.callers import Caller
from app.language import ENGLISH, Language
from app.moderation import schemas
from app.moderation.coarse import rounded_verdict
from app.moderation.logic import CopiedWork, Verdict, decide, unusable
from app.moderation.policy import Policy
from app.moderation.retelling import fixed, retold_verdict
from app.moderation.schemas import DecisionLinks, DecisionList, DecisionQuery, DecisionRequest, ReviewRequest
from app.moderation.words import ERASED
from app.problems import Problem, bad_parameter, invalid
from app.redaction import told_verdict, works_of
from app.retelling import retold
from app.schemas import Attribution, AttributionRequest
from app.service import Service
from app.threads import RunInThread
from app.visibility import Unserved, View
from app.waiting import find, finished, wait_until
from jobs.decisions import DECISION_ID, Decision, DecisionFilters, DecisionNotFound, DecisionState, NotDecided
from jobs.errors import BadCursor, JobNotFound, StorageError
from jobs.idempotency import Claim
from jobs.models import Job, JsonObject
from jobs.policies import PolicyRow

logger = logging.getLogger(__name__)

# Decisions that are due are looked for so often: whoever asks for one in between has it made at once.
LOOK_EVERY_S = 1.0
AT_ONCE = 50


async def ask(
    service: Service, caller: Caller, data: bytes, asked: DecisionRequest, claim: Claim | None = None
) -> schemas.Decision:
    """Begin a decision about a picture, or about a question that was asked already; made at once if it can be.

    Nothing is kept where the request, the policy, the picture or the queue doesn't allow it.

    Args:
        claim: of the request's Idempotency-Key, completed together with the question, or with the decision where
            that is asked already.
    """
    if asked.attribution is not None:
        _only_the_question(data, asked)
    elif not data:
        raise invalid("image", "is missing or empty: send a picture, or the id of a question as attribution.")
    policy = await run_in_threadpool(_active, service, caller, asked.policy)
    if asked.attribution is not None:
        job = await find(service, caller, asked.attribution)
        decision = await _create(service, caller, job.id, policy, claim)
    else:
        options = asked.model_dump(exclude={"policy", "attribution"}, exclude_unset=True)
        job = await questions.ask(service, caller, data, AttributionRequest(**options), claim=claim)
        try:
            decision = await _create(service, caller, job.id, policy)
        except BaseException:
            if claim is None:
                await run_in_threadpool(service.store.erase, job.id)
            # Else the question stays: the same request, sent again, goes on from there.
            raise
    return await run_in_threadpool(_settled_and_told, service, caller, decision)


async def again(service: Service, caller: Caller, made: str, asked: DecisionRequest) -> schemas.Decision:
    """The decision that an earlier one of this request has made, or whose question it has; raises `Problem`."""
    if DECISION_ID.fullmatch(made):
        decision = await run_in_threadpool(_find, service, caller, made)
    else:
        job = await find(service, caller, made)
        found = await run_in_threadpool(service.store.decisions.first_of, caller.owner, job.id, asked.policy)
        if found is None:
            # It was broken off between the question and the decision.
            policy = await run_in_threadpool(_active, service, caller, asked.policy)
            found = await _create(service, caller, job.id, policy)
        decision = found
    return await run_in_threadpool(_settled_and_told, service, caller, decision)


async def answer(service: Service, caller: Caller, decision_id: str, wait: float | None) -> schemas.Decision:
    """A decision as it stands, after waiting for it for up to so many seconds."""
    decision = await run_in_threadpool(_find, service, caller, decision_id)
    if wait and decision.state == DecisionState.PENDING:
        await wait_until(service, caller, decision.job_id, finished, wait)
        decision = await run_in_threadpool(_find, service, caller, decision_id)
    return await run_in_threadpool(_settled_and_told, service, caller, decision)


async def listed(service: Service, caller: Caller, query: DecisionQuery) -> DecisionList:
    """A page of the caller's decisions, newest first."""
    filters = DecisionFilters(
        owner=caller.owner,
        state=query.state,
        policy_id=query.policy,
        outcome=query.outcome,
        reviewed=query.reviewed,
        job_id=query.attribution,
    )
    try:
        page = await run_in_threadpool(service.store.decisions.list, filters, query.cursor, query.limit)
    except BadCursor as error:
        raise bad_parameter("cursor", f"{error}.") from error
    items = await run_in_threadpool(_all_told, service, caller, page.decisions)
    return DecisionList(items=items, next_cursor=page.next_cursor)


async def review(service: Service, caller: Caller, decision_id: str, said: ReviewRequest) -> schemas.Decision:
    """Keep what a person says of a decision that was made."""
    decision = await run_in_threadpool(_find, service, caller, decision_id)
    await run_in_threadpool(_settled, service, decision)
    try:
        reviewed = await run_in_threadpool(
            service.store.decisions.review,
            decision_id,
            caller.owner,
            said.outcome,
            said.note,
            caller.actor,
        )
    except DecisionNotFound as error:
        raise Problem("not-found", "There is no decision with this id.") from error
    except NotDecided as error:
        raise Problem("conflict", f"It can't be reviewed now: {error}.") from error
    return await run_in_threadpool(_settled_and_told, service, caller, reviewed)


async def decide_due(service: Service, threads: RunInThread, failed: set[str]) -> None:
    """Make decisions whose questions have ended. Any number of processes may do so at once.

    Args:
        failed: those that can't be made for a fault of ours; they aren't tried again, and more are added.
    """
    for decision in await threads(service.store.decisions.ripe, AT_ONCE + len(failed)):
        if decision.id in failed:
            continue
        try:
            await threads(_settled, service, decision)
        except StorageError:
            raise
        except Problem as problem:
            logger.info("%s isn't made: %s", decision.id, problem.detail)
        except Exception:
            failed.add(decision.id)
            logger.exception("%s can't be made", decision.id)


def verdict_on(service: Service, job: Job, policy: Policy) -> Verdict:
    """What a policy says of a job. Blocks for some milliseconds."""
    # By all that was measured: that a work is hidden from people doesn't take it out of the rules.
    answer = answers.attribution(job, service.catalogue, waiting=None, screening=None, view=None)
    return decide(policy, answer, _copied(service, job))


def _copied(service: Service, job: Job) -> list[CopiedWork]:
    """The works that a job's picture is as much a copy of as of the one that its answer names."""
    found = (job.result or {}).get("copy") or {"matches": ()}
    served = service.catalogue.reading(job.index_id)
    copied = []
    for match in found["matches"]:
        if match["verdict"] == found["verdict"]:
            work = None if served is None else served.find(match["work_id"])
            copied.append(
                CopiedWork(match["work_id"], None if work is None else work["creator"], work is not None)
            )
    return copied


def _only_the_question(data: bytes, asked: DecisionRequest) -> None:
    if data:
        raise invalid("attribution", "can't be sent with a picture: it says which question is meant.")
    for name in sorted(asked.model_fields_set - {"policy", "attribution"}):
        # Clients that are generated from the document send what is left out by its default.
        if getattr(asked, name) == type(asked).model_fields[name].default:
            continue
        raise invalid(name, "can't be sent with attribution: that question has its options already.")


def _active(service: Service, caller: Caller, policy_id: str) -> PolicyRow:
    policy = service.store.policies.get(caller.owner, policy_id)
    if policy is None:
        raise invalid("policy", f"there is no policy {policy_id} of yours; POST /v1/policies makes one.")
    if policy.active is None:
        raise Problem(
            "conflict",
            f"No version of {policy_id} is active: POST /v1/policies/{policy_id}/activate has one decide.",
        )
    return policy


async def _create(
    service: Service, caller: Caller, job_id: str, policy: PolicyRow, claim: Claim | None = None
) -> Decision:
    try:
        return await run_in_threadpool(
            service.store.decisions.create,
            caller.owner,
            job_id,
            policy.id,
            policy.active or 0,
            policy.shadow,
            claim,
        )
    except JobNotFound as error:
        raise Problem("erased", "This attribution was deleted meanwhile.") from error


def _find(service: Service, caller: Caller, decision_id: str) -> Decision:
    found = (
        service.store.decisions.get(decision_id, caller.owner) if DECISION_ID.fullmatch(decision_id) else None
    )
    if found is None:
        raise Problem("not-found", "There is no decision with this id.")
    if found.state == DecisionState.ERASED:
        raise Problem("erased", ERASED)
    return found


def _settled(service: Service, decision: Decision) -> Decision:
    """The decision, made if its question has ended. Blocks for some milliseconds."""
    if decision.state != DecisionState.PENDING:
        return decision
    job = service.store.get(decision.job_id)
    if job is None or not job.finished:
        return decision
    verdict = _plain(service, job, decision, decision.version)
    tried = decision.shadow_version
    shadow = None if tried is None else _plain(service, job, decision, tried)
    settled = service.store.decisions.settle(decision.id, verdict, shadow)
    if settled is None or settled.state == DecisionState.ERASED:
        raise Problem("erased", ERASED)
    return settled


def _plain(service: Service, job: Job, decision: Decision, version: int) -> JsonObject:
    """What a version says of a job, as it is kept."""
    try:
        verdict = verdict_on(
            service, job, policies.load(service, decision.owner, decision.policy_id, version)
        )
    except Problem as problem:
        # It would never be made: what can't be read now can't be read the next time.
        logger.error("%s is indeterminate: %s", decision.id, problem.detail)
        verdict = unusable(decision.policy_id, version)
    return {**asdict(verdict), "summary": verdict.summary, "policy_version": version}


def _all_told(service: Service, caller: Caller, decisions: Sequence[Decision]) -> list[schemas.Decision]:
    # Their answers are read at once.
    jobs = {job.id: job for job in service.store.get_all([one.job_id for one in decisions if _names(one)])}
    return [
        _told(_retold(_shown(service, caller, one, jobs.get(one.job_id)), caller.language))
        for one in decisions
    ]


def _settled_and_told(service: Service, caller: Caller, decision: Decision) -> schemas.Decision:
    settled = _settled(service, decision)
    job = service.store.get(settled.job_id) if _names(settled) else None
    return _told(_retold(_shown(service, caller, settled, job), caller.language))


def _verdicts(decision: Decision) -> list[JsonObject]:
    return [one for one in (decision.verdict, decision.shadow) if one is not None]


def _own_notes(decision: Decision) -> list[str]:
    """What isn't said of every picture says of which work this is a copy, as it was called then."""
    notes = [note for one in _verdicts(decision) for note in one.get("notes", ())]
    return [note for note in notes if fixed(note, ENGLISH) is None]


def _names(decision: Decision) -> bool:
    """Whether a decision names works or creators, so that its answer has to say whether they are shown."""
    reasons = [reason for one in _verdicts(decision) for reason in one["reasons"]]
    return any(one["works"] or one["creators"] for one in reasons) or bool(_own_notes(decision))


@dataclass(frozen=True)
class _Shown:
    """A decision with what its verdicts may tell of, and the answer as far as they name it."""

    row: Decision
    verdict: JsonObject | None
    shadow: JsonObject | None
    answer: Attribution | None = None


def _shown(service: Service, caller: Caller, decision: Decision, job: Job | None) -> _Shown:
    """What of a decision a caller may be told; `job` is its question where it names anything. Blocks for a moment
    where works are hidden, their budget is limited, or a copy is told of."""
    view = service.visibility.to(caller)
    if job is None:
        return _rounded(view, _Shown(decision, decision.verdict, decision.shadow))
    served = service.catalogue.reading(job.index_id)
    shade = Unserved() if served is None else view.of(served)
    own, verdicts = _own_notes(decision), _verdicts(decision)
    named = [work_id for one in verdicts for reason in one["reasons"] for work_id in reason["works"]]
    copied = ((job.result or {}).get("copy") or {}).get("matches", ())
    named += [match["work_id"] for match in copied[:1] if own]
    named = [one for one in dict.fromkeys(named) if shade is None or not shade.work(one)]
    allowed = frozenset(named) if served is None else view.allowed(named)
    if served is not None and view.budget is not None:
        # Creators are named whom the answer names by what is free, which takes nothing from the budget.
        free = view.budget.free([] if job.by_row else works_of(job))
        shade = view.narrowed(served, allowed | free)
    answer, instead = None, dict[str, str | None]()
    if own:
        # The rest of the answer isn't told here, and takes from no budget.
        seen = view.granting(allowed)
        answer = answers.attribution(job, service.catalogue, waiting=None, screening=None, view=seen)
        if answer.copied is not None:
            instead = dict.fromkeys(own, answer.copied.summary)
    verdict, shadow = (
        None if one is None else told_verdict(one, shade, instead)
        for one in (decision.verdict, decision.shadow)
    )
    return _rounded(view, _Shown(decision, verdict, shadow, answer))


def _rounded(view: View, shown: _Shown) -> _Shown:
    rounding = view.rounding
    if rounding is None:
        return shown
    verdict, shadow = (one and rounded_verdict(one, rounding) for one in (shown.verdict, shown.shadow))
    return replace(shown, verdict=verdict, shadow=shadow)


def _retold(shown: _Shown, language: Language) -> _Shown:
    """What is shown of a decision, in a language."""
    if language is ENGLISH or shown.verdict is None:
        return shown
    verdict = retold_verdict(shown.verdict, language)
    copied = None if shown.answer is None else shown.answer.copied
    if copied is not None and shown.answer is not None:
        # The answer knows of which work a note says that this is a copy.
        again = retold(shown.answer, language).answer.copied
        summary = (again and again.summary) or copied.summary
        verdict["notes"] = [summary if note == copied.summary else note for note in verdict["notes"]]
    return replace(shown, verdict=verdict, shadow=shown.shadow and retold_verdict(shown.shadow, language))


def _told(shown: _Shown) -> schemas.Decision:
    """A decision as the API tells it."""
    decision = shown.row
    verdict: dict[str, Any] = shown.verdict or {}
    return schemas.Decision.model_validate(
        {
            "id": decision.id,
            "state": decision.state,
            "created_at": decision.created_at,
            "decided_at": decision.decided_at,
            "attribution": decision.job_id,
            "policy": decision.policy_id,
            "policy_version": decision.version,
            "outcome": decision.outcome,
            "final": decision.review_outcome or decision.outcome,
            "summary": verdict.get("summary"),
            "reasons": verdict.get("reasons"),
            "notes": verdict.get("notes"),
            "dry_run": shown.shadow,
            "review": decision.review,
            "reviews": (decision.reviews or [])[::-1],
            "links": DecisionLinks(
                self=f"/v1/decisions/{decision.id}",
                attribution=f"/v1/attributions/{decision.job_id}",
                policy=f"/v1/policies/{decision.policy_id}?version={decision.version}",
                page=f"/a/{decision.job_id}",
            ),
        }
    )
