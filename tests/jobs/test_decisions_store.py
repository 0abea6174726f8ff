"""Decisions in the database: made once, reviewed, listed, and gone with their question."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import text

from jobs.decisions import MOST_REVIEWS, Decision, DecisionFilters, DecisionNotFound, NotDecided
from jobs.errors import BadCursor, JobNotFound
from jobs.models import Job
from jobs.settings import Settings
from jobs.store import JobStore

Ask = Callable[..., Job]
HELD = ("photographs@3f9c2a",)


def verdict(outcome: str, **more: Any) -> dict[str, Any]:
    return {"outcome": outcome, "reasons": [], **more}


@pytest.fixture
def answered(store: JobStore, ask: Ask) -> Callable[..., Job]:
    """A job that has its answer."""

    def answered(**changes: Any) -> Job:
        job = ask(owner="me", **changes)
        (claimed,) = store.leases.claim("worker", 1, HELD)
        assert store.leases.finish(claimed.token, {"works": [], "summary": "s"}, {})
        return job

    return answered


def begun(store: JobStore, job: Job, **changes: Any) -> Decision:
    told = {
        "owner": "me",
        "job_id": job.id,
        "policy_id": "publish",
        "version": 1,
        "shadow_version": None,
        **changes,
    }
    return store.decisions.create(**told)


def test_a_decision_waits_for_its_question_and_is_made_once(store: JobStore, ask: Ask) -> None:
    job = ask(owner="me")
    decision = begun(store, job)
    assert (decision.state, decision.outcome) == ("pending", None)
    assert store.decisions.ripe(10) == []
    store.cancel(job.id)
    assert [ripe.id for ripe in store.decisions.ripe(10)] == [decision.id]

    made = store.decisions.settle(decision.id, verdict("review"), verdict("block", version=2))
    again = store.decisions.settle(decision.id, verdict("clear"), None)
    assert made is not None
    assert again is not None
    assert (again.state, again.outcome, again.shadow) == (
        "decided",
        "review",
        {**verdict("block"), "version": 2},
    )
    assert again.decided_at == made.decided_at
    assert store.decisions.ripe(10) == []
    assert store.decisions.settle("dec_none", verdict("clear"), None) is None


def test_as_many_reviews_are_kept_as_there_is_room_for(store: JobStore, answered: Callable[..., Job]) -> None:
    decision = begun(store, answered())
    store.decisions.settle(decision.id, verdict("review"), None)
    for number in range(MOST_REVIEWS):
        store.decisions.review(decision.id, "me", "clear", f"{number}")
    with pytest.raises(NotDecided, match=f"it was reviewed {MOST_REVIEWS} times"):
        store.decisions.review(decision.id, "me", "clear", "one more")
    kept = store.decisions.get(decision.id)
    assert kept is not None
    assert kept.reviews is not None
    assert [one["note"] for one in kept.reviews] == [f"{number}" for number in range(MOST_REVIEWS)]


def test_a_review_is_kept_and_the_later_counts(store: JobStore, answered: Callable[..., Job]) -> None:
    decision = begun(store, answered())
    with pytest.raises(NotDecided, match="the decision is pending"):
        store.decisions.review(decision.id, "me", "clear", None)
    store.decisions.settle(decision.id, verdict("review"), None)
    store.decisions.review(decision.id, "me", "block", "too close")
    reviewed = store.decisions.review(decision.id, "me", "clear", None)
    assert reviewed.review is not None
    assert {**reviewed.review, "at": ""} == {"outcome": "clear", "note": None, "by": "me", "at": ""}
    assert reviewed.review_outcome == "clear"
    assert reviewed.reviews is not None
    assert [(one["outcome"], one["note"]) for one in reviewed.reviews] == [
        ("block", "too close"),
        ("clear", None),
    ]
    # The same word once more isn't another one.
    assert store.decisions.review(decision.id, "me", "clear", None).reviews == reviewed.reviews
    with pytest.raises(DecisionNotFound):
        store.decisions.review(decision.id, "you", "clear", None)


def test_lists_are_filtered_and_paged(store: JobStore, answered: Callable[..., Job]) -> None:
    job = answered()
    made = [begun(store, job, policy_id=policy) for policy in ("a", "b", "a")]
    theirs = begun(store, job, owner="you")
    store.decisions.settle(made[0].id, verdict("block"), None)
    store.decisions.settle(made[1].id, verdict("review"), None)
    store.decisions.review(made[1].id, "me", "clear", None)

    def found(**filters: Any) -> list[str]:
        return [d.id for d in store.decisions.list(DecisionFilters(owner="me", **filters)).decisions]

    newest_first = [d.id for d in reversed(made)]
    assert found() == newest_first
    assert found(policy_id="a") == [newest_first[0], newest_first[2]]
    assert found(outcome="block") == [made[0].id]
    assert found(reviewed=True) == [made[1].id]
    assert found(reviewed=False, state="decided") == [made[0].id]
    assert found(job_id="att_other") == []
    page = store.decisions.list(DecisionFilters(owner="me"), None, 2)
    rest = store.decisions.list(DecisionFilters(owner="me"), page.next_cursor, 2)
    assert [d.id for d in [*page.decisions, *rest.decisions]] == newest_first
    assert rest.next_cursor is None
    with pytest.raises(BadCursor):
        store.decisions.list(DecisionFilters(owner="me"), "att_x")
    assert store.decisions.get(theirs.id, "me") is None


def test_answered_questions_come_newest_first(
    store: JobStore, ask: Ask, answered: Callable[..., Job]
) -> None:
    jobs = [answered() for _ in range(3)]
    ask(owner="me")
    first = store.decisions.answered("me", None, 2)
    rest = store.decisions.answered("me", first[-1].id, 2)
    assert [job.id for job in [*first, *rest]] == [job.id for job in reversed(jobs)]
    assert store.decisions.answered("you", None, 2) == []
    assert store.decisions.answered("me", None, 2, index="another") == []
    for index in (HELD[0], HELD[0].partition("@")[0]):
        assert len(store.decisions.answered("me", None, 9, index=index)) == 3
    assert [j.id for j in store.decisions.answered("me", None, 9, since=jobs[0].created_at)] == [
        job.id for job in reversed(jobs[1:])
    ]
    with pytest.raises(BadCursor):
        store.decisions.answered("me", "dec_1", 2)


def test_erasing_a_question_empties_its_decisions(store: JobStore, answered: Callable[..., Job]) -> None:
    job = answered()
    decided, pending = begun(store, job, shadow_version=2), begun(store, job)
    store.decisions.settle(decided.id, verdict("block", note="secret"), verdict("clear"))
    store.decisions.review(decided.id, "me", "clear", "secret")
    store.decisions.review(decided.id, "me", "block", "another secret")
    store.erase(job.id)

    for one in (decided, pending):
        left = store.decisions.get(one.id)
        assert left is not None
        assert (left.state, left.outcome, left.verdict, left.shadow) == ("erased", None, None, None)
        assert (left.review_outcome, left.review, left.policy_id, left.version) == (None, None, "publish", 1)
        assert left.reviews is None
    assert store.decisions.ripe(10) == []
    assert store.decisions.list(DecisionFilters(owner="me")).decisions == []
    assert len(store.decisions.list(DecisionFilters(owner="me", state="erased")).decisions) == 2
    # Whoever had begun to decide comes too late, and nothing comes back.
    late = store.decisions.settle(pending.id, verdict("block", note="secret"), None)
    assert late is not None
    assert (late.state, late.verdict) == ("erased", None)
    with pytest.raises(NotDecided, match="the decision is erased"):
        store.decisions.review(decided.id, "me", "clear", "secret")
    with pytest.raises(JobNotFound):
        begun(store, job)
    with store.database.read() as session:
        rows = session.execute(text("SELECT * FROM decisions")).all()
    assert "secret" not in str(rows)


@pytest.mark.sqlite
def test_no_byte_of_a_decision_is_left_in_any_file(
    settings: Settings, store: JobStore, answered: Callable[..., Job]
) -> None:
    job = answered()
    decision = begun(store, job)
    secret = "the very name of a model"
    store.decisions.settle(
        decision.id, verdict("review", reasons=[{"text": secret}]), verdict("block", text=secret)
    )
    store.decisions.review(decision.id, "me", "clear", secret)

    def found() -> list[str]:
        files = [path for path in settings.data_dir.rglob("*") if path.is_file()]
        return [path.name for path in files if secret.encode() in path.read_bytes()]

    assert found(), "the test looks in the right place"
    store.erase(job.id)
    assert found() == []
