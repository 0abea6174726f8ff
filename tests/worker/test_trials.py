"""What a child notes of the index that it loads, and what the next one reads of it. Children are forked."""

import os
import signal
from collections.abc import Callable

from worker.trials import Trials


def child(work: Callable[[], object]) -> None:
    """Run `work` in a fork, which then ends in order unless it was killed."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(0)
    os.waitpid(pid, 0)


def dies_loading(trials: Trials, index_id: str) -> Callable[[], object]:
    def work() -> None:
        with trials.of(index_id):
            os.kill(os.getpid(), signal.SIGKILL)

    return work


def loads(trials: Trials, index_id: str) -> Callable[[], object]:
    def work() -> None:
        with trials.of(index_id):
            pass

    return work


def test_what_children_died_of_twice_is_left_out_once() -> None:
    trials = Trials()
    assert trials.left_out() is None
    child(dies_loading(trials, "heavy@1"))
    assert trials.left_out() is None, "once may have been somebody's hand"
    # Another is loaded meanwhile, and a child ends that loads nothing.
    child(loads(trials, "light@2"))
    assert trials.left_out() is None
    child(dies_loading(trials, "heavy@1"))
    assert trials.left_out() == "heavy@1"
    assert trials.left_out() is None
    child(dies_loading(trials, "heavy@1"))
    assert trials.left_out() is None, "it is counted anew"


def test_what_is_loaded_after_a_death_starts_afresh() -> None:
    trials = Trials()
    child(dies_loading(trials, "heavy@1"))
    assert trials.left_out() is None
    child(loads(trials, "heavy@1"))
    child(dies_loading(trials, "heavy@1"))
    assert trials.left_out() is None


def test_what_can_t_be_loaded_didn_t_end_the_process() -> None:
    trials = Trials()

    def fails() -> None:
        with trials.of("broken@1"):
            raise OSError

    for _ in range(3):
        child(fails)
        assert trials.left_out() is None
