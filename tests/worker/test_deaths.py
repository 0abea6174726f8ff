"""Workers and brokers that die. Every process ended here was started by the test, and is named by its id."""

import os
import signal
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from conftest import Service

StartService = Callable[..., "Service"]
Eventually = Callable[..., None]


def test_a_killed_child_is_replaced_and_its_job_tried_again(
    start_service: StartService, eventually: Eventually
) -> None:
    # Nobody waits until the lease ends: the parent sees its child die.
    service = start_service(lease_seconds=600.0)
    service.start_worker()
    job_id = service.ask("slow-once")
    eventually(lambda: service.get(job_id).state == "running")
    killed = service.child_pids()[0]
    os.kill(killed, signal.SIGKILL)
    job = service.wait(job_id)
    assert (job.state, job.attempt) == ("succeeded", 2)
    assert job.result is not None
    assert job.result["pid"] != killed
    reasons = [event.data.get("reason") for event in service.store.events(job_id) if event.kind == "retrying"]
    assert reasons == ["its process was killed"]


def test_a_killed_worker_loses_its_job_to_another(
    start_service: StartService, eventually: Eventually
) -> None:
    service = start_service(lease_seconds=6.0)
    first = service.start_worker()
    job_id = service.ask("slow-once")
    eventually(lambda: service.get(job_id).state == "running")
    parent, child = first.pid, service.child_pids()[0]
    assert parent is not None
    service.start_worker()
    os.kill(parent, signal.SIGKILL)
    job = service.wait(job_id)
    assert (job.state, job.attempt) == ("succeeded", 2)
    # A child doesn't outlive its parent.
    eventually(lambda: not psutil.pid_exists(child))


def test_a_job_that_kills_every_worker_is_given_up_and_takes_no_other_along(
    start_service: StartService,
) -> None:
    service = start_service(lease_seconds=60.0)
    together = [service.create("") for _ in range(2)] + [service.create("crash")] + [service.create("")]
    service.start_worker()
    service.doorbell.ring(together[0])
    jobs = [service.wait(job_id) for job_id in together]
    assert [job.state for job in jobs] == ["succeeded", "succeeded", "failed", "succeeded"]
    assert [job.attempt for job in jobs] == [2, 2, 3, 2]
    assert jobs[2].error is not None
    assert jobs[2].error["code"] == "attempts-exhausted"
    assert "its process was killed" in jobs[2].error["message"]
    # The worker is well after all that.
    assert service.wait(service.ask()).state == "succeeded"


def test_two_workers_share_the_jobs(start_service: StartService, eventually: Eventually) -> None:
    service = start_service(batch_size=1)
    service.start_worker()
    service.start_worker()
    jobs = [service.ask("hold both") for _ in range(12)]
    eventually(lambda: len(service.batches()) == 2)
    service.let_go("both")
    answers = [service.wait(job_id) for job_id in jobs]
    assert {(job.state, job.attempt) for job in answers} == {("succeeded", 1)}
    assert len({job.result["pid"] for job in answers if job.result}) == 2
    assert sorted(job_id for batch in service.batches() for job_id in batch) == jobs


def test_a_broker_that_is_gone_for_five_seconds_loses_nothing(
    start_service: StartService, eventually: Eventually
) -> None:
    service = start_service()
    service.start_worker()
    running = service.ask("hold answer")
    eventually(lambda: service.get(running).state == "running")
    waiting = [service.ask(method="das") for _ in range(3)]
    service.broker.stop()
    assert not service.doorbell.ring(waiting[0])
    meanwhile = [service.ask() for _ in range(3)]
    time.sleep(5)
    # The computation needs no broker, and its answer doesn't wait for one.
    service.let_go("answer")
    assert service.wait(running).attempt == 1
    service.broker.start()
    for job_id in [*waiting, *meanwhile, service.ask()]:
        job = service.wait(job_id)
        assert (job.state, job.attempt) == ("succeeded", 1)


def test_a_killed_broker_is_started_again(start_service: StartService, eventually: Eventually) -> None:
    service = start_service()
    service.start_worker()
    assert service.wait(service.ask()).state == "succeeded"
    killed = service.broker.pid
    assert killed is not None
    os.kill(killed, signal.SIGKILL)
    job_id = service.ask()
    eventually(lambda: service.broker.pid not in (None, killed))
    assert service.wait(job_id).state == "succeeded"
    assert service.wait(service.ask()).state == "succeeded"


def test_a_worker_may_start_before_the_broker_answers(
    start_service: StartService, eventually: Eventually
) -> None:
    service = start_service()
    service.broker.stop()
    job_id = service.create()
    service.start_worker()
    service.broker.start()
    assert service.wait(job_id).state == "succeeded"


def test_time_limits(start_service: StartService) -> None:
    service = start_service(soft_time_limit_seconds=2.0, hard_time_limit_seconds=5.0, max_attempts=2)
    service.start_worker()
    slow, stubborn = service.ask("sleep 60"), service.ask("stubborn", method="das")
    error = service.wait(slow).error
    assert error == {
        "code": "time-limit",
        "message": "The computation took longer than 2 s and was stopped.",
    }
    error = service.wait(stubborn).error
    assert error is not None
    assert "started 2 times" in error["message"]
    assert "it took too long and was stopped" in error["message"]
    assert service.wait(service.ask()).state == "succeeded"


def test_a_worker_told_to_end_finishes_what_it_has(
    start_service: StartService, eventually: Eventually
) -> None:
    service = start_service()
    worker = service.start_worker()
    job_id = service.ask("steps 10 0.1")
    eventually(lambda: service.get(job_id).progress_done > 0)
    worker.stop()
    job = service.get(job_id)
    assert (job.state, job.attempt) == ("succeeded", 1)
    assert list(service.store.workers.known()) == []


def test_a_worker_that_is_loading_ends_at_once_and_in_order(
    start_service: StartService, eventually: Eventually
) -> None:
    service = start_service()
    service.settings.data_dir.joinpath("load-slowly").touch()
    worker = service.launch_worker()
    eventually(lambda: [beat.info.get("loading") for beat in service.store.workers.known()] == ["the script"])
    (beat,) = service.store.workers.known()
    worker.stop()
    # In order: one that is killed, after 10 s, takes nothing of itself off the list.
    assert not psutil.pid_exists(beat.info["pid"])
    assert list(service.store.workers.known()) == []


def test_a_child_that_is_loading_doesnt_outlive_its_killed_parent(
    start_service: StartService, eventually: Eventually
) -> None:
    service = start_service()
    service.settings.data_dir.joinpath("load-slowly").touch()
    worker = service.launch_worker()
    eventually(lambda: [beat.info.get("loading") for beat in service.store.workers.known()] == ["the script"])
    (beat,) = service.store.workers.known()
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGKILL)
    eventually(lambda: not psutil.pid_exists(beat.info["pid"]))
