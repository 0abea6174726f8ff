"""The lease protocol: who gets a job, who keeps it, whose write counts."""

import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from multiprocessing import get_context

import pytest
from sqlalchemy.dialects import postgresql

from jobs.claims import CLAIM
from jobs.models import ClaimedJob, Job, utc_now
from jobs.settings import Settings
from jobs.store import JobStore
from jobs.turns import BULK_PRIORITY

Ask = Callable[..., Job]
HELD = ("photographs@3f9c2a", "drawings@1")


def claim_one(store: JobStore, worker: str = "worker") -> ClaimedJob:
    (claimed,) = store.leases.claim(worker, 1, HELD)
    return claimed


def get(store: JobStore, job_id: str) -> Job:
    job = store.get(job_id)
    assert job is not None
    return job


def test_a_claim_takes_the_oldest_and_what_shares_its_pass(store: JobStore, ask: Ask) -> None:
    first = ask()
    other_method = ask(method="das")
    other_candidates = ask(candidates="1000", candidate_works=["w_1", "w_2"])
    other_index = ask(index_id="drawings@1")
    also, third = ask(top_k=5, prompt="else"), ask()
    before = utc_now()
    batch = store.leases.claim("worker", 2, HELD)
    after = utc_now()
    assert [job.id for job in batch] == [first.id, also.id]
    assert (batch[1].top_k, batch[1].prompt, batch[1].attempt) == (5, "else", 1)
    assert len({job.token for job in batch}) == 2
    assert all(0 <= job.queue_wait_ms < 60_000 for job in batch)
    following = [[job.id for job in store.leases.claim("worker", 8, HELD)] for _ in range(5)]
    assert following == [[other_method.id], [other_candidates.id], [other_index.id], [third.id], []]
    state = get(store, first.id)
    assert (state.state, state.leased_by, state.attempt, state.version) == ("running", "worker", 1, 2)
    assert state.lease_expires_at is not None
    assert before <= state.lease_expires_at - timedelta(seconds=10) <= after


def test_questions_that_wait_are_counted_without_batches_and_other_indexes(store: JobStore, ask: Ask) -> None:
    ask(), ask(method="das"), ask(index_id="elsewhere@1"), ask(priority=BULK_PRIORITY)
    assert [store.leases.questions_waiting(HELD, most) for most in (1, 2, 8)] == [1, 2, 2]
    assert store.leases.questions_waiting((), 8) == 0
    store.leases.claim("worker", 1, HELD)
    assert store.leases.questions_waiting(HELD, 8) == 1


def test_what_waits_is_told_by_index_as_it_would_be_claimed(store: JobStore, ask: Ask) -> None:
    assert store.leases.waiting_by_index(HELD) == []
    bulk = ask(priority=BULK_PRIORITY)
    first, drawing, _ = ask(), ask(index_id="drawings@1"), ask()
    ask(index_id="elsewhere@1")
    told = store.leases.waiting_by_index(HELD)
    assert [(one.index_id, one.priority, one.first) for one in told] == [
        (HELD[0], 0, first.id),
        (HELD[1], 0, drawing.id),
        (HELD[0], BULK_PRIORITY, bulk.id),
    ]
    assert [one.since for one in told] == [first.created_at, drawing.created_at, bulk.created_at]
    assert [store.leases.claim("worker", 1, HELD)[0].id for _ in told][:2] == [first.id, drawing.id]
    assert [one.index_id for one in store.leases.waiting_by_index(("drawings@1",))] == []
    assert store.leases.waiting_by_index(()) == []


def test_a_job_that_was_tried_before_comes_alone(store: JobStore, ask: Ask) -> None:
    jobs = [ask().id for _ in range(4)]
    lost = [job.token for job in store.leases.claim("worker", 2, HELD)]
    assert store.leases.release(lost, "its process was killed") == jobs[:2]
    batches = [[job.id for job in store.leases.claim("worker", 8, HELD)] for _ in range(4)]
    assert batches == [[jobs[0]], [jobs[1]], jobs[2:], []]


