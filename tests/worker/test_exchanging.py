"""Workers that answer about more indexes than they hold at once, with broker, database and processes."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from das.footprint import index_bytes, model_bytes
from das.images import encode_png
from das.index import AttributionIndex
from jobs.turns import BULK_PRIORITY
from worker.trials import MOST_DEATHS

if TYPE_CHECKING:
    from conftest import Service

StartService = Callable[..., "Service"]
Eventually = Callable[..., None]
THREE = ("one@1", "two@2", "three@3")


def with_room(folder: Path, number: int, *indexes: str, seconds: float = 0.0) -> Path:
    """A directory for DAS_INDEX_DIR of a worker that answers about these and holds so many at once; `seconds` is how
    long it says that loading takes."""
    folder.mkdir(exist_ok=True)
    (folder / "indexes").write_text("\n".join(indexes))
    (folder / "room").write_text(f"{number} {seconds}")
    return folder


def loads(service: "Service") -> list[tuple[int, str]]:
    """What was loaded, in order: by which process, and which index."""
    path = service.settings.data_dir / "loads"
    lines = path.read_text().splitlines() if path.exists() else []
    return [(int(pid), index_id) for pid, index_id in (line.split() for line in lines)]


def test_questions_mixed_over_three_indexes_all_end(start_service: StartService, tmp_path: Path) -> None:
    # Nothing here is rung for a second time.
    service = start_service(rering_seconds=60.0, batch_size=4)
    folder = with_room(tmp_path / "indexes", 1, *THREE, seconds=600)
    jobs = [service.create(index_id=index_id) for index_id in THREE * 6]
    jobs += [service.create(index_id=index_id, priority=BULK_PRIORITY) for index_id in THREE * 4]
    service.start_worker(index_dir=folder)
    assert service.store.workers.reach() == {*THREE}
    service.doorbell.ring(jobs[0])
    ended = [service.wait(job_id) for job_id in jobs]
    assert {(job.state, job.attempt) for job in ended} == {("succeeded", 1)}
    order = [service.get(batch[0]) for batch in service.batches()]
    priorities = [job.priority for job in order]
    assert priorities == sorted(priorities), "no picture of a batch before a question"
    # All that waits for what is loaded is answered before another is: each once for questions, once for pictures.
    assert [index_id for _, index_id in loads(service)] == [*THREE, "one@1", "two@2"]


def test_who_comes_alone_isn_t_starved_by_a_flood_for_another(
    start_service: StartService, tmp_path: Path, eventually: Eventually
) -> None:
    service = start_service(rering_seconds=60.0, batch_size=1, queue_limit=1000)
    service.start_worker(index_dir=with_room(tmp_path / "indexes", 1, "flood@1", "alone@1"))
    flood = [service.create("sleep 0.1", index_id="flood@1") for _ in range(100)]
    service.doorbell.ring(flood[0])
    eventually(lambda: loads(service))
    lonely = service.ask(index_id="alone@1")
    assert service.wait(lonely).state == "succeeded"
    waiting = [job_id for job_id in flood if service.get(job_id).state == "queued"]
    assert waiting, "it went before those that had asked earlier about what was loaded"
    for job_id in waiting:
        service.store.cancel(job_id)


def test_the_worker_that_has_it_loaded_takes_the_question(
    start_service: StartService, tmp_path: Path, eventually: Eventually
) -> None:
    service = start_service()
    service.start_worker(index_dir=with_room(tmp_path / "one", 1, "one@1", seconds=600))
    assert service.wait(service.ask(index_id="one@1")).state == "succeeded"
    service.start_worker(index_dir=with_room(tmp_path / "both", 1, "one@1", "two@2", seconds=600))
    assert service.wait(service.ask(index_id="two@2")).state == "succeeded"

    def in_memory() -> list[list[str]]:
        return sorted(worker.info["loaded"] for worker in service.store.workers.known())

    eventually(lambda: in_memory() == [["one@1"], ["two@2"]])
    asked = [service.ask(index_id=index_id) for index_id in ("one@1", "two@2") * 6]
    ended = [service.wait(job_id) for job_id in asked]
    assert {job.state for job in ended} == {"succeeded"}
    assert len({(job.index_id, job.result["pid"]) for job in ended if job.result}) == 2
    assert sorted(index_id for _, index_id in loads(service)) == ["one@1", "two@2"]
    # Where its worker is gone, the other takes it.
    service.workers[0].stop()
    eventually(lambda: sum(worker.fresh for worker in service.store.workers.known()) == 1)
    assert service.wait(service.ask(index_id="one@1")).state == "succeeded"
    assert loads(service)[-1][1] == "one@1"


def test_one_that_kills_whoever_loads_it_is_left_out_and_the_others_are_answered(
    start_service: StartService, tmp_path: Path
) -> None:
    service = start_service(index_wait_seconds=3.0)
    service.start_worker(index_dir=with_room(tmp_path / "indexes", 1, "heavy@1", "light@2"))
    heavy = service.ask(index_id="heavy@1")
    light = service.ask(index_id="light@2")
    failed = service.wait(heavy)
    assert (failed.state, failed.attempt) == ("failed", 0)
    assert failed.error is not None
    assert "heavy@1 ended the worker's process each time that it was loaded" in failed.error["message"]
    assert service.wait(light).state == "succeeded"
    assert [index_id for _, index_id in loads(service)].count("heavy@1") == MOST_DEATHS


def test_a_worker_with_room_for_one_model_answers_about_two(
    start_service: StartService, shelf: Path, tmp_path: Path, eventually: Eventually
) -> None:
    """The worker as it is run, with models and all."""
    folder = tmp_path / "indexes"
    folder.mkdir()
    for name in ("north", "south"):
        (folder / name).symlink_to(shelf / name)
    north, south = (AttributionIndex.open(shelf / name) for name in ("north", "south"))
    budget = 1.5 * (model_bytes(north) + index_bytes(north))
    service = start_service(rering_seconds=60.0, index_dir=folder, torch_threads=1)
    service.start_worker(("-m", "worker"), memory_budget_gb=budget / 1e9)
    assert service.store.workers.reach() == {north.id, south.id}
    rng = np.random.default_rng(5)
    pictures = [encode_png(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)) for _ in range(6)]
    asked = [
        service.create(picture=picture, index_id=index.id)
        for picture, index in zip(pictures, (north, south) * 3, strict=True)
    ]
    service.doorbell.ring(asked[0])
    ended = [service.wait(job_id) for job_id in asked]
    assert [(job.state, job.attempt) for job in ended] == [("succeeded", 1)] * 6
    for job, index in zip(ended, (north, south) * 3, strict=True):
        assert job.result is not None
        assert len(job.result["works"]) == 20
        assert all(index.works.find(work["work_id"]) is not None for work in job.result["works"])
    eventually(lambda: service.store.workers.known()[0].info["loaded"] == [south.id])
    told = service.store.workers.known()[0].info["memory"]
    assert (told["loads"], told["evictions"]) == (2, 1)
    assert told["taken"] <= told["budget"] == int(budget)
