"""Bells are heard by workers that are ready. None is rung a second time here: one that is lost fails the test."""

import os
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from conftest import Service

StartService = Callable[..., "Service"]
Eventually = Callable[..., None]
NEVER_S = 3600.0


def load_for_ever(service: "Service", eventually: Eventually) -> None:
    """One more worker, which doesn't come to be ready."""
    service.settings.data_dir.joinpath("load-slowly").touch()
    service.launch_worker()
    eventually(lambda: "loading" in [beat.info["engine"] for beat in service.store.workers.known()])


def test_a_worker_that_loads_takes_no_bell_from_one_that_is_ready(
    start_service: StartService, eventually: Eventually
) -> None:
    service = start_service(rering_seconds=NEVER_S)
    service.start_worker()
    load_for_ever(service, eventually)
    # The broker gives a bell to whoever listens longest: with each the other would be next.
    for _ in range(10):
        job = service.wait(service.ask())
        assert (job.state, job.attempt) == ("succeeded", 1)


def test_nor_does_one_whose_killed_child_is_replaced(
    start_service: StartService, eventually: Eventually
) -> None:
    service = start_service(rering_seconds=NEVER_S)
    service.start_worker()
    service.start_worker()
    interrupted = service.ask("slow-once")
    eventually(lambda: service.get(interrupted).state == "running")
    service.settings.data_dir.joinpath("load-slowly").touch()
    holder = service.get(interrupted).leased_by
    (pid,) = [beat.info["pid"] for beat in service.store.workers.known() if beat.id == holder]
    os.kill(pid, signal.SIGKILL)
    assert service.wait(interrupted).attempt == 2
    for _ in range(10):
        assert service.wait(service.ask()).state == "succeeded"


def test_nor_does_one_whose_child_was_killed_while_it_had_nothing_to_do(
    start_service: StartService, eventually: Eventually
) -> None:
    service = start_service(rering_seconds=NEVER_S)
    service.start_worker()
    service.start_worker()
    service.settings.data_dir.joinpath("load-slowly").touch()
    killed = service.child_pids()[0]
    os.kill(killed, signal.SIGKILL)
    eventually(lambda: has_ended(killed))
    # Its parent has asked the broker for a bell and may not know yet.
    for _ in range(10):
        assert service.wait(service.ask()).state == "succeeded"


def has_ended(pid: int) -> bool:
    """Whether a process has, collected by its parent or not."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_a_bell_that_rang_while_nobody_was_ready_is_heard_by_the_first_who_is(
    start_service: StartService,
) -> None:
    service = start_service(rering_seconds=NEVER_S)
    early = service.ask()
    service.start_worker()
    assert service.wait(early).state == "succeeded"
    # Ready means that it hears.
    assert service.wait(service.ask()).state == "succeeded"


def test_the_bells_of_a_worker_that_is_ended_while_it_loads_are_there_for_others(
    start_service: StartService, eventually: Eventually
) -> None:
    service = start_service(rering_seconds=NEVER_S)
    load_for_ever(service, eventually)
    asked = [service.ask() for _ in range(3)]
    service.workers.pop().stop()
    service.settings.data_dir.joinpath("load-slowly").unlink()
    service.start_worker()
    assert {service.wait(job_id).state for job_id in asked} == {"succeeded"}
