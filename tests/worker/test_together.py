"""Searches that real workers share, and what becomes of them where one is busy, fails, dies or leads itself."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from celery.exceptions import SoftTimeLimitExceeded

from das.sections import Section
from jobs.database import upgrade
from jobs.queue import Doorbell
from jobs.searches import SectionTask
from jobs.store import JobStore
from tests.worker.conftest import quick_settings
from worker.together import Search, Together, divided

if TYPE_CHECKING:
    from conftest import Service

StartService = Callable[..., "Service"]
Eventually = Callable[..., None]
NEVER_S = 3600.0


@pytest.fixture
def three(start_service: StartService) -> "Service":
    """A service with three workers that divide searches among each other."""
    # On a busy machine signs of life come late, and whoever gives none isn't asked.
    service = start_service(search_workers=3, heartbeat_seconds=5.0)
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
    killed = {*three.child_pids()} - {leading}
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    assert set(found(three, job_id).values()) == {leading}
    assert three.get(job_id).attempt == 1
    eventually(lambda: nothing_is_left(three))
    # Those that take their places take part.
    eventually(lambda: len({*three.child_pids()} - killed) == 3)
    three.let_go("never")
    assert list(found(three, three.ask("search plain"))) == ["0-4", "4-8", "8-12"]


@pytest.mark.parametrize("script", ["raise", "crash", "nonsense"])
def test_what_others_cannot_score_the_leader_does(three: "Service", script: str) -> None:
    job_id = three.ask(f"search {script}")
    by = found(three, job_id)
    assert list(by) == ["0-4", "4-8", "8-12"]
    assert len(set(by.values())) == 1
    # The next finds them well.
    assert found(three, three.ask("search plain"))


def test_a_slow_section_is_given_up_and_comes_too_late(three: "Service", eventually: Eventually) -> None:
    by = found(three, three.ask("search deaf-slowly-2"))
    assert len(set(by.values())) == 1
    three.let_go("slowly")
    # What was found in vain harms nothing.
    eventually(lambda: nothing_is_left(three))
    assert found(three, three.ask("search plain"))


def all_are_free(service: "Service", eventually: Eventually) -> None:
    """Each of three workers takes up a question, and none is answered before all have."""
    busy = [service.ask("hold free", method=f"method {number}") for number in range(3)]
    eventually(lambda: all(service.get(job_id).state == "running" for job_id in busy))
    service.let_go("free")
    for job_id in busy:
        assert service.wait(job_id).state == "succeeded"


def test_whose_section_was_given_up_turns_to_other_questions(
    three: "Service", eventually: Eventually
) -> None:
    by = found(three, three.ask("search hold-never-2"))
    assert len(set(by.values())) == 1
    all_are_free(three, eventually)


def test_whose_search_was_taken_back_turns_to_other_questions(
    three: "Service", eventually: Eventually
) -> None:
    job_id = three.ask("search hold-never-2")
    eventually(lambda: len([*three.settings.data_dir.glob("began-*")]) == 2)
    three.store.cancel(job_id)
    all_are_free(three, eventually)


@pytest.fixture
def apart(tmp_path: Path) -> Iterator[tuple[Together, JobStore]]:
    """A worker's part in searches in this process, and its store, which knows of another that never answers."""
    settings = quick_settings(tmp_path, search_workers=2)
    upgrade(settings)
    store, doorbell = JobStore(settings), Doorbell(settings)
    together = Together(settings, store.searches, store.workers, doorbell, "me")
    info = {"engine": "ready", "loaded": ["photographs@3f9c2a"], "searches": together.told()}
    store.workers.heartbeat("other", info)
    yield together, store
    doorbell.close()
    store.close()


class Helping:
    """Computes sections of four works, and first does what it is given to do."""

    def __init__(self, store: JobStore, first: Callable[[SectionTask], object]) -> None:
        self._store = store
        self._first = first
        self.computed = 0

    def score_section(self, task: SectionTask, alive: Callable[[], None]) -> bytes:
        alive()
        self._first(task)
        alive()
        self.computed += 1
        return b"something"


def helped(apart: tuple[Together, JobStore], first: Callable[[SectionTask], object]) -> tuple[int, int]:
    """How many sections were computed to their end, and how many of them somebody wanted."""
    together, store = apart
    engine = Helping(store, first)
    together.serve(engine, lambda: ["photographs@3f9c2a"])
    store.searches.begin("photographs@3f9c2a", "das-block", b"", [(0, 2, "other"), (2, 4, "me")])
    assert together.help() == 1
    return engine.computed, together.helped


