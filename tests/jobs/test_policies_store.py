"""Policies in the database: versions that never change, one that decides, one that is tried."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

import jobs.policies
from jobs.policies import PolicyNotFound, PolicyRow, Stored, TooManyPolicies
from jobs.store import JobStore


@pytest.fixture
def put(store: JobStore) -> Callable[..., Stored]:
    def put(says: str, dry_run: bool = False, owner: str = "me", policy_id: str = "publish") -> Stored:
        return store.policies.put(owner, policy_id, {"says": says}, says.ljust(64, "0"), dry_run=dry_run)

    return put


def standing(policy: PolicyRow | None) -> tuple[int, int | None, int | None]:
    assert policy is not None
    return policy.versions, policy.active, policy.shadow


def test_a_new_version_decides_and_the_old_one_stays(store: JobStore, put: Callable[..., Stored]) -> None:
    assert standing(put("one").policy) == (1, 1, None)
    assert standing(put("two").policy) == (2, 2, None)
    old = store.policies.version("me", "publish", 1)
    assert old is not None
    assert old.document == {"says": "one"}
    assert [v.version for v in store.policies.versions("me", "publish")] == [2, 1]
    assert store.policies.version("me", "publish", 3) is None


def test_a_dry_run_is_tried_beside_the_active_one(store: JobStore, put: Callable[..., Stored]) -> None:
    put("one")
    assert standing(put("two", dry_run=True).policy) == (2, 1, 2)
    assert standing(store.policies.activate("me", "publish", 2)) == (2, 2, None)
    assert standing(store.policies.activate("me", "publish", 1, dry_run=True)) == (2, 2, 1)
    assert standing(store.policies.activate("me", "publish", None, dry_run=True)) == (2, 2, None)
    assert standing(store.policies.activate("me", "publish", 2, dry_run=True)) == (2, 2, None)


def test_a_first_version_may_be_a_dry_run(put: Callable[..., Stored]) -> None:
    assert standing(put("one", dry_run=True).policy) == (1, None, 1)


def test_the_same_again_makes_no_version(put: Callable[..., Stored]) -> None:
    assert put("one", dry_run=True).new
    again = put("one")
    assert (again.new, standing(again.policy)) == (False, (1, 1, None))
    assert put("two").new
    assert standing(put("one").policy) == (3, 3, None)


def test_every_owner_has_their_own(store: JobStore, put: Callable[..., Stored]) -> None:
    put("one")
    put("other", owner="you")
    put("more", owner="you", policy_id="another")
    assert [policy.id for policy in store.policies.list("me")] == ["publish"]
    assert [policy.id for policy in store.policies.list("you")] == ["another", "publish"]
    assert store.policies.get("me", "another") is None
    with pytest.raises(PolicyNotFound, match="there is no policy another"):
        store.policies.activate("me", "another", 1)
    with pytest.raises(PolicyNotFound, match="publish has no version 2, but 1 to 1"):
        store.policies.activate("me", "publish", 2)


def test_versions_that_are_sent_at_once_are_all_kept(store: JobStore, put: Callable[..., Stored]) -> None:
    with ThreadPoolExecutor(4) as pool:
        numbers = sorted(stored.version.version for stored in pool.map(put, map(str, range(8))))
    assert numbers == list(range(1, 9))


def test_how_many_are_kept_is_bounded(put: Callable[..., Stored], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs.policies, "MOST_VERSIONS", 2)
    monkeypatch.setattr(jobs.policies, "MOST_POLICIES", 1)
    put("one")
    put("two")
    with pytest.raises(TooManyPolicies, match="publish has 2 versions"):
        put("three")
    with pytest.raises(TooManyPolicies, match="there are 1 policies already"):
        put("one", policy_id="another")
