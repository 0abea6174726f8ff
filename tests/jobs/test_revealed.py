"""Works that were shown: free for a day, no more than the budget of others, whoever asks at once."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import event, func, inspect, select, update

from jobs.models import utc_now
from jobs.revealed import FREE_FOR, RevealedWork
from jobs.store import JobStore


def works(begin: int, end: int) -> list[str]:
    return [f"w_{number:04d}" for number in range(begin, end)]


def age(store: JobStore, owner: str, by: timedelta) -> None:
    """Have all that an owner was shown so far have been shown so much earlier."""
    with store.database.write() as session:
        theirs = update(RevealedWork).where(RevealedWork.owner == owner)
        session.execute(theirs.values(shown_at=utc_now() - by))


def test_what_was_shown_is_free_and_the_first_others_fill_the_budget(store: JobStore) -> None:
    reveal = store.revealed.reveal
    assert reveal("ada", works(0, 3), 5) == {*works(0, 3)}
    assert reveal("ada", [], 5) == frozenset()
    # By their order: two of the four that are new.
    assert reveal("ada", [*works(10, 12), *works(0, 2), *works(12, 14)], 5) == {
        *works(0, 2),
        *works(10, 12),
    }
    assert reveal("ada", works(0, 50), 5) == {*works(0, 3), *works(10, 12)}
    # Another owner's is another.
    assert reveal("eve", works(0, 1), 5) == {*works(0, 1)}
    # Less than was shown takes nothing back, and shows nothing new.
    assert reveal("ada", works(0, 50), 2) == {*works(0, 3), *works(10, 12)}
    assert reveal("ada", works(0, 50), 6) == {*works(0, 4), *works(10, 12)}
    assert store.revealed.spent("ada").works == 6
    assert store.revealed.spent("nobody") == (0, None)


def test_a_work_of_several_indexes_is_one(store: JobStore) -> None:
    """Its id is made of its file, so that a row is an owner's and a work's, whichever index showed it."""
    key = inspect(store.database.engine).get_pk_constraint("revealed_works")
    assert key["constrained_columns"] == ["owner", "work_id"]


def test_a_work_that_is_named_twice_counts_once(store: JobStore) -> None:
    assert store.revealed.reveal("ada", [*works(0, 2), *works(0, 3)], 3) == {*works(0, 3)}


def test_after_a_day_it_counts_anew_and_is_dropped(store: JobStore) -> None:
    reveal = store.revealed.reveal
    reveal("ada", works(0, 3), 3)
    age(store, "ada", FREE_FOR - timedelta(minutes=1))
    assert reveal("ada", works(2, 5), 3) == {*works(2, 3)}
    until = store.revealed.spent("ada").until
    assert until is not None
    assert timedelta() < until - utc_now() <= timedelta(minutes=1)
    age(store, "ada", FREE_FOR + timedelta(minutes=1))
    assert store.revealed.spent("ada") == (0, None)
    # A work whose row is over is in the way of nothing.
    assert reveal("ada", works(2, 6), 3) == {*works(2, 5)}
    reveal("eve", works(0, 2), 3)
    age(store, "ada", FREE_FOR + timedelta(minutes=1))
    assert store.revealed.drop_old() == 5
    assert store.revealed.drop_old() == 0
    with store.database.read() as session:
        assert session.scalar(select(func.count()).select_from(RevealedWork)) == 2


def test_at_once_no_more_than_the_budget_is_shown(store: JobStore) -> None:
    with ThreadPoolExecutor(8) as threads:
        asked = [works(7 * number, 7 * number + 12) for number in range(24)]
        shown = [*threads.map(lambda ids: store.revealed.reveal("ada", ids, 40), asked)]
    assert len(frozenset().union(*shown)) == 40
    assert store.revealed.spent("ada").works == 40


@pytest.mark.parametrize("ids", [works(0, 2), works(0, 2000)])
def test_what_shows_nothing_new_writes_nothing(store: JobStore, ids: list[str]) -> None:
    first = store.revealed.reveal("ada", ids, 1500)
    assert len(first) == min(len(ids), 1500)
    told: list[str] = []
    listen = (store.database.engine, "before_cursor_execute", lambda *given: told.append(given[2]))
    event.listen(*listen)
    try:
        assert store.revealed.reveal("ada", ids, 1500) == first
        assert store.revealed.reveal("ada", ids, len(first)) == first
    finally:
        event.remove(*listen)
    assert told
    assert not [
        statement for statement in told if not statement.lstrip().upper().startswith(("SELECT", "BEGIN"))
    ]


def test_who_shows_again_what_is_over_and_who_drops_it_never_wait_for_each_other(store: JobStore) -> None:
    """Each takes the same rows in another order: on PostgreSQL they could wait for each other, until one fails."""
    ids = works(0, 400)
    for turn in range(4):
        store.revealed.reveal("ada", ids, 400)
        age(store, "ada", FREE_FOR + timedelta(minutes=1))
        with ThreadPoolExecutor(4) as threads:
            shown = threads.submit(store.revealed.reveal, "ada", ids[:: -1 if turn % 2 else 1], 400)
            dropped = [threads.submit(store.revealed.drop_old) for _ in range(3)]
            assert shown.result() == {*ids}
            assert sum(one.result() for one in dropped) <= 400
        assert store.revealed.spent("ada").works == 400
        assert store.revealed.drop_old() == 0
