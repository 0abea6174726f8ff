"""Searches that real workers share, and what becomes of them where one is busy, fails, dies or leads itself."""

import os
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from worker.together import divided

if TYPE_CHECKING:
    from conftest import Service

StartService = Callable[..., "Service"]
Eventually = Callable[..., None]


@pytest.fixture
def three(start_service: StartService) -> "Service":
    """A service with three workers that divide searches among each other."""
    service = start_service(search_workers=3)
    for _ in range(3):
        service.start_worker()
    return service


def found(service: "Service", job_id: str) -> dict[str, int]:
    """Who scored which rows."""
    job = service.wait(job_id)
    assert job.state == "succeeded", job.error
    assert job.result is not None
    rows = [one.split(" by ") for one in job.result["sections"]]
    return {section: int(pid) for section, pid in rows}


def nothing_is_left(service: "Service") -> bool:
    with service.store.database.read() as session:
        tables = ("searches", "search_sections")
        return all(
            session.connection().exec_driver_sql(f"SELECT * FROM {one}").first() is None for one in tables
        )


def figures(service: "Service") -> dict[int, dict[str, int]]:
    return {worker.info["pid"]: worker.info["searches"] for worker in service.store.workers.known()}


def test_each_worker_has_its_section_whoever_leads(three: "Service") -> None:
    three.let_go("free")
    answers = []
    for _ in range(4):
        for begun in three.settings.data_dir.glob("began-*"):
            begun.unlink()
        # Nobody is late: the leader's own section isn't scored before both others are begun.
        answers.append(found(three, three.ask("search hold-free-2")))
    assert list(answers[0]) == ["0-4", "4-8", "8-12"]
    assert set(answers[0].values()) == set(three.child_pids())
    assert answers[1:] == answers[:1] * 3
    assert nothing_is_left(three)


def test_alone_nobody_is_asked(start_service: StartService) -> None:
    service = start_service(search_workers=4)
    service.start_worker()
    job = service.wait(service.ask("search plain"))
    assert job.result is not None
    assert job.result["sections"] is None


def test_by_default_searches_are_not_divided(start_service: StartService) -> None:
    service = start_service()
    service.start_worker()
    service.start_worker()
    job = service.wait(service.ask("search plain"))
    assert job.result is not None
    assert job.result["sections"] is None


def test_more_workers_than_sections_keep_theirs() -> None:
    holders = ["a", "b", "c", "d", "e"]
    assert divided(holders, "a", 2) == ["a", "b"]
    assert divided(holders, "d", 2) == ["c", "d"]
    assert divided(holders, "e", 2) == ["e", "b"]
    for count in range(1, 6):
        for leading in holders:
            named = divided(holders, leading, count)
            assert leading in named
            assert all(holders.index(one) % count == number for number, one in enumerate(named))


def test_a_worker_that_dies_with_a_section_holds_nothing_up(three: "Service", eventually: Eventually) -> None:
    job_id = three.ask("search hold-never-2")
    eventually(lambda: len([*three.settings.data_dir.glob("began-*")]) == 2)
    leading = next(
        worker.info["pid"]
        for worker in three.store.workers.known()
        if worker.id == three.get(job_id).leased_by
    )
    for pid in three.child_pids():
        if pid != leading:
            os.kill(pid, signal.SIGKILL)
    assert set(found(three, job_id).values()) == {leading}
    assert three.get(job_id).attempt == 1
    eventually(lambda: nothing_is_left(three))
    # Those that take their places take part.
    eventually(lambda: len(three.child_pids()) == 3 and leading in three.child_pids())
    three.let_go("never")
    assert list(found(three, three.ask("search plain"))) == ["0-4", "4-8", "8-12"]


@pytest.mark.parametrize("script", ["raise", "crash"])
def test_what_others_cannot_score_the_leader_does(three: "Service", script: str) -> None:
    job_id = three.ask(f"search {script}")
    by = found(three, job_id)
    assert list(by) == ["0-4", "4-8", "8-12"]
    assert len(set(by.values())) == 1
    # The next finds them well.
    assert found(three, three.ask("search plain"))


def test_a_slow_section_is_given_up_and_comes_too_late(three: "Service", eventually: Eventually) -> None:
    by = found(three, three.ask("search hold-slowly-2"))
    assert len(set(by.values())) == 1
    three.let_go("slowly")
    # What was found in vain harms nothing.
    eventually(lambda: nothing_is_left(three))
    assert found(three, three.ask("search plain"))


def test_busy_workers_are_not_waited_for(three: "Service", eventually: Eventually) -> None:
    busy = [three.ask("hold free", method=f"method {number}") for number in range(2)]
    eventually(lambda: all(three.get(job_id).state == "running" for job_id in busy))
    by = found(three, three.ask("search plain"))
    assert len(set(by.values())) == 1
    three.let_go("free")
    for job_id in busy:
        assert three.wait(job_id).state == "succeeded"


def test_all_may_lead_at_once(three: "Service", eventually: Eventually) -> None:
    jobs = [three.create("search plain", method=f"method {number}") for number in range(30)]
    for job_id in jobs:
        three.doorbell.ring(job_id)
    for job_id in jobs:
        assert list(found(three, job_id)) == ["0-4", "4-8", "8-12"]
    eventually(lambda: nothing_is_left(three))
    eventually(lambda: sum(one["led"] for one in figures(three).values()) == 30)


def test_a_question_that_is_taken_back_ends_its_search(three: "Service", eventually: Eventually) -> None:
    job_id = three.ask("search hold-long-2")
    eventually(lambda: [*three.settings.data_dir.glob("began-*")])
    three.store.cancel(job_id)
    eventually(lambda: nothing_is_left(three))
    three.let_go("long")
    assert found(three, three.ask("search plain"))


def test_a_leader_that_dies_leaves_no_search_for_good(
    start_service: StartService, eventually: Eventually
) -> None:
    service = start_service(search_workers=2, soft_time_limit_seconds=4.0, hard_time_limit_seconds=5.0)
    service.start_worker()
    service.start_worker()
    job_id = service.ask("search hold-on-1")
    eventually(lambda: [*service.settings.data_dir.glob("began-*")])
    leading = next(
        worker.info["pid"]
        for worker in service.store.workers.known()
        if worker.id == service.get(job_id).leased_by
    )
    os.kill(leading, signal.SIGKILL)
    service.let_go("on")
    assert list(found(service, job_id)) == ["0-6", "6-12"]
    assert service.get(job_id).attempt == 2

    def tidied() -> bool:
        service.store.upkeep.tidy()
        return nothing_is_left(service)

    eventually(tidied)
