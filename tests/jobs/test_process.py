"""Supervision: a child is started again until it is stopped, and is gone then."""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from jobs.process import SupervisedProcess


def until(condition: Callable[[], object], patience: float = 90.0) -> None:
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def test_a_supervised_process_is_started_again_until_it_is_stopped(tmp_path: Path) -> None:
    lines = tmp_path / "starts"
    script = f"open({str(lines)!r}, 'a').write('x'); import time; time.sleep(0.05)"
    process = SupervisedProcess("test", lambda: [sys.executable, "-c", script])
    process.start()
    until(lambda: lines.exists() and len(lines.read_text()) >= 3)
    process.stop()
    assert process.pid is None
    count = len(lines.read_text())
    time.sleep(0.5)
    assert len(lines.read_text()) == count


def test_a_process_that_ignores_the_polite_signal_is_killed() -> None:
    script = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
    process = SupervisedProcess("stubborn", lambda: [sys.executable, "-c", script], stop_seconds=0.5)
    process.start()
    until(lambda: process.pid is not None)
    pid = process.pid
    assert pid is not None
    time.sleep(0.5)
    process.stop()
    assert not psutil.pid_exists(pid)
