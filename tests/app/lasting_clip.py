"""Processes of CLIP that go from one application of the tests to the next.

To start one takes longer than most files' tests: it imports torch and open_clip.
"""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from app.screening import _ClipProcess, _LostError


class LastingClips:
    """Real processes of `app.clip` that nobody uses at the moment, by the folder where they look for models."""

    def __init__(self) -> None:
        self._idle: dict[Path | None, list[_ClipProcess]] = {}
        # They end with the thread that started them.
        self._starting = ThreadPoolExecutor(1)

    def take(self, model_dir: Path | None) -> _ClipProcess:
        idle = self._idle.setdefault(model_dir, [])
        while idle:
            if (process := idle.pop()).alive:
                return process
        return self._starting.submit(_ClipProcess, model_dir).result()

    def give_back(self, model_dir: Path | None, process: _ClipProcess) -> None:
        self._idle[model_dir].append(process)

    @contextmanager
    def used(self) -> Iterator[None]:
        """Applications that start meanwhile take their CLIP from here."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("app.screening._ClipProcess", lambda model_dir: BorrowedClip(self, model_dir))
            yield

    def close(self) -> None:
        for idle in self._idle.values():
            for process in idle:
                process.stop()
        self._starting.shutdown()


class BorrowedClip:
    """A `_ClipProcess` that is given back when it is stopped, if it has nothing left to say."""

    def __init__(self, clips: LastingClips, model_dir: Path | None) -> None:
        self._clips, self._model_dir = clips, model_dir
        self._process = clips.take(model_dir)
        self._opened: set[str] = set()
        self._unheard = 0
        self._busy = threading.Lock()
        self._stopped = False
        self.pid = self._process.pid

    @property
    def alive(self) -> bool:
        return not self._stopped and self._process.alive

    def tell(self, header: dict[str, Any], payload: bytes | memoryview = b"") -> None:
        with self._busy:
            self._check()
            if "open" in header:
                self._opened.add(header["open"])
                self._unheard += 1
            self._process.tell(header, payload)

    def hear(self, seconds: float) -> tuple[dict[str, Any], bytearray]:
        with self._busy:
            self._check()
            said = self._process.hear(seconds)
            self._unheard -= 1
            return said

    def ask(self, header: dict[str, Any], pixels: Any) -> tuple[dict[str, Any], bytearray]:
        with self._busy:
            self._check()
            return self._process.ask(header, pixels)

    def stop(self) -> None:
        if self._stopped:
            return
        self._stopped = True
        if self._busy.acquire(blocking=False):
            try:
                if self._process.alive and not self._unheard:
                    for index_id in self._opened:
                        self._process.tell({"forget": index_id})
                    self._clips.give_back(self._model_dir, self._process)
                    return
            except _LostError:
                return
            finally:
                self._busy.release()
        self._process.stop()

    def _check(self) -> None:
        if self._stopped:
            raise _LostError("it was stopped")
