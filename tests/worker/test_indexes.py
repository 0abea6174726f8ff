"""Workers that hold different indexes: who answers what, and what becomes of what nobody holds."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from jobs.sweeper import Sweeper

if TYPE_CHECKING:
    from conftest import Service

StartService = Callable[..., "Service"]
Eventually = Callable[..., None]


def holding(folder: Path, *indexes: str) -> Path:
    """A directory for DAS_INDEX_DIR of a worker that holds these."""
    folder.mkdir(exist_ok=True)
    (folder / "indexes").write_text("\n".join(indexes))
    return folder


def test_each_answers_what_it_holds(start_service: StartService, tmp_path: Path) -> None:
    service = start_service(rering_seconds=60.0)
    service.start_worker(index_dir=holding(tmp_path / "one", "one@1"))
    service.start_worker(index_dir=holding(tmp_path / "two", "two@2"))
    # Bells are heard by whoever is free; a wrong one passes them on, long before any would be rung again.
    asked = [service.ask(index_id=index_id) for index_id in ("one@1", "two@2") * 6]
    jobs = [service.wait(job_id) for job_id in asked]
    assert {(job.state, job.attempt) for job in jobs} == {("succeeded", 1)}
    pids = {(job.index_id, job.result["pid"]) for job in jobs if job.result}
    assert len(pids) == 2, "each index was answered by one worker only"


def test_what_nobody_holds_waits_holds_up_nothing_and_fails_in_the_end(start_service: StartService) -> None:
    service = start_service(index_wait_seconds=3600.0)
    service.start_worker()
    orphans = [service.ask(index_id="lost@1") for _ in range(5)]
    assert service.wait(service.ask()).state == "succeeded"
    for job in map(service.get, orphans):
        assert (job.state, job.attempt) == ("queued", 0)
    # Another sweeper, of less patience: what it sees for the first time it gives time yet.
    hasty = service.settings.model_copy(update={"index_wait_seconds": 4.0})
    sweeper = Sweeper(hasty, service.store, service.doorbell)
    sweeper.sweep_once()
    assert service.get(orphans[0]).state == "queued"
    time.sleep(4.0)
    sweeper.sweep_once()
    failed = service.wait(orphans[0])
    assert (failed.state, failed.attempt) == ("failed", 0)
    assert failed.error is not None
    assert failed.error["code"] == "index-unheld"
    assert "No worker has held the index lost@1 for 4 s" in failed.error["message"]
    assert service.wait(service.ask()).state == "succeeded"


def test_why_nobody_holds_it_is_told(
    start_service: StartService, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Less than the time that a job may wait: that it tries again doesn't make it one that holds the index.
    monkeypatch.setenv("DAS_TEST_LOAD_AGAIN_S", "1")
    service = start_service(index_wait_seconds=6.0)
    (service.settings.data_dir / "cannot-load").touch()
    service.launch_worker()
    eventually(lambda: any(worker.info["engine"] == "failed" for worker in service.store.workers.known()))
    failed = service.wait(service.ask())
    assert failed.error is not None
    assert failed.error["message"] == (
        "No worker has held the index photographs@3f9c2a for 6 s."
        " A worker could not load it: The weights are damaged."
        " Once one whose DAS_INDEX_DIR has it runs, send the picture again."
    )


def test_an_index_that_is_added_is_announced_and_answered(
    start_service: StartService, tmp_path: Path, eventually: Eventually
) -> None:
    service = start_service()
    folder = holding(tmp_path / "indexes", "one@1")
    service.start_worker(index_dir=folder)
    assert service.store.workers.reach() == {"one@1"}
    holding(folder, "one@1", "new@2")
    eventually(lambda: "new@2" in service.store.workers.reach())
    job = service.wait(service.ask(index_id="new@2"))
    assert (job.state, job.attempt) == ("succeeded", 1)


@pytest.mark.parametrize("slowness", [4.0, 60.0], ids=["slow", "overdue"])
def test_what_a_version_takes_to_load_is_no_part_of_a_batchs_time(
    start_service: StartService, tmp_path: Path, slowness: float
) -> None:
    service = start_service(soft_time_limit_seconds=6.0, hard_time_limit_seconds=60.0, sweep_seconds=60.0)
    folder = holding(tmp_path / "indexes", "one@1")
    service.start_worker(index_dir=folder)
    (folder / "slowness").write_text(str(slowness))
    holding(folder, "one@1", "new@2")
    job = service.wait(service.ask("sleep 4", index_id="one@1"))
    assert (job.state, job.attempt) == ("succeeded", 1)
    assert ("new@2" in service.store.workers.known()[0].info["loaded"]) == (slowness < 6)
