"""Which index is loaded next: by a clock of the test's own."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from jobs.claims import Waiting
from jobs.turns import BULK_PRIORITY
from worker.preference import GRACE_S, LOADS, PATIENCE_S, to_load

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def waiting(index_id: str, age: float, priority: int = 0, turn: int = 1) -> Waiting:
    """Questions about an index of which the oldest was asked `age` seconds before noon."""
    return Waiting(priority, turn, f"att_{1000 - age:07.2f}", index_id, NOON - timedelta(seconds=age))


def chosen(
    *questions: Waiting,
    loaded: tuple[str, ...] = ("here@1",),
    elsewhere: tuple[str, ...] = (),
    seconds: float = 0.0,
    loaded_ago: float = 1e6,
) -> str | None:
    ago = NOON - timedelta(seconds=loaded_ago)
    found = to_load(questions, loaded, elsewhere, lambda _: seconds, ago, NOON)
    return None if found is None else found.index_id


def test_what_is_loaded_goes_first_but_not_for_ever() -> None:
    here = waiting("here@1", 100.0)
    assert chosen(here) is None
    assert chosen(here, waiting("other@1", PATIENCE_S - 0.1)) is None
    assert chosen(here, waiting("other@1", PATIENCE_S + 0.1)) == "other@1"
    assert chosen(here, waiting("other@1", LOADS * 30 - 1), seconds=30.0) is None
    assert chosen(here, waiting("other@1", LOADS * 30 + 1), seconds=30.0) == "other@1"


def test_what_was_just_loaded_is_asked_for_as_long() -> None:
    here, old = waiting("here@1", 500.0), waiting("other@1", 500.0)
    assert chosen(here, old, seconds=30.0, loaded_ago=LOADS * 30 - 1) is None
    assert chosen(here, old, seconds=30.0, loaded_ago=LOADS * 30 + 1) == "other@1"


def test_where_nothing_asks_for_what_is_loaded_it_is_loaded_at_once_in_the_order_of_claims() -> None:
    assert chosen(waiting("other@1", 0.0), loaded_ago=0.0) == "other@1"
    assert chosen(waiting("b@1", 9.0, turn=2), waiting("a@1", 1.0, turn=1)) == "a@1"
    assert chosen(waiting("b@1", 9.0, BULK_PRIORITY), waiting("a@1", 1.0)) == "a@1"


def test_of_those_that_have_waited_too_long_the_first_by_its_turn_is_loaded() -> None:
    here = waiting("here@1", 1.0)
    assert chosen(here, waiting("a@1", 10.0, turn=1), waiting("b@1", 20.0, turn=7)) == "a@1"
    assert chosen(here, waiting("a@1", 1.0, turn=1), waiting("b@1", 20.0, turn=7)) == "b@1"


def test_questions_go_before_batches_wherever_their_index_is() -> None:
    bulk, question = waiting("here@1", 50.0, BULK_PRIORITY), waiting("other@1", 0.0)
    assert chosen(bulk, question, loaded_ago=0.0) == "other@1"
    assert chosen(waiting("here@1", 0.0), waiting("other@1", 1e5, BULK_PRIORITY)) is None
    assert chosen(bulk, waiting("other@1", 60.0, BULK_PRIORITY)) == "other@1"


def test_another_worker_that_has_it_is_given_a_moment() -> None:
    def ask(age: float, seconds: float = 0.0) -> str | None:
        return chosen(waiting("other@1", age), elsewhere=("other@1",), seconds=seconds)

    assert ask(GRACE_S - 0.1) is None
    assert ask(GRACE_S + 0.1) == "other@1"
    assert ask(29.0, seconds=30.0) is None, "loading it here would take longer"
    assert ask(31.0, seconds=30.0) == "other@1"
    assert chosen(waiting("other@1", 0.0), elsewhere=("third@1",)) == "other@1"


@dataclass
class Played:
    """A worker with room for one index, that answers one question a second and takes `loading` seconds to load."""

    loading: float
    loaded: str
    now: datetime = NOON
    loaded_at: datetime = NOON
    queue: list[tuple[int, str, datetime]] = field(default_factory=list)
    waits: dict[str, list[float]] = field(default_factory=dict)
    spent: Counter[str] = field(default_factory=Counter)

    def ask(self, index_id: str, turns: Iterable[int]) -> None:
        """One question in each of these turns."""
        self.queue += [(turn, index_id, self.now) for turn in turns]
        self.queue.sort()

    def step(self) -> None:
        groups: dict[str, Waiting] = {}
        for turn, index_id, asked in self.queue:
            groups.setdefault(index_id, Waiting(0, turn, f"att_{turn}", index_id, asked))
        found = to_load(
            [*groups.values()], [self.loaded], (), lambda _: self.loading, self.loaded_at, self.now
        )
        if found is not None:
            self.now += timedelta(seconds=self.loading)
            self.spent["loading"] += 1
            self.loaded, self.loaded_at = found.index_id, self.now
            return
        place = next(place for place, (_, index_id, _) in enumerate(self.queue) if index_id == self.loaded)
        _, index_id, asked = self.queue.pop(place)
        self.now += timedelta(seconds=1)
        self.spent["answering"] += 1
        self.waits.setdefault(index_id, []).append((self.now - asked).total_seconds())


def test_a_flood_for_what_is_loaded_keeps_nobody_waiting_for_long() -> None:
    worker = Played(loading=10.0, loaded="flood@1")
    worker.ask("flood@1", range(1, 401))
    worker.ask("a@1", [1, 3])
    worker.ask("b@1", [2])
    for more in range(100):
        worker.step()
        worker.ask("flood@1", [401 + more])
    # The patience that the flood has of them, and two loadings with what is answered between them.
    assert len(worker.waits["a@1"]) == 2
    assert max(worker.waits["a@1"] + worker.waits["b@1"]) <= LOADS * 10 + 1 + 2 * 10 + 3


def test_three_floods_share_the_worker_which_loads_for_a_fifth_of_its_time() -> None:
    worker = Played(loading=10.0, loaded="a@1")
    for index_id in ("a@1", "b@1", "c@1"):
        worker.ask(index_id, range(1, 401))
    for _ in range(600):
        worker.step()
    assert worker.spent["loading"] * 10 <= worker.spent["answering"] / LOADS
    answered = [len(worker.waits[index_id]) for index_id in ("a@1", "b@1", "c@1")]
    assert max(answered) - min(answered) <= LOADS * 10 + 1
