"""Which works look like an upload: CLIP in a process of its own (`app.clip`), asked one picture at a time.

So the API never imports torch, and a CLIP that dies takes one picture's look-alikes with it and nothing else.
"""

import asyncio
import contextlib
import logging
import queue
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from app.catalogue import ServedIndex
from app.schemas import ScreeningStatus
from das.images.wire import BrokenFrameError, receive_frame, send_frame
from das.index import NO_SCREENING
from jobs.process import how_it_ended

logger = logging.getLogger(__name__)

T = TypeVar("T")

# Loading downloads the model where it isn't on this machine yet.
LOAD_SECONDS = 900.0
# An embedding takes a fraction of a second; this is for a large model on a machine with much else to do.
ANSWER_SECONDS = 60.0
STOP_SECONDS = 1.0
LOST_LOADING = "the process that tells look-alikes ends while it loads; the server's log says more"
# A process that dies while it loads is tried so many times in a row.
TRIES = 3
LARGEST_ANSWER_BYTES = 1 << 24


class ScreeningError(Exception):
    """The look-alikes of a picture can't be told; the sentence says why."""


@dataclass(frozen=True)
class Nearest:
    """Works by CLIP similarity, best first: their ids and cosines."""

    work_ids: list[str]
    similarities: list[float]


class _OneThread:
    """One daemon thread that does one thing after another.

    A ThreadPoolExecutor is joined when Python exits: Ctrl-C would wait for as long as CLIP takes to load.
    """

    def __init__(self, name: str) -> None:
        self._waiting: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def submit(self, task: Callable[[], T]) -> "Future[T]":
        """Have `task` done after those submitted before; its value or its exception is in the future."""
        future: Future[T] = Future()

        def do() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(task())
            except BaseException as error:  # noqa: BLE001 - handed on to who awaits it
                future.set_exception(error)

        self._waiting.put(do)
        return future

    def close(self) -> None:
        """Let the thread end after what was submitted."""
        self._waiting.put(None)

    def _run(self) -> None:
        while (do := self._waiting.get()) is not None:
            do()


class _LostError(Exception):
    """The process died or took too long, and was killed."""


class _ClipProcess:
    """One process of `app.clip` and the connection to it, used by one thread; `stop` may come from another."""

    def __init__(self, model_dir: Path | None) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            # A session of its own keeps Ctrl-C away.
            self._process = subprocess.Popen(
                [sys.executable, "-m", "app.clip", str(model_dir or "")],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            )
        self._connection = ours
        self.pid = self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def hear(self, seconds: float) -> tuple[dict[str, Any], bytearray]:
        """The next that it says. Raises `_LostError`."""
        try:
            frame = receive_frame(self._connection, LARGEST_ANSWER_BYTES, time.monotonic() + seconds)
        except (BrokenFrameError, OSError) as error:
            raise self._lost(error) from error
        if frame is None:
            raise self._lost("the connection ended")
        return frame

    def ask(self, header: dict[str, Any], pixels: np.ndarray) -> tuple[dict[str, Any], bytearray]:
        """Its answer about a picture (H, W, 3) uint8. Raises `_LostError`."""
        self.tell(header, np.ascontiguousarray(pixels).data.cast("B"))
        return self.hear(ANSWER_SECONDS)

    def tell(self, header: dict[str, Any], payload: bytes | memoryview = b"") -> None:
        """Say something that it may answer. Raises `_LostError`."""
        try:
            send_frame(self._connection, header, payload, time.monotonic() + ANSWER_SECONDS)
        except OSError as error:
            raise self._lost(error) from error

    def stop(self) -> None:
        """End it, idle or not."""
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._process.kill()
        self._process.wait()
        self._connection.close()

    def _lost(self, reason: object) -> _LostError:
        said = str(reason) or type(reason).__name__
        self.stop()
        return _LostError(f"{said}; {how_it_ended(self._process.returncode)}")


