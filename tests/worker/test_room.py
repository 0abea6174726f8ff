"""The account of what is loaded: shared models count once, and who was used least lately makes way first."""

import pytest

from worker.room import Room


def room(budget: int | None, **indexes: tuple[str, int, int]) -> Room:
    """Each index by its model, its own bytes and the model's, all measured and loaded in this order."""
    account = Room(budget)
    for index_id, (model, own, of_model) in indexes.items():
        account.expect(index_id, model, 0, 0)
        account.measured(index_id, own, of_model, 2.0)
    return account


def test_a_model_that_several_share_counts_once() -> None:
    account = room(100, a=("m", 10, 50), b=("n", 5, 20))
    account.expect("c", "m", 1, 999)
    account.measured("c", 7, None, 0.5)
    assert account.taken == 10 + 50 + 5 + 20 + 7
    assert [account.bytes_of(one) for one in "abc"] == [60, 25, 57]
    account.unloaded("a")
    assert account.taken == 7 + 50 + 25, "the one that shares it keeps it"
    account.unloaded("c")
    assert account.taken == 25
    assert (account.loads, account.seconds) == (3, 4.5)


def test_who_was_used_least_lately_makes_way_and_no_more_than_need_be() -> None:
    account = room(100, a=("m", 10, 20), b=("n", 10, 20), c=("o", 10, 20))
    account.use("a")
    assert account.loaded == ["b", "c", "a"]
    account.expect("d", "p", 5, 5)
    assert account.fits("d")
    assert account.in_the_way("d") == []
    account.expect("e", "q", 20, 10)
    assert not account.fits("e")
    assert account.in_the_way("e") == ["b"]
    account.expect("f", "r", 50, 20)
    assert account.in_the_way("f") == ["b", "c"]
    account.expect("g", "s", 100, 20)
    assert account.in_the_way("g") == ["b", "c", "a"]
    assert account.too_large("g")
    assert not account.too_large("f")


def test_what_shares_a_model_needs_the_rest_alone() -> None:
    account = room(100, a=("m", 10, 60), b=("n", 5, 5))
    account.expect("version", "m", 15, 60)
    assert account.fits("version")
    account.expect("other", "x", 15, 60)
    assert account.in_the_way("other") == ["a"]


def test_what_was_measured_takes_the_place_of_what_was_expected_and_stays() -> None:
    account = Room(100)
    account.expect("a", "m", 30, 60)
    assert account.bytes_of("a") == 90
    account.measured("a", 3, 40, 1.5)
    account.unloaded("a")
    account.expect("a", "m", 30, 60)
    assert (account.bytes_of("a"), account.seconds_of("a")) == (43, 1.5)
    account.forget("a")
    assert account.seconds_of("a") == 0
    account.expect("a", "m", 30, 60)
    assert account.bytes_of("a") == 90


@pytest.mark.parametrize("own", [0, 10**15])
def test_without_a_budget_nothing_makes_way(own: int) -> None:
    account = room(None, a=("m", own, own))
    account.expect("b", "n", own, own)
    assert account.fits("b")
    assert account.in_the_way("b") == []
    assert not account.too_large("b")


def test_nothing_is_no_measurement() -> None:
    """Something else may have become smaller while an index was loaded; what was expected is counted then."""
    account = Room(budget=100)
    account.expect("a", "model", 30, 50)
    account.measured("a", -5, 0, 1.0)
    assert account.bytes_of("a") == 80
    account.measured("a", 20, None, 1.0)
    assert account.bytes_of("a") == 70
