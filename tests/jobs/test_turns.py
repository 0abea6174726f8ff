"""The order in which those that wait are taken: fair among owners, and nobody waits for ever."""

from collections import Counter
from collections.abc import Callable

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobs.models import ClaimedJob, Job
from jobs.store import JobStore

Ask = Callable[..., Job]
HELD = ("photographs@3f9c2a",)


def claim(store: JobStore, limit: int = 1) -> list[ClaimedJob]:
    return store.leases.claim("worker", limit, HELD)


def test_one_who_comes_after_a_bulk_submission_goes_next(store: JobStore, ask: Ask) -> None:
    bulk = [ask(owner="bulk").id for _ in range(50)]
    claim(store)
    person = ask(owner="ada", method="das")
    following = [claim(store)[0].id for _ in range(3)]
    assert following == [bulk[1], person.id, bulk[2]]


def test_owners_take_turns_and_each_keeps_its_order(store: JobStore, ask: Ask) -> None:
    asked = {owner: [ask(owner=owner).id for _ in range(3)] for owner in ("a", "b", "c")}
    taken = [claim(store)[0] for _ in range(9)]
    assert [job.owner for job in taken] == ["a", "b", "c"] * 3
    for owner, ids in asked.items():
        assert [job.id for job in taken if job.owner == owner] == ids


def test_a_lower_number_goes_first(store: JobStore, ask: Ask) -> None:
    later, sooner = ask(priority=5), ask(priority=1)
    urgent = ask(owner="ada")
    assert [claim(store)[0].id for _ in range(3)] == [urgent.id, sooner.id, later.id]


def test_a_batch_takes_along_what_shares_its_pass(store: JobStore, ask: Ask) -> None:
    bulk = [ask(owner="bulk").id for _ in range(6)]
    person = ask(owner="ada").id
    other = ask(owner="eve", method="das").id
    assert [job.id for job in claim(store, 4)] == [bulk[0], *bulk[1:3], person]
    assert [job.id for job in claim(store, 4)] == [other], "the bulk rode along in its first job's turn"
    assert [job.id for job in claim(store, 4)] == bulk[3:]


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.sampled_from("abcd"), st.sampled_from((0, 0, 0, 1))),
        st.just(("take",)),
        st.just(("finish",)),
    ),
    max_size=60,
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_no_owner_is_held_up_by_more_than_two_of_each_other(
    store: JobStore, ask: Ask, steps: list[tuple[object, ...]]
) -> None:
    """Of jobs of its own priority, from the moment at which an owner has one waiting and had none before."""
    for job in store.list(limit=100).jobs:
        store.erase(job.id)
    running: list[ClaimedJob] = []
    waiting: list[Job] = []
    overtaken: dict[str, Counter[str]] = {}

    def take() -> bool:
        taken = claim(store)
        assert bool(taken) == bool(waiting)
        for claimed in taken:
            running.append(claimed)
            assert claimed.priority == min(job.priority for job in waiting)
            same = [job for job in waiting if job.priority == claimed.priority]
            own = [job.id for job in same if job.owner == claimed.owner]
            assert claimed.id == own[0], "each owner's jobs keep their order"
            waiting[:] = [job for job in waiting if job.id != claimed.id]
            overtaken.pop(claimed.id, None)
            for job in same:
                if job.id in overtaken and job.owner != claimed.owner:
                    overtaken[job.id][claimed.owner] += 1
                    assert overtaken[job.id][claimed.owner] <= 2
        return bool(taken)

    for step in steps:
        if step[0] == "ask":
            _, owner, priority = step
            first = not any(job.owner == owner and job.priority == priority for job in waiting)
            waiting.append(ask(owner=owner, priority=priority))
            if first:
                overtaken[waiting[-1].id] = Counter()
        elif step[0] == "take":
            take()
        elif running:
            store.leases.finish(running.pop(0).token, {"works": []}, {})
    while take():
        pass
