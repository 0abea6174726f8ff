"""The process that holds CLIP: `python -m app.clip MODELS`, started by `app.screening`, spoken to on a socket.

It is told to open indexes, says of each whether its look-alikes can be told, and answers about one picture after
another until the connection closes. torch and open_clip are imported here and nowhere in the API.
"""

import gc
import logging
import os
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from das.errors import DasError
from das.images.wire import receive_frame, send_frame
from das.index import AttributionIndex
from jobs.logs import configure_logging
from jobs.process import end_with_parent
from jobs.settings import get_settings

if TYPE_CHECKING:
    from das.config import ClipSpec
    from das.screening import Embedder, Screen

logger = logging.getLogger(__name__)
# faiss tells which of its builds it could not load, open_clip (on the root logger) each file that it reads.
logging.getLogger("faiss.loader").setLevel(logging.WARNING)
logging.getLogger().addFilter(
    lambda record: record.levelno >= logging.WARNING or "open_clip" not in record.pathname
)

LARGEST_PICTURE_BYTES = 1 << 31
# After the API, whose answers wait for look-alikes for a moment only, and before the worker.
NICENESS = 5


def serve(model_dir: Path | None) -> None:
    """Do as the other side says: load a CLIP model and FAISS index, forget one, answer; until the connection closes.

    Args:
        model_dir: where CLIP models are looked for first.
    """
    # Standard input, so that no other descriptor has to survive the exec.
    with socket.socket(fileno=0) as connection:
        loaded: dict[str, tuple[Embedder, Screen]] = {}
        embedders: dict[ClipSpec, Embedder] = {}
        while (request := receive_frame(connection, LARGEST_PICTURE_BYTES, None)) is not None:
            header, payload = request
            if "open" in header:
                answer = _opened(header["open"], Path(header["directory"]), model_dir, loaded, embedders)
                send_frame(connection, answer, b"", None)
            elif "forget" in header:
                loaded.pop(header["forget"], None)
                kept = {id(embedder) for embedder, _ in loaded.values()}
                embedders = {spec: one for spec, one in embedders.items() if id(one) in kept}
            else:
                _answer(connection, header, payload, loaded)


def _opened(
    index_id: str,
    directory: Path,
    model_dir: Path | None,
    loaded: "dict[str, tuple[Embedder, Screen]]",
    embedders: "dict[ClipSpec, Embedder]",
) -> dict[str, Any]:
    try:
        loaded[index_id] = _load(directory, model_dir, embedders)
    except DasError as error:
        logger.error("no look-alikes for %s: %s", directory, error)
        return {"failed": index_id, "reason": str(error)}
    except Exception:
        logger.exception("no look-alikes for %s", directory)
        reason = "the screening couldn't be loaded; the server's log says why"
        return {"failed": index_id, "reason": reason}
    # torch and open_clip bring half a million objects that stay for good and need no walk over them.
    gc.collect()
    gc.freeze()
    return {"ready": index_id}


def _answer(
    connection: socket.socket,
    header: dict[str, Any],
    payload: bytearray,
    loaded: "dict[str, tuple[Embedder, Screen]]",
) -> None:
    embedder, screen = loaded[header["index"]]
    pixels = np.frombuffer(payload, np.uint8).reshape(header["height"], header["width"], 3)
    try:
        rows, similarities = screen.nearest(embedder.embed([pixels])[0], header["count"])
    except (RuntimeError, ValueError, MemoryError):
        logger.exception("screening failed")
        send_frame(connection, {"reason": "the screening of this picture failed"}, b"", None)
        return
    found = rows.astype("<i8").tobytes() + similarities.astype("<f4").tobytes()
    send_frame(connection, {"found": len(rows)}, found, None)


def _load(
    directory: Path, model_dir: Path | None, embedders: "dict[ClipSpec, Embedder]"
) -> "tuple[Embedder, Screen]":
    import faiss
    import torch

    from das.screening import Embedder, Screen

    # Enough for one picture, and it leaves the cores to the worker, whose gradients take longest.
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    index = AttributionIndex.open(directory, model_dir=model_dir)
    spec = index.clip
    if spec not in embedders:
        embedders[spec] = Embedder.load(spec)
    embedder = embedders[spec]
    embedder.check(index.manifest.clip_digest, index.id)
    # The first pass allocates and is several times slower than the later ones; nobody shall wait for it.
    embedder.embed([np.zeros((32, 32, 3), np.uint8)])
    return embedder, Screen.open(directory)


if __name__ == "__main__":
    end_with_parent(os.getppid(), signal.SIGKILL)
    os.nice(NICENESS)
    configure_logging(get_settings())
    (models,) = sys.argv[1:]
    serve(Path(models) if models else None)
