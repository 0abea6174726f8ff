"""Backtests: a version of a policy held against the active one, or against what people said, over what is stored."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

from anyio import to_thread

from app import policies
from app.callers import Caller
from app.decisions import verdict_on
from app.language import Language
from app.moderation import words
from app.moderation.logic import Verdict
from app.moderation.schemas import Backtest, BacktestRequest, Change, Decided
from app.problems import Problem, invalid
from app.service import Service
from das.versions import name_in
from jobs.decisions import DecisionFilters
from jobs.errors import BadCursor
from jobs.models import Job, JobState
from jobs.policies import PolicyRow

# A page ends after so long, however many it was to look at.
SECONDS = 10.0
READ_AT_ONCE = 50


@dataclass(frozen=True)
class _Case:
    """A stored answer, and what the baseline came to; None where it has to be asked. `cursor` is its place."""

    job: Job
    cursor: str
    decision: str | None
    baseline: Decided | None


async def run(service: Service, caller: Caller, policy_id: str, asked: BacktestRequest) -> Backtest:
    """One page of a backtest. One is made at a time: it takes a processor for as long as it lasts."""
    return await to_thread.run_sync(_run, service, caller, policy_id, asked, limiter=service.backtesting)


def _run(service: Service, caller: Caller, policy_id: str, asked: BacktestRequest) -> Backtest:
    row = policies.find(service, caller, policy_id)
    candidate = asked.version or row.shadow or row.versions
    if candidate > row.versions:
        raise invalid("version", f"{row.id} has versions 1 to {row.versions}.")
    if asked.against == "active" and row.active is None:
        raise Problem(
            "conflict", f"No version of {row.id} is active, so there is nothing to hold it against."
        )

    rules = policies.load(service, caller.owner, row.id, candidate)
    active = policies.load(service, caller.owner, row.id, row.active) if row.active is not None else None
    ends = time.monotonic() + SECONDS
    table: dict[str, dict[str, int]] = {}
    changed: list[Change] = []
    examined, cursor, more = 0, asked.cursor, False
    for case in _cases(service, caller, row, asked):
        if examined == asked.limit or (examined and time.monotonic() > ends):
            more = True
            break
        found = verdict_on(service, case.job, rules)
        baseline = case.baseline
        if baseline is None:
            assert active is not None
            baseline = verdict_on(service, case.job, active).outcome
        counts = table.setdefault(baseline, {})
        counts[found.outcome] = counts.get(found.outcome, 0) + 1
        if found.outcome != baseline:
            changed.append(_change(case, baseline, found, caller.language))
        examined, cursor = examined + 1, case.cursor
    return Backtest(
        policy=row.id,
        version=candidate,
        against=asked.against,
        baseline_version=row.active if asked.against == "active" else None,
        examined=examined,
        table=table,
        agreed=examined - len(changed),
        changed=changed,
        next_cursor=cursor if more else None,
    )


def _change(case: _Case, baseline: Decided, found: Verdict, language: Language) -> Change:
    return Change(
        attribution=case.job.id,
        decision=case.decision,
        baseline=baseline,
        candidate=found.outcome,
        codes=found.codes,
        summary=words.summary(found.outcome, found.codes, language),
        link=f"/v1/attributions/{case.job.id}",
    )


def _cases(service: Service, caller: Caller, row: PolicyRow, asked: BacktestRequest) -> Iterator[_Case]:
    try:
        yield from (_answered if asked.against == "active" else _reviewed)(service, caller, row, asked)
    except BadCursor as error:
        raise invalid("cursor", f"{error}.") from error


def _answered(service: Service, caller: Caller, row: PolicyRow, asked: BacktestRequest) -> Iterator[_Case]:
    before = asked.cursor
    while True:
        jobs = service.store.decisions.answered(
            caller.owner, before, READ_AT_ONCE, asked.index, asked.created_after
        )
        for job in jobs:
            yield _Case(job, job.id, None, None)
        if len(jobs) < READ_AT_ONCE:
            return
        before = jobs[-1].id


def _reviewed(service: Service, caller: Caller, row: PolicyRow, asked: BacktestRequest) -> Iterator[_Case]:
    filters = DecisionFilters(owner=caller.owner, policy_id=row.id, reviewed=True)
    before = asked.cursor
    while True:
        page = service.store.decisions.list(filters, before, READ_AT_ONCE)
        for decision in page.decisions:
            job = service.store.get(decision.job_id, caller.owner)
            if job is None or job.state == JobState.ERASED:
                continue
            if asked.index not in (None, job.index_id, name_in(job.index_id)):
                continue
            if asked.created_after is not None and job.created_at <= asked.created_after:
                continue
            baseline: Decided = "block" if decision.review_outcome == "block" else "clear"
            yield _Case(job, decision.id, decision.id, baseline)
        if page.next_cursor is None:
            return
        before = page.next_cursor
