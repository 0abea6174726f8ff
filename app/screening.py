"""CLIP in the API process: which works look like an upload. Loaded in the background, asked one at a time.

torch and open_clip are imported in this module's own thread and nowhere else in the process. One thread of
computation is enough for one picture and leaves the cores to the worker, whose gradients take longest.
"""

import asyncio
import gc
import logging
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeVar

import numpy as np

from app.catalogue import ServedIndex
from app.lean_import import import_open_clip
from das.errors import DasError

if TYPE_CHECKING:
    from das.config import ClipSpec
    from das.screening import Embedder, Screen

logger = logging.getLogger(__name__)
# faiss tells which of its builds it could not load, open_clip (on the root logger) each file that it reads.
logging.getLogger("faiss.loader").setLevel(logging.WARNING)
logging.getLogger().addFilter(
    lambda record: record.levelno >= logging.WARNING or "open_clip" not in record.pathname
)

T = TypeVar("T")
Status = Literal["loading", "ready", "failed"]


class ScreeningError(Exception):
    """The look-alikes of a picture can't be told; the sentence says why."""


@dataclass(frozen=True)
class Nearest:
    """Works by CLIP similarity, best first: their rows and cosines."""

    rows: list[int]
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


class Screener:
    """The CLIP models and FAISS indexes of all served indexes, behind one thread."""

    def __init__(self, indexes: list[ServedIndex]) -> None:
        self._indexes = indexes
        self._thread = _OneThread("screening")
        self._ready: dict[str, tuple[Embedder, Screen]] = {}
        self._failed: dict[str, str] = {}
        self._loading: Future[None] = Future()

    def start(self) -> None:
        """Begin to load; questions that come meanwhile queue up behind it."""
        self._loading = self._thread.submit(self._load)

    def wait_until_loaded(self, seconds: float) -> None:
        """Return when every index is ready or failed; raises TimeoutError after `seconds`."""
        self._loading.result(seconds)

    def close(self) -> None:
        """Take no further question; what is being loaded or asked is left to end with the process."""
        self._thread.close()
        # The process may live on without this application, as in tests.
        gc.unfreeze()

    def status(self, index_id: str) -> Status:
        if index_id in self._ready:
            return "ready"
        return "failed" if index_id in self._failed else "loading"

    def failure(self, index_id: str) -> str | None:
        """Why screening isn't possible for this index; None while it is."""
        return self._failed.get(index_id)

    async def nearest(self, index_id: str, pixels: np.ndarray, count: int) -> Nearest:
        """The `count` works most similar to a picture (H, W, 3) uint8; raises ScreeningError."""
        return await asyncio.wrap_future(self._thread.submit(lambda: self._nearest(index_id, pixels, count)))

    def _nearest(self, index_id: str, pixels: np.ndarray, count: int) -> Nearest:
        if index_id not in self._ready:
            raise ScreeningError(self._failed.get(index_id, "the index isn't served"))
        embedder, screen = self._ready[index_id]
        try:
            rows, similarities = screen.nearest(embedder.embed([pixels])[0], count)
        except (RuntimeError, ValueError, MemoryError) as error:
            logger.exception("screening failed")
            raise ScreeningError("the screening of this picture failed") from error
        return Nearest([int(row) for row in rows], [float(similarity) for similarity in similarities])

    def _load(self) -> None:
        import_open_clip(served.index.clip for served in self._indexes)
        embedders: dict[ClipSpec, Embedder] = {}
        for served in self._indexes:
            try:
                self._ready[served.id] = self._load_one(served, embedders)
            except DasError as error:
                logger.error("no look-alikes for %s: %s", served.id, error)
                self._failed[served.id] = str(error)
            except Exception:
                # Nobody awaits this thread: what isn't logged here is never seen.
                logger.exception("no look-alikes for %s", served.id)
                self._failed[served.id] = "the screening couldn't be loaded; the server's log says why"
        # torch and open_clip bring half a million objects that stay for good. Taken out of garbage collection,
        # they cost no request a pause, and no exit the seconds of a last walk over all of them.
        gc.collect()
        gc.freeze()

    def _load_one(
        self, served: ServedIndex, embedders: "dict[ClipSpec, Embedder]"
    ) -> "tuple[Embedder, Screen]":
        import faiss
        import torch

        from das.screening import Embedder, Screen

        torch.set_num_threads(1)
        faiss.omp_set_num_threads(1)
        spec = served.index.clip
        if spec not in embedders:
            embedders[spec] = Embedder.load(spec)
        embedder = embedders[spec]
        recorded = served.index.manifest.screening.digest
        if embedder.digest != recorded:
            raise DasError(
                f"the CLIP model {spec.describe()} isn't the one that {served.id} was built with: its weights'"
                f" digest is {embedder.digest[:12]}, the index has {recorded[:12]}."
            )
        # The first pass allocates and is several times slower than the later ones; nobody shall wait for it.
        embedder.embed([np.zeros((32, 32, 3), np.uint8)])
        return embedder, Screen.open(served.directory)
