"""The service without its web part: broker, database, sweeper and workers, all real, each on its own directory."""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from das.index import AttributionIndex
from jobs.broker import Broker
from jobs.database import upgrade
from jobs.models import Job, NewJob
from jobs.process import SupervisedProcess
from jobs.queue import Doorbell
from jobs.settings import Settings
from jobs.store import JobStore
from jobs.sweeper import Sweeper
from tests.conftest import make_model

ROOT = Path(__file__).parents[2]
ENGINES = Path(__file__).parent / "engines.py"
# Nothing waits this long but on a machine with much else to do.
PATIENCE_S = 90.0


class Service:
    """What `das serve` runs, less the API."""

    def __init__(self, settings: Settings) -> None:
        upgrade(settings)
        self.settings = settings
        self.broker = Broker(settings)
        self.broker.start()
        self.store = JobStore(settings)
        self.doorbell = Doorbell(settings)
        self._ending = threading.Event()
        self._sweeping = threading.Thread(target=self._sweep)
        self._sweeping.start()
        self.workers: list[SupervisedProcess] = []

    def _sweep(self) -> None:
        sweeper = Sweeper(self.settings, self.store, self.doorbell)
        while not self._ending.wait(self.settings.sweep_seconds):
            sweeper.sweep_once()

    def launch_worker(self, program: Sequence[str] = (str(ENGINES),), **changes: object) -> SupervisedProcess:
        """One more worker, at once; keywords are settings of its own."""
        own = self.settings.model_copy(update=changes)
        worker = SupervisedProcess(
            f"worker-{len(self.workers)}",
            lambda: [sys.executable, *program],
            environment=lambda: {**os.environ, **own.to_environment(), "PYTHONPATH": str(ROOT)},
        )
        worker.start()
        self.workers.append(worker)
        return worker

    def start_worker(self, program: Sequence[str] = (str(ENGINES),), **changes: object) -> SupervisedProcess:
        """One more worker, when it is ready."""
        worker = self.launch_worker(program, **changes)
        expected = len(self.workers)
        until(lambda: sum(known.ready for known in self.store.workers.known()) >= expected)
        return worker

    def child_pids(self) -> list[int]:
        """The process ids of the workers' computing children, newest sign of life first."""
        return [worker.info["pid"] for worker in self.store.workers.known() if worker.ready]

    def create(self, script: str = "", picture: bytes = b"an image", **changes: object) -> str:
        """A job that nobody has rung for; `script` is for the engine."""
        question = {
            "index_id": "photographs@3f9c2a",
            "method": "das-block",
            "candidates": "all",
            "top_k": 20,
            "input": {},
            "prompt": script,
        }
        return self.store.create(NewJob(**{**question, **changes}), picture).id  # type: ignore[arg-type]

    def ask(self, script: str = "", picture: bytes = b"an image", **changes: object) -> str:
        job_id = self.create(script, picture, **changes)
        self.doorbell.ring(job_id)
        return job_id

    def get(self, job_id: str) -> Job:
        job = self.store.get(job_id)
        assert job is not None
        return job

    def wait(self, job_id: str) -> Job:
        """The job when nothing more happens to it."""
        until(lambda: self.get(job_id).finished)
        return self.get(job_id)

    def batches(self) -> list[list[str]]:
        """The batches that engines have begun, in order, each as the ids in it."""
        path = self.settings.data_dir / "journal"
        return [line.split() for line in path.read_text().splitlines()] if path.exists() else []

    def let_go(self, name: str) -> None:
        """Have the engines go on that play `hold NAME`."""
        (self.settings.data_dir / name).touch()

    def stop(self) -> None:
        for worker in self.workers:
            worker.stop()
        self._ending.set()
        self._sweeping.join()
        self.doorbell.close()
        self.store.close()
        self.broker.stop()


def until(condition: Callable[[], object], patience: float = PATIENCE_S) -> None:
    """Return when `condition` holds."""
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def quick_settings(data_dir: Path, **changes: object) -> Settings:
    """Settings under which waiting for bells takes seconds and not minutes.

    A lease is long enough for a worker that a busy machine keeps waiting; tests in which one runs out shorten it.
    """
    quick: dict[str, object] = {
        "lease_seconds": 60.0,
        "rering_seconds": 1.0,
        "sweep_seconds": 0.2,
        "heartbeat_seconds": 0.5,
    }
    return Settings(_env_file=None, data_dir=data_dir, **{**quick, **changes})  # type: ignore[arg-type]


@pytest.fixture
def start_service(tmp_path: Path) -> Iterator[Callable[..., Service]]:
    """Start a service of one's own; keywords are settings."""
    started: list[Service] = []

    def start(**changes: object) -> Service:
        started.append(Service(quick_settings(tmp_path / f"data-{len(started)}", **changes)))
        return started[-1]

    yield start
    for service in started:
        service.stop()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with one worker for the tests of a module that break neither."""
    service = Service(quick_settings(tmp_path_factory.mktemp("service")))
    service.start_worker()
    yield service
    service.stop()


@pytest.fixture
def eventually() -> Callable[..., None]:
    return until


@pytest.fixture(scope="session")
def shelf(tmp_path_factory: pytest.TempPathFactory, tiny_works: Path) -> Path:
    """Two indexes of one model, `north` and `northern`, and one of another, `south`; `later` is a version of that.

    The models are wide enough, some 30 MB, to be seen in what a process takes.
    """
    # Where no index is built, nothing of this is needed.
    from das.config import BuildConfig
    from index_build.build import build
    from index_build.changing import remove

    folder = tmp_path_factory.mktemp("shelf")
    for seed, model in enumerate(("n", "s")):
        make_model(folder / "models" / model, seed=seed, channels=(64, 256))
    for name, dimension in (("north", 16), ("northern", 24), ("south", 16)):
        config = BuildConfig(
            name=name,
            model=str(folder / "models" / name[0]),
            works=tiny_works,
            timesteps=1,
            dimension=dimension,
            probes=("activation",),
            clip=None,
        )
        build(config, folder / name)
    remove(AttributionIndex.open(folder / "south"), np.arange(3), folder / "later")
    return folder
