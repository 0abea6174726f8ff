"""The sweeper: rings for what was lost, no more than there are workers to hear it, and survives bad days."""

from collections.abc import Callable
from datetime import timedelta

import pytest

from jobs.broker import Broker
from jobs.models import Job, utc_now
from jobs.queue import Doorbell
from jobs.settings import Settings
from jobs.store import JobStore
from jobs.sweeper import Sweeper

Ask = Callable[..., Job]


@pytest.fixture
def later(store: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sweeps are made as if a minute had passed."""
    sweep = store.upkeep.sweep
    monkeypatch.setattr(store.upkeep, "sweep", lambda: sweep(utc_now() + timedelta(minutes=1)))


@pytest.mark.usefixtures("later")
def test_one_bell_for_each_worker_that_could_hear_it(
    settings: Settings, store: JobStore, ask: Ask, broker: Broker
) -> None:
    for _ in range(5):
        ask()
    store.workers.heartbeat("one", {"engine": "ready"})
    store.workers.heartbeat("two", {"engine": "ready"})
    bell = Doorbell(settings)
    sweeper = Sweeper(settings, store, bell)
    sweeper.sweep_once()
    assert bell.waiting() == 2
    sweeper.sweep_once()
    assert bell.waiting() == 2


@pytest.mark.parametrize("untaken", [1, 3, 4])
@pytest.mark.usefixtures("later")
def test_only_the_bells_that_are_missing_are_rung(
    settings: Settings, store: JobStore, ask: Ask, broker: Broker, untaken: int
) -> None:
    jobs = [ask() for _ in range(4)]
    bell = Doorbell(settings)
    for name in ("one", "two", "three"):
        store.workers.heartbeat(name, {"engine": "ready"})
    for job in jobs[:untaken]:
        bell.ring(job.id)
    Sweeper(settings, store, bell).sweep_once()
    assert bell.waiting() == max(3, untaken)


@pytest.mark.usefixtures("later")
def test_without_a_worker_one_bell_waits_for_the_first_to_come(
    settings: Settings, store: JobStore, ask: Ask, broker: Broker
) -> None:
    for _ in range(3):
        ask()
    bell = Doorbell(settings)
    Sweeper(settings, store, bell).sweep_once()
    assert bell.waiting() == 1


@pytest.mark.usefixtures("later")
def test_a_job_of_a_dead_worker_is_rung_for(
    settings: Settings, store: JobStore, ask: Ask, broker: Broker
) -> None:
    job = ask()
    store.leases.claim("dead", 1, [job.index_id])
    bell = Doorbell(settings)
    Sweeper(settings, store, bell).sweep_once()
    retried = store.get(job.id)
    assert retried is not None
    assert (retried.state, retried.retrying) == ("queued", True)
    assert bell.waiting() == 1