def test_a_job_that_is_being_written_is_claimed_when_it_is_free(
    store: JobStore, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by the API, which adds the look-alikes of a question that it has rung for: nobody rings again soon."""
    monkeypatch.setattr("jobs.claims._PAUSES_S", (0.05,) * 1200)
    job, held = ask(), threading.Event()

    def write() -> None:
        with store.database.write() as session:
            session.get_one(Job, job.id, with_for_update=True)
            held.set()
            time.sleep(0.2)

    with ThreadPoolExecutor(1) as threads:
        writing = threads.submit(write)
        assert held.wait(60)
        assert claim_one(store).id == job.id
        writing.result()


def test_threads_that_claim_at_once_never_share_a_job(store: JobStore, ask: Ask) -> None:
    made = {ask().id for _ in range(60)}
    start = threading.Barrier(6)

    def work(worker: int) -> list[str]:
        start.wait()
        taken: list[str] = []
        while batch := store.leases.claim(f"worker {worker}", 3, HELD):
            taken += [job.id for job in batch]
        return taken

    with ThreadPoolExecutor(6) as pool:
        shares = list(pool.map(work, range(6)))
    counts = Counter(job_id for share in shares for job_id in share)
    assert set(counts) == made
    assert set(counts.values()) == {1}


def _claim_all(settings: Settings, worker: str) -> list[str]:
    store = JobStore(settings, notify=lambda job_id, version: None)
    taken: list[str] = []
    while batch := store.leases.claim(worker, 2, HELD):
        taken += [job.id for job in batch]
    return taken


def test_processes_that_claim_at_once_never_share_a_job(
    settings: Settings, store: JobStore, ask: Ask
) -> None:
    made = sorted(ask().id for _ in range(40))
    with get_context("spawn").Pool(2) as pool:
        shares = pool.starmap(_claim_all, [(settings, f"worker {number}") for number in range(2)])
    assert sorted(job_id for share in shares for job_id in share) == made


def test_the_claim_on_postgresql_passes_over_locked_rows() -> None:
    text = str(CLAIM.compile(dialect=postgresql.dialect()))
    assert text.startswith("WITH head AS")
    assert text.count("FOR UPDATE") == 2
    assert "FOR UPDATE OF waiting SKIP LOCKED" in text
    assert "RETURNING" in text


def test_an_answer_is_written_once(store: JobStore, ask: Ask, announced: list[tuple[str, int]]) -> None:
    job = ask()
    claimed = claim_one(store)
    store.leases.progress([claimed.token], "gradients", 4, 10)
    assert store.leases.finish(claimed.token, {"works": [{"work_id": "w_1"}]}, {"engine_ms": 7.5})
    done = get(store, job.id)
    assert (done.state, done.stage, done.progress_done, done.progress_total) == (
        "succeeded",
        "scored",
        10,
        10,
    )
    assert done.result == {"works": [{"work_id": "w_1"}]}
    assert done.timings is not None
    assert done.timings["engine_ms"] == 7.5
    assert done.timings["write_ms"] > 0
    assert done.lease_token is None
    assert not done.retrying
    assert done.finished_at is not None
    assert done.started_at is not None
    assert done.finished_at >= done.started_at >= done.created_at
    assert not store.leases.finish(claimed.token, {"works": []}, {})
    assert not store.leases.fail(claimed.token, "No.", "internal-error")
    assert get(store, job.id).result == {"works": [{"work_id": "w_1"}]}
    assert announced == [(job.id, 2), (job.id, 3), (job.id, 4)]
    events = store.events(job.id)
    assert [event.kind for event in events] == ["created", "started", "succeeded"]
    assert events[1].data == {"attempt": 1, "batch": 1}


def test_a_failure_keeps_its_reason(store: JobStore, ask: Ask) -> None:
    job = ask()
    assert store.leases.fail(claim_one(store).token, "The model takes no grey pictures.", "model")
    failed = get(store, job.id)
    assert (failed.state, failed.error) == (
        "failed",
        {"code": "model", "message": "The model takes no grey pictures."},
    )
    assert failed.finished_at is not None


def test_a_stale_worker_changes_nothing(store: JobStore, ask: Ask) -> None:
    job = ask()
    stale = claim_one(store, "slow")
    store.upkeep.sweep(utc_now() + timedelta(minutes=1))
    fresh = claim_one(store, "quick")
    assert (fresh.id, fresh.attempt) == (job.id, 2)
    assert get(store, job.id).retrying
    before = get(store, job.id)
    assert not store.leases.finish(stale.token, {"works": "stale"}, {})
    assert not store.leases.fail(stale.token, "stale", "stale")
    assert store.leases.renew([stale.token, fresh.token]) == {fresh.token}
    assert store.leases.progress([stale.token], "scored", 9, 9) == set()
    assert store.leases.release([stale.token], "stale") == []
    after = get(store, job.id)
    assert (after.version, after.result, after.stage) == (before.version, None, before.stage)
    assert store.leases.finish(fresh.token, {"works": "fresh"}, {})
    assert get(store, job.id).result == {"works": "fresh"}


@pytest.mark.parametrize("end", ["cancel", "erase"])
def test_a_job_taken_away_while_it_runs(store: JobStore, ask: Ask, end: str) -> None:
    job = ask()
    claimed = claim_one(store)
    getattr(store, end)(job.id)
    assert store.leases.renew([claimed.token]) == set()
    assert store.leases.progress([claimed.token], "gradients", 1, 2) == set()
    assert not store.leases.finish(claimed.token, {"works": []}, {})
    assert not store.leases.fail(claimed.token, "late", "late")
    assert store.leases.release([claimed.token], "late") == []
    after = get(store, job.id)
    assert after.state == {"cancel": "cancelled", "erase": "erased"}[end]
    assert after.result is None


def test_renewing_moves_the_end_of_the_lease(store: JobStore, ask: Ask) -> None:
    job = ask()
    claimed = claim_one(store)
    before = get(store, job.id)
    assert store.leases.renew([claimed.token]) == {claimed.token}
    after = get(store, job.id)
    assert after.lease_expires_at is not None
    assert before.lease_expires_at is not None
    assert after.lease_expires_at > before.lease_expires_at
    assert after.version == before.version, "nothing that a person can see has changed"


def test_lost_attempts_are_counted_and_then_given_up(store: JobStore, ask: Ask) -> None:
    job = ask()
    for attempt in (1, 2):
        assert claim_one(store).attempt == attempt
        report = store.upkeep.sweep(utc_now() + timedelta(minutes=1))
        assert (report.requeued, report.failed, report.to_ring) == ([job.id], [], [job.id])
        waiting = get(store, job.id)
        assert (waiting.state, waiting.attempt, waiting.retrying) == ("queued", attempt, True)
    claim_one(store)
    report = store.upkeep.sweep(utc_now() + timedelta(minutes=1))
    assert (report.requeued, report.failed) == ([], [job.id])
    failed = get(store, job.id)
    assert failed.state == "failed"
    assert failed.error is not None
    assert failed.error["code"] == "attempts-exhausted"
    assert "started 3 times" in failed.error["message"]
    assert "stopped giving signs of life" in failed.error["message"]
    kinds = [event.kind for event in store.events(job.id)]
    assert kinds == ["created", "started", "retrying", "started", "retrying", "started", "failed"]


def test_a_dead_worker_gives_back_only_its_own(store: JobStore, ask: Ask) -> None:
    mine, theirs = ask(), ask()
    claim_one(store, "dead")
    claim_one(store, "alive")
    assert store.leases.release_worker("dead", "its process was killed") == [mine.id]
    assert get(store, theirs.id).state == "running"


def test_a_lost_bell_is_rung_once_per_interval(store: JobStore, ask: Ask) -> None:
    job = ask()
    assert store.upkeep.sweep().to_ring == []
    later = utc_now() + timedelta(seconds=6)
    assert store.upkeep.sweep(later).to_ring == [job.id]
    assert store.upkeep.sweep(later).to_ring == []
    assert store.upkeep.sweep(later + timedelta(seconds=6)).to_ring == [job.id]
    claim_one(store)
    assert store.upkeep.sweep(later + timedelta(seconds=3)).to_ring == []


def test_sweepers_at_once_find_each_job_once(store: JobStore, ask: Ask) -> None:
    jobs = sorted(ask().id for _ in range(10))
    store.leases.claim("dead", 5, HELD)
    now = utc_now() + timedelta(minutes=1)
    start = threading.Barrier(4)

    def sweep(_: int) -> tuple[list[str], list[str]]:
        start.wait()
        report = store.upkeep.sweep(now)
        return report.requeued, report.to_ring

    with ThreadPoolExecutor(4) as pool:
        reports = list(pool.map(sweep, range(4)))
    assert sorted(job_id for requeued, _ in reports for job_id in requeued) == jobs[:5]
    assert {job_id for _, to_ring in reports for job_id in to_ring} == set(jobs)
    assert all(get(store, job_id).attempt <= 1 for job_id in jobs)
