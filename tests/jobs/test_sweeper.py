"""The sweeper: rings for what was lost, no more than there are workers to hear it, and survives bad days."""

import time
from collections.abc import Callable
from datetime import timedelta

import pytest

from jobs.broker import Broker
from jobs.errors import StorageError
from jobs.models import Job, SweepReport, utc_now
from jobs.queue import Doorbell
from jobs.settings import Settings
from jobs.store import JobStore
from jobs.sweeper import Sweeper

Ask = Callable[..., Job]


@pytest.fixture
def later(store: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sweeps are made as if a minute had passed."""
    sweep = store.sweep
    monkeypatch.setattr(store, "sweep", lambda: sweep(utc_now() + timedelta(minutes=1)))


@pytest.mark.usefixtures("later")
def test_one_bell_for_each_worker_that_could_hear_it(
    settings: Settings, store: JobStore, ask: Ask, broker: Broker
) -> None:
    for _ in range(5):
        ask()
    store.heartbeat("one", {"engine": "ready"})
    store.heartbeat("two", {"engine": "ready"})
    bell = Doorbell(settings)
    sweeper = Sweeper(settings, store, bell)
    sweeper.sweep_once()
    assert bell.waiting() == 2
    sweeper.sweep_once()
    assert bell.waiting() == 2


@pytest.mark.usefixtures("later")
def test_a_job_of_a_dead_worker_is_rung_for(
    settings: Settings, store: JobStore, ask: Ask, broker: Broker
) -> None:
    job = ask()
    store.claim_batch("dead", 1)
    bell = Doorbell(settings)
    Sweeper(settings, store, bell).sweep_once()
    retried = store.get(job.id)
    assert retried is not None
    assert (retried.state, retried.retrying) == ("queued", True)
    assert bell.waiting() == 1


def test_it_goes_on_after_a_sweep_that_failed(
    settings: Settings, store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweeps: list[int] = []

    def sweep() -> SweepReport:
        sweeps.append(1)
        if len(sweeps) == 1:
            raise StorageError("the disk is away for a moment")
        return SweepReport()

    monkeypatch.setattr(store, "sweep", sweep)
    quick = settings.model_copy(update={"sweep_seconds": 0.01})
    sweeper = Sweeper(quick, store, Doorbell(settings))
    sweeper.start()
    deadline = time.monotonic() + 10
    while len(sweeps) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    sweeper.stop()
    assert len(sweeps) >= 3
