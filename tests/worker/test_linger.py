"""Waiting for questions that are about to come: when, for how many, and when not."""

from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pytest

from jobs.models import ClaimedJob
from jobs.settings import Settings
from jobs.turns import BULK_PRIORITY
from worker import linger
from worker.linger import Linger


def jobs(number: int, priority: int = 0) -> list[ClaimedJob]:
    return [
        ClaimedJob(
            id=f"att_{one}",
            token=f"token-{one}",
            attempt=1,
            created_at=None,  # type: ignore[arg-type]
            queue_wait_ms=1.0,
            priority=priority,
            index_id="photographs@3f9c2a",
            method="das-block",
            candidates="all",
            top_k=20,
            input={},
        )
        for one in range(number)
    ]


class Waiting:
    """How many wait at each look; it remembers what it was asked."""

    def __init__(self, *found: int) -> None:
        self._found = list(found)
        self.asked: list[int] = []

    def __call__(self, most: int) -> int:
        self.asked.append(most)
        return self._found.pop(0)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Linger:
    """One whose time never passes."""
    monkeypatch.setattr(linger, "time", SimpleNamespace(monotonic=lambda: 100.0, sleep=lambda _: None))
    return Linger(Settings(_env_file=None, data_dir=tmp_path, batch_size=4))


def test_it_waits_until_the_pass_is_full(patient: Linger) -> None:
    patient.after(jobs(2))
    waiting = Waiting(1, 1, 3, 4)
    patient.wait(waiting)
    assert waiting.asked == [4] * 4


def test_where_no_question_waits_it_looks_once(patient: Linger) -> None:
    patient.after(jobs(3))
    waiting = Waiting(0)
    patient.wait(waiting)
    assert waiting.asked == [4]


@pytest.mark.parametrize("before", [[], jobs(1), jobs(2, BULK_PRIORITY)])
def test_who_asks_alone_or_beside_batches_isn_t_kept_waiting(
    patient: Linger, before: list[ClaimedJob]
) -> None:
    patient.after(jobs(2))
    patient.after(before)
    patient.wait(waiting := Waiting())
    assert waiting.asked == []


def test_it_ends_after_its_time_and_forgets_a_pass_of_long_ago(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    clock = count(0.0, 0.008)
    passing = SimpleNamespace(monotonic=lambda: next(clock), sleep=lambda _: None)
    monkeypatch.setattr(linger, "time", passing)
    eager = Linger(Settings(_env_file=None, data_dir=tmp_path))
    eager.after(jobs(2))
    waiting = Waiting(1, 1, 1, 1)
    eager.wait(waiting)
    # Looks at 8, 16 and 24 ms after it began; the default is 20.
    assert len(waiting.asked) == 3
    for _ in range(40):
        next(clock)
    eager.wait(forgotten := Waiting())
    assert forgotten.asked == []


def test_it_can_be_turned_off(tmp_path: Path) -> None:
    off = Linger(Settings(_env_file=None, data_dir=tmp_path, linger_seconds=0))
    off.after(jobs(2))
    off.wait(waiting := Waiting())
    assert waiting.asked == []


def test_a_fresh_worker_doesn_t_wait(patient: Linger) -> None:
    patient.wait(waiting := Waiting())
    assert waiting.asked == []
