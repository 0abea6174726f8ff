"""Numbers of things in English sentences."""

from das.answer import CandidateSet, RankedWork, sentence_of
from das.plurals import counted
from jobs.errors import QueueFull


def test_one_is_told_in_the_singular_and_thousands_are_apart() -> None:
    assert [counted(n, "work") for n in (0, 1, 2, 1200)] == ["0 works", "1 work", "2 works", "1,200 works"]
    assert [counted(n, "entry", "entries") for n in (1, 2)] == ["1 entry", "2 entries"]


def test_an_answer_about_one_work_says_so() -> None:
    first = RankedWork(1, "w_0", 0, 0.0, 0.0, 0.0)
    for mode, said in (("all", "among 1 work."), ("screened", "among the 1 most similar work.")):
        candidates = CandidateSet(mode, 1)  # type: ignore[arg-type]
        assert sentence_of(None, None, first, [], candidates).endswith(said)


def test_one_waiting_picture_is_told_in_the_singular() -> None:
    assert str(QueueFull(1)) == "1 picture is already waiting; send this one again when it is done"
    assert "2 of your pictures are already waiting" in str(QueueFull(2, of_owner=True))
