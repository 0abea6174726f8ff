"""A worker that lives: batches, progress, failures, cancelling; through the real broker and a real child process."""

import os
import time
from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING

import psutil

from jobs.broker import connect
from worker.child import NICENESS

if TYPE_CHECKING:
    from conftest import Service

Eventually = Callable[..., None]


def test_a_bell_brings_the_answer(service: "Service") -> None:
    job = service.wait(service.ask())
    assert job.state == "succeeded"
    assert job.result is not None
    assert job.result["bytes"] == len(b"an image")
    assert (job.attempt, job.stage, job.retrying) == (1, "scored", False)
    assert job.timings is not None
    assert set(job.timings) == {"queue_wait_ms", "claim_ms", "decode_ms", "engine_ms", "write_ms", "batch"}


def test_the_computation_gives_way_to_the_api(service: "Service") -> None:
    service.wait(service.ask())
    niceness = [psutil.Process(pid).nice() for pid in service.child_pids()]
    assert niceness == [min(19, os.nice(0) + NICENESS)]


def test_waiting_jobs_share_a_batch(service: "Service") -> None:
    first = service.ask("hold alike")
    while service.get(first).state == "queued":
        time.sleep(0.01)
    alike = [service.ask() for _ in range(3)]
    other = service.ask(method="das")
    service.let_go("alike")
    for job_id in [*alike, other]:
        assert service.wait(job_id).state == "succeeded"
    assert service.batches()[-3:] == [[first], alike, [other]]
    assert service.get(alike[0]).timings["batch"] == 3  # type: ignore[index]


def test_one_bell_is_enough_for_many_jobs(service: "Service") -> None:
    silent = [service.create(method=f"method {number}") for number in range(4)]
    service.doorbell.ring(silent[0])
    for job_id in silent:
        assert service.wait(job_id).state == "succeeded"


def test_bells_without_jobs_do_nothing(service: "Service") -> None:
    for _ in range(20):
        service.doorbell.ring("att_0")
    assert service.wait(service.ask()).state == "succeeded"


def test_a_bell_that_was_lost_is_rung_again(service: "Service", eventually: Eventually) -> None:
    service.wait(service.ask())
    # Nor does the worker hold one any longer: it gives it back once it is through with it.
    with connect(service.settings) as broker:
        eventually(lambda: service.doorbell.waiting() == 0 and int(broker.hlen("unacked")) == 0)
    began = time.monotonic()
    silent = service.create()
    assert service.wait(silent).state == "succeeded"
    assert time.monotonic() - began > service.settings.rering_seconds


def test_progress_is_seen_while_it_computes(service: "Service") -> None:
    job_id = service.ask("steps 5 0.2")
    seen = []
    while not (job := service.get(job_id)).finished:
        seen.append((job.version, job.stage, job.progress_done, job.progress_total))
        time.sleep(0.02)
    steps = sorted({step[2] for step in seen if step[1] == "gradients" and step[3] == 5})
    assert len(steps) >= 3
    assert all(before[0] <= after[0] and before[2] <= after[2] for before, after in pairwise(seen))
    assert (job.progress_done, job.progress_total) == (5, 5) or (job.progress_done, job.progress_total) == (
        1,
        1,
    )


def test_a_poisoned_job_fails_alone(service: "Service") -> None:
    first = service.ask("hold poisoned")
    while service.get(first).state == "queued":
        time.sleep(0.01)
    good, poisoned, refused, late = (service.ask(script) for script in ("", "raise", "refuse", ""))
    service.let_go("poisoned")
    assert [service.wait(job_id).state for job_id in (good, poisoned, refused, late)] == [
        "succeeded",
        "failed",
        "failed",
        "succeeded",
    ]
    unexpected, expected = service.get(poisoned).error, service.get(refused).error
    assert unexpected is not None
    assert unexpected["code"] == "internal-error"
    assert "ValueError: a number that isn't one" in unexpected["message"]
    assert poisoned in unexpected["message"]
    assert expected == {
        "code": "not-attributable",
        "message": "the model can't be used with this picture",
    }
    kinds = [event.kind for event in service.store.events(good)]
    assert kinds == ["created", "started", "retrying", "started", "succeeded"]


def test_a_lost_image_fails_its_job_with_a_reason(service: "Service") -> None:
    job_id = service.create()
    service.store.blobs.delete(job_id)
    service.doorbell.ring(job_id)
    job = service.wait(job_id)
    assert job.error is not None
    assert job.error["code"] == "attempts-exhausted"
    assert f"the picture of {job_id} is no longer in" in job.error["message"]


def test_cancelling_frees_the_worker_at_its_next_step(service: "Service") -> None:
    job_id = service.ask("steps 3000 0.1")
    while service.get(job_id).progress_done == 0:
        time.sleep(0.01)
    service.store.cancel(job_id)
    # Its other steps would take minutes.
    assert service.wait(service.ask()).state == "succeeded"
    assert service.get(job_id).state == "cancelled"
    assert service.get(job_id).result is None


def test_erasing_while_it_computes_leaves_nothing(service: "Service") -> None:
    job_id = service.ask("hold erased")
    while service.get(job_id).state == "queued":
        time.sleep(0.01)
    service.store.erase(job_id)
    service.let_go("erased")
    assert service.wait(service.ask()).state == "succeeded"
    job = service.get(job_id)
    assert (job.state, job.result, job.timings, job.error) == ("erased", None, None, None)
    assert not (service.settings.data_dir / "blobs" / f"{job_id}.png").exists()


def test_memory_is_stable_over_many_queries(service: "Service", eventually: Eventually) -> None:
    def rss() -> float:
        (worker,) = service.store.workers.known()
        return float(worker.info["rss_mb"])

    def answer(count: int) -> None:
        for _ in range(count):
            service.wait(service.ask())
        target = service.store.workers.known()[0].seen_at
        eventually(lambda: service.store.workers.known()[0].seen_at > target)

    answer(50)
    before = rss()
    answer(150)
    assert rss() - before < 3.0


def test_what_fails_with_anothers_question_isnt_told_in_its_words(
    start_service: Callable[..., "Service"],
) -> None:
    """An exception's text may quote what was asked, and of a batch nobody knows whose it was."""
    service = start_service(max_attempts=1)
    service.start_worker()
    first = service.ask("hold another")
    while service.get(first).state == "queued":
        time.sleep(0.01)
    asked = [service.ask("raise", owner="ada"), service.ask(owner="bob")]
    service.let_go("another")
    jobs = [service.wait(job_id) for job_id in asked]
    assert set(service.batches()[-1]) == {job.id for job in jobs}
    for job in jobs:
        assert (job.state, job.error and job.error["code"]) == ("failed", "attempts-exhausted")
        assert "computed together with others, which failed with ValueError" in str(job.error)
        assert "a number that isn't one" not in str(job.error)
