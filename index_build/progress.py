"""How a build tells what it is doing: bars with time left for people, lines of JSON for machines."""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

_JSON_INTERVAL_S = 1.0


class Stage(Protocol):
    """One stretch of work that is being counted."""

    def advance(self, steps: int = 1) -> None:
        """Tell that `steps` more of the stage's total are done."""


class Reporter(Protocol):
    """Where a build reports to."""

    def say(self, message: str) -> None:
        """A sentence worth reading once."""

    def warn(self, message: str) -> None:
        """A sentence that asks for attention."""

    def stage(self, name: str, total: int, done: int = 0) -> Any:
        """A context manager that yields a Stage of `total` steps, `done` of them done before."""


class _Counter:
    def advance(self, steps: int = 1) -> None:
        """Nobody is told."""


class QuietReporter:
    """Reports nothing: for builds started from Python."""

    def say(self, message: str) -> None:
        """Nothing."""

    def warn(self, message: str) -> None:
        """Nothing."""

    @contextmanager
    def stage(self, name: str, total: int, done: int = 0) -> Iterator[Stage]:
        """A stage that nobody watches."""
        yield _Counter()


class _Bar:
    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress, self._task = progress, task

    def advance(self, steps: int = 1) -> None:
        self._progress.advance(self._task, steps)


class ConsoleReporter:
    """Bars with time left, on standard error."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False, soft_wrap=True)

    def say(self, message: str) -> None:
        """Print a sentence."""
        self.console.print(escape(message))

    def warn(self, message: str) -> None:
        """Print a sentence in yellow."""
        self.console.print(f"[yellow]warning:[/] {escape(message)}")

    @contextmanager
    def stage(self, name: str, total: int, done: int = 0) -> Iterator[Stage]:
        """A bar that stays on the screen when its stage is over."""
        columns = (
            TextColumn("{task.description:<20}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("elapsed"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self.console) as progress:
            yield _Bar(progress, progress.add_task(name, total=total, completed=done))


class _Lines:
    def __init__(self, name: str, total: int, done: int) -> None:
        self._name, self._total, self._done, self._before = name, total, done, done
        self._began = self._told = time.monotonic()
        self._tell()

    def advance(self, steps: int = 1) -> None:
        self._done += steps
        if self._done >= self._total or time.monotonic() - self._told >= _JSON_INTERVAL_S:
            self._tell()

    def _tell(self) -> None:
        self._told = time.monotonic()
        elapsed = self._told - self._began
        worked = self._done - self._before
        left = elapsed * (self._total - self._done) / worked if worked else None
        line: dict[str, Any] = {"stage": self._name, "done": self._done, "total": self._total}
        line["elapsed_s"] = round(elapsed, 1)
        line["left_s"] = None if left is None else round(left, 1)
        _print_line(line)


class JsonReporter:
    """One JSON object a line, on standard error: at most one a second and stage, and one at its end."""

    def say(self, message: str) -> None:
        """A line with the key `message`."""
        _print_line({"message": message})

    def warn(self, message: str) -> None:
        """A line with the key `warning`."""
        _print_line({"warning": message})

    @contextmanager
    def stage(self, name: str, total: int, done: int = 0) -> Iterator[Stage]:
        """A stage whose lines have the keys stage, done, total, elapsed_s and left_s."""
        yield _Lines(name, total, done)


def _print_line(body: dict[str, Any]) -> None:
    sys.stderr.write(json.dumps(body, ensure_ascii=False) + "\n")
    sys.stderr.flush()


def duration(seconds: float) -> str:
    """In words, with one unit."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
