"""Child processes that are kept running: the embedded broker, and the workers that `das serve` starts."""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence

log = logging.getLogger(__name__)

# A child that dies at once is started again after a pause that doubles from the first to the second of these.
RESTART_PAUSE_S = 0.2
LONGEST_PAUSE_S = 10.0
# One that ran for this long was well; the next pause is the shortest again.
WELL_AFTER_S = 10.0
POLL_S = 0.1

# Runs in the child before the real program: on Linux it asks the kernel to send SIGTERM when the parent dies,
# so that a `das serve` that is killed leaves nothing behind. It is a program of its own because code between
# fork and exec may deadlock in a process with threads.
_GUARD = """
import ctypes, os, signal, sys
parent = int(sys.argv[1])
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGTERM, 0, 0, 0)
if os.getppid() != parent:
    sys.exit(0)
os.execv(sys.argv[2], sys.argv[2:])
"""


class SupervisedProcess:
    """One child process, started again whenever it ends, until `stop`.

    `argv` is called anew for every start and names an executable by its path; it may raise, which counts as a
    start that failed. The child has a process group of its own, so that Ctrl-C in a terminal reaches only the
    parent, which then ends the children in order. Only the process started here is ever signalled, by its own
    handle.
    """

    def __init__(
        self,
        name: str,
        argv: Callable[[], Sequence[str]],
        *,
        environment: Callable[[], Mapping[str, str]] = lambda: os.environ,
        on_start: Callable[[], None] = lambda: None,
        stop_seconds: float = 10.0,
    ) -> None:
        self.name = name
        self._argv = argv
        self._environment = environment
        self._on_start = on_start
        self._stop_seconds = stop_seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self.restarts = 0

    @property
    def pid(self) -> int | None:
        """The child's process id while it runs."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def start(self) -> None:
        """Start the child and watch over it from a thread of its own. Returns at once."""
        # The kernel counts the thread that forked as the parent, so all starts are made by one that stays.
        self._thread = threading.Thread(target=self._watch, name=f"supervise-{self.name}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the child, by SIGTERM and after `stop_seconds` by SIGKILL. Returns when it is gone."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()

    def _watch(self) -> None:
        pause = RESTART_PAUSE_S
        while not self._stopping.is_set():
            began = time.monotonic()
            try:
                process = self._spawn()
            except Exception:
                log.exception("%s can't be started", self.name)
            else:
                while process.poll() is None and not self._stopping.wait(POLL_S):
                    pass
                if self._stopping.is_set():
                    self._end(process)
                    return
                log.warning("%s (pid %d) ended: %s", self.name, process.pid, _how(process.returncode))
            if time.monotonic() - began > WELL_AFTER_S:
                pause = RESTART_PAUSE_S
            if self._stopping.wait(pause):
                return
            pause = min(2 * pause, LONGEST_PAUSE_S)
            self.restarts += 1

    def _spawn(self) -> "subprocess.Popen[bytes]":
        guard = [sys.executable, "-I", "-S", "-c", _GUARD, str(os.getpid())]
        process = subprocess.Popen(
            [*guard, *self._argv()],
            env=dict(self._environment()),
            stdin=subprocess.DEVNULL,
            process_group=0,
        )
        self._process = process
        log.info("%s started with pid %d", self.name, process.pid)
        self._on_start()
        return process

    def _end(self, process: "subprocess.Popen[bytes]") -> None:
        if process.poll() is not None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(self._stop_seconds)
        except subprocess.TimeoutExpired:
            log.warning("%s didn't end within %g s and is killed", self.name, self._stop_seconds)
            process.kill()
            process.wait()


def _how(returncode: int) -> str:
    return f"killed by {signal.Signals(-returncode).name}" if returncode < 0 else f"exit code {returncode}"
