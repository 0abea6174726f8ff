"""Drawing a report in a process of its own, with limits on time and memory.

fpdf2 and the library that signs take a hundred megabytes, which the API's process hasn't got to spare, and what they
draw was written by strangers. A report is asked for now and then: its process is started for it and ends with it.
"""

import contextlib
import json
import logging
import os
import pickle
import subprocess
import sys
import threading

from app.problems import Problem
from app.report.child import NICENESS, REFUSED, Request
from das.confined import MODULE_PATH, bare_environment
from das.errors import EvidenceError

logger = logging.getLogger(__name__)

MEMORY_BYTES = 1 << 30
SECONDS = 60
_BOOTSTRAP = (
    "import json, os, sys; sys.path[:] = json.loads(sys.argv[1]); os.nice(int(sys.argv[2]));"
    " from app.report.child import main; main()"
)
_LAST_WORDS = 2000
ELSE = "report.json and report.html hold the same."
RETRY = {"Retry-After": "30"}


def draw(request: Request) -> bytes:
    """The PDF; blocks for a few seconds.

    Raises:
        EvidenceError: the certificate can't sign.
        Problem: busy where it takes too long, internal-error where it can't be drawn.
    """
    command = [sys.executable, "-I", "-c", _BOOTSTRAP, json.dumps(MODULE_PATH), str(NICENESS)]
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # Sets and dictionaries in the same order each time: the same report gives the same bytes.
        env=bare_environment() | {"PYTHONHASHSEED": "0"},
        start_new_session=True,
    )
    stopped = threading.Event()

    def stop() -> None:
        stopped.set()
        process.kill()

    timer = threading.Timer(request.seconds, stop)
    timer.start()
    try:
        # Written as it is pickled: the picture isn't copied for it.
        with contextlib.suppress(BrokenPipeError):
            pickle.dump(request, process.stdin, protocol=5)  # type: ignore[arg-type]
        pdf, said = process.communicate()
    finally:
        timer.cancel()
        process.kill()
        process.wait()
    last_words = said.decode(errors="replace")[-_LAST_WORDS:]
    if process.returncode == REFUSED:
        raise EvidenceError(last_words)
    if stopped.is_set():
        logger.error("drawing %s took longer than %d s", request.content.name, request.seconds)
        raise Problem("busy", f"Drawing the PDF took longer than {request.seconds} s. {ELSE}", RETRY)
    if process.returncode != os.EX_OK or not pdf.startswith(b"%PDF-"):
        logger.error("drawing %s ended with %d: %s", request.content.name, process.returncode, last_words)
        raise Problem("internal-error", f"Drawing the PDF failed; the server's log says why. {ELSE}")
    return pdf