class Screener:
    """The look-alikes of all served indexes."""

    def __init__(self, indexes: list[ServedIndex]) -> None:
        # Those that were built without screening have nothing to load, and an answer of their own.
        self._without: dict[str, str] = {}
        self._indexes: dict[str, ServedIndex] = {}
        self._thread = _OneThread("screening")
        self._process: _ClipProcess | None = None
        self._ready: set[str] = set()
        self._failed: dict[str, str] = {}
        self._closed = False
        self.unanswered = 0
        """Pictures that were asked about and have no answer yet."""
        for served in indexes:
            self._know(served)

    def start(self) -> None:
        """Begin to load; questions that come meanwhile queue up behind it."""
        if self._indexes:
            self._thread.submit(self._load)

    def add(self, served: ServedIndex) -> None:
        """Begin to load one more, beside the others; one that is there already stays loaded, wherever it is now."""
        known = served.id in self._indexes
        if self._know(served) and not known:
            self._failed.pop(served.id, None)
            self._thread.submit(lambda: self._load_one(served))

    def drop(self, index_id: str) -> None:
        """Forget one that nobody asks about any more."""
        self._without.pop(index_id, None)
        self._failed.pop(index_id, None)
        if self._indexes.pop(index_id, None) is not None:
            self._thread.submit(lambda: self._forget(index_id))

    def _know(self, served: ServedIndex) -> bool:
        if served.index.screened:
            self._indexes = {**self._indexes, served.id: served}
            return True
        self._without[served.id] = f"{served.id} {NO_SCREENING}"
        return False

    def close(self) -> None:
        """Take no further question, and end the process, whatever it is doing."""
        self._closed = True
        self._thread.close()
        process = self._process
        if process is not None:
            process.stop()

    @property
    def pid(self) -> int | None:
        """The process that holds CLIP, while there is one."""
        process = self._process
        return process.pid if process is not None and process.alive else None

    def status(self, index_id: str) -> ScreeningStatus:
        if index_id in self._without:
            return "none"
        if index_id in self._ready:
            return "ready"
        return "failed" if index_id in self._failed else "loading"

    def failure(self, index_id: str) -> str | None:
        """Why screening isn't possible for this index; None while it is."""
        return self._without.get(index_id) or self._failed.get(index_id)

    async def nearest(self, index_id: str, pixels: np.ndarray, count: int) -> Nearest:
        """The `count` works most similar to a picture (H, W, 3) uint8; raises ScreeningError."""
        if index_id in self._without:
            raise ScreeningError(self._without[index_id])
        self.unanswered += 1
        try:
            return await asyncio.wrap_future(
                self._thread.submit(lambda: self._nearest(index_id, pixels, count))
            )
        finally:
            self.unanswered -= 1

    def _nearest(self, index_id: str, pixels: np.ndarray, count: int) -> Nearest:
        if self._process is not None and not self._process.alive:
            # It died while nobody asked it anything, so no picture is to blame.
            self._load()
        if index_id not in self._ready or self._process is None:
            raise ScreeningError(self._failed.get(index_id, "the index isn't served"))
        served = self._indexes.get(index_id)
        if served is None:
            raise ScreeningError("the index isn't served any more")
        header = {"index": index_id, "height": pixels.shape[0], "width": pixels.shape[1], "count": count}
        try:
            answer, found = self._process.ask(header, pixels)
        except _LostError as lost:
            logger.warning("the process that holds CLIP was lost on a picture and is started anew: %s", lost)
            self._ready.clear()
            self._thread.submit(self._load)
            raise ScreeningError("the screening of this picture failed") from lost
        if "found" not in answer:
            raise ScreeningError(answer["reason"])
        rows = np.frombuffer(found, "<i8", answer["found"])
        similarities = np.frombuffer(found, "<f4", answer["found"], rows.nbytes)
        works = served.index.works
        return Nearest([works.id_of(int(row)) for row in rows], [float(each) for each in similarities])

    def _load(self) -> None:
        """Start the process and hear of every index, in several tries if need be."""
        for last in (False,) * (TRIES - 1) + (True,):
            self._ready.clear()
            self._failed.clear()
            if self._closed:
                return
            if self._process is not None:
                self._process.stop()
            indexes = [*self._indexes.values()]
            if not indexes:
                return
            self._process = _ClipProcess(indexes[0].index.model_dir)
            if self._closed:
                # `close` may have looked before it was there.
                self._process.stop()
                return
            try:
                for served in indexes:
                    self._open(self._process, served)
                return
            except _LostError as lost:
                if not self._closed:
                    logger.error("the process that holds CLIP was lost while it loaded: %s", lost)
                if last:
                    self._failed |= {
                        served.id: LOST_LOADING for served in indexes if served.id not in self._ready
                    }

    def _load_one(self, served: ServedIndex) -> None:
        if self._closed or served.id in self._ready or served.id not in self._indexes:
            return
        process = self._process
        if process is None or not process.alive:
            self._load()
            return
        try:
            self._open(process, served)
        except _LostError as lost:
            logger.error("the process that holds CLIP was lost while it loaded %s: %s", served.id, lost)
            # Not with the others once more: those that were there have to go on being told.
            self._indexes = {one: kept for one, kept in self._indexes.items() if one != served.id}
            self._load()
            self._failed[served.id] = LOST_LOADING

    def _open(self, process: _ClipProcess, served: ServedIndex) -> None:
        process.tell({"open": served.id, "directory": str(served.directory.resolve())})
        told = process.hear(LOAD_SECONDS)[0]
        if "ready" in told:
            self._failed.pop(served.id, None)
            self._ready.add(served.id)
        else:
            self._failed[served.id] = str(told["reason"])

    def _forget(self, index_id: str) -> None:
        self._ready.discard(index_id)
        self._failed.pop(index_id, None)
        if self._process is not None and self._process.alive:
            try:
                self._process.tell({"forget": index_id})
            except _LostError as lost:
                logger.warning("the process that holds CLIP was lost and is started anew: %s", lost)
                self._load()
