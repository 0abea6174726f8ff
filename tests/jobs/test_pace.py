"""How fast the queue is worked off, by the last answers."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import update

from jobs.errors import QueueFull
from jobs.models import Job, JobState
from jobs.pace import MEASURED, Pace, busy_seconds
from jobs.store import JobStore

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
Ask = Callable[..., Job]


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("spans", "busy"),
    [
        ([], 0),
        ([(0, 2)], 2),
        ([(0, 2), (10, 13)], 5),
        ([(0, 4), (0, 4), (0, 4)], 4),
        ([(0, 10), (2, 3), (9, 12)], 12),
        ([(5, 6), (0, 1)], 2),
        ([(3, 3)], 0),
        ([(5, 4)], 0),
    ],
    ids=[
        "none",
        "one",
        "a pause between",
        "a batch",
        "side by side",
        "in any order",
        "no time",
        "clocks apart",
    ],
)
def test_only_time_in_which_something_is_computed_counts(
    spans: list[tuple[float, float]], busy: float
) -> None:
    assert busy_seconds([(at(began), at(ended)) for began, ended in spans]) == busy


def answered(store: JobStore, job: Job, began: float, ended: float, state: str = JobState.SUCCEEDED) -> None:
    with store.database.write() as session:
        session.execute(
            update(Job)
            .where(Job.id == job.id)
            .values(state=state, started_at=at(began), finished_at=at(ended))
        )


def test_it_is_measured_by_the_last_answers(store: JobStore, ask: Ask) -> None:
    assert Pace(store.database).seconds_for(10) is None
    slow = ask()
    answered(store, slow, 0, 1000)
    assert Pace(store.database).seconds_for(1) == pytest.approx(1000)
    # Batches of four in two seconds each, with an hour of nothing between them.
    for number in range(MEASURED):
        batch = 3600 * (1 + number // 4)
        answered(store, ask(), batch, batch + 2)
    answered(store, ask(), 0, 9999, JobState.FAILED)
    assert Pace(store.database).seconds_for(10) == pytest.approx(5)


def test_of_an_owners_limit_those_of_the_others_are_in_the_way(store: JobStore, ask: Ask) -> None:
    for owner in ("one", "one", "two", "two", "two", "three"):
        ask(owner=owner)
    small = JobStore(
        store.settings.model_copy(update={"owner_queue_limit": 1}), database=store.database, notify=print
    )
    with pytest.raises(QueueFull) as three:
        small.check_room("three")
    assert three.value.ahead == 3
    with pytest.raises(QueueFull) as two:
        small.check_room("two")
    assert two.value.ahead == 6
    small.check_room("four")