def test_who_helps_stops_once_nobody_waits_for_it(
    apart: tuple[Together, JobStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.together._WANTED_EVERY_S", 0.0)
    searches = apart[1].searches
    assert helped(apart, lambda _: None) == (1, 1)
    assert helped(apart, lambda task: searches.end(task.search_id)) == (0, 1)
    assert helped(apart, lambda task: searches.take_over(task.search_id, 0, "other")) == (1, 2)
    assert helped(apart, lambda task: searches.take_over(task.search_id, 1, "other")) == (0, 2)


def test_whether_it_is_wanted_is_asked_now_and_then(
    apart: tuple[Together, JobStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.together._WANTED_EVERY_S", NEVER_S)
    searches = apart[1].searches
    # What is found out too late is handed in in vain.
    assert helped(apart, lambda task: searches.end(task.search_id)) == (1, 0)


def test_without_the_database_who_helps_goes_on(
    apart: tuple[Together, JobStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.together._WANTED_EVERY_S", 0.0)
    assert helped(apart, lambda _: rename(apart[1], "search_sections", "away")) == (1, 0)


def rename(store: JobStore, found: str, to: str) -> None:
    with store.database.write() as session:
        session.connection().exec_driver_sql(f"ALTER TABLE {found} RENAME TO {to}")


Compute = Callable[[Section], tuple[int, int]]


def led(
    compute: Compute, read: Callable[..., tuple[int, int]], work_bytes: int = 0
) -> Search[tuple[int, int]]:
    return Search(
        "photographs@3f9c2a",
        "das-block",
        bytes,
        [1] * 4,
        lambda section: work_bytes * len(section),
        compute,
        read,
        lambda: None,
    )


def rows(section: Section) -> tuple[int, int]:
    return section.begin, section.end


def test_what_is_too_much_to_send_is_not_divided(
    apart: tuple[Together, JobStore], caplog: pytest.LogCaptureFixture
) -> None:
    together, _ = apart
    for _ in range(2):
        assert together.search(led(rows, lambda *_: (0, 0), 40 * 2**20)) is None
    (told,) = [one for one in caplog.records if one.levelname == "WARNING"]
    assert "may take 80 MB" in told.getMessage()
    assert together.search(led(rows, lambda *_: (0, 0), 32 * 2**20)) == [(0, 2), (2, 4)]


def test_without_the_database_a_search_is_led_alone(apart: tuple[Together, JobStore]) -> None:
    together, store = apart

    def compute(section: Section) -> tuple[int, int]:
        if section.begin == 0:
            rename(store, "search_sections", "away")
        return rows(section)

    search = led(compute, lambda *_: (0, 0))
    # Gone while it waits: what nobody can be asked about is computed here.
    assert together.search(search) == [(0, 2), (2, 4)]
    # Gone before: there is nobody to share with.
    assert together.search(search) is None
    assert together.help() == 0


def test_the_time_limit_is_heeded_whatever_a_search_is_at(apart: tuple[Together, JobStore]) -> None:
    together, store = apart

    def compute(section: Section) -> tuple[int, int]:
        # The other has found something by then.
        if task := store.searches.take("other", ["photographs@3f9c2a"]):
            store.searches.hand_in(task, b"something")
        return rows(section)

    def overdue(*_: object) -> tuple[int, int]:
        raise SoftTimeLimitExceeded

    def nonsense(*_: object) -> tuple[int, int]:
        raise ValueError

    assert together.search(led(compute, nonsense)) == [(0, 2), (2, 4)]
    with pytest.raises(SoftTimeLimitExceeded):
        together.search(led(compute, overdue))
    with pytest.raises(SoftTimeLimitExceeded):
        together.search(led(overdue, nonsense))
    # Nothing of them is left.
    assert store.searches.take("other", ["photographs@3f9c2a"]) is None


def test_workers_of_another_kind_are_not_asked(start_service: StartService) -> None:
    service = start_service(search_workers=2)
    service.start_worker()
    info = service.store.workers.known()[0].info
    kinds = {"older": None, "other": {**info["searches"], "kind": "another version on cuda"}}
    for name, searches in kinds.items():
        service.store.workers.heartbeat(name, {**info, "searches": searches})
    job = service.wait(service.ask("search plain"))
    assert job.result is not None
    assert job.result["sections"] is None


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
    service = start_service(search_workers=2, soft_time_limit_seconds=9.0, hard_time_limit_seconds=10.0)
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
    # By the other, alone where the one that takes the dead one's place isn't ready by then.
    job = service.wait(job_id)
    assert (job.state, job.attempt) == ("succeeded", 2)
    # The sweeper forgets it.
    eventually(lambda: nothing_is_left(service))
