"""Child processes that are kept running: the embedded broker, and the workers that `das serve` starts."""

import ctypes
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import IO

log = logging.getLogger(__name__)

# A child that dies at once is started again after a pause that doubles from the first to the second of these.
RESTART_PAUSE_S = 0.2
LONGEST_PAUSE_S = 10.0
# One that ran for this long was well; the next pause is the shortest again.
WELL_AFTER_S = 10.0
POLL_S = 0.1
# How long the last lines of a child that ended are waited for.
LAST_LINES_S = 1.0

# A program that ends with this has said what a person has to mend; starting it again would say it again.
REFUSED = 2

# Runs in the child before the real program: it asks the kernel to end it when the parent dies, so that a `das serve`
# that is killed leaves nothing behind. It is a program of its own because code between fork and exec may deadlock in
# a process with threads.
_GUARD = """
import ctypes, os, signal, sys
parent = int(sys.argv[1])
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGTERM, 0, 0, 0)
if os.getppid() != parent:
    sys.exit(0)
os.execv(sys.argv[2], sys.argv[2:])
"""
_PR_SET_PDEATHSIG = 1


def end_with_parent(parent: int, by: signal.Signals) -> None:
    """In a forked process: let the kernel send this signal when `parent` dies (on Linux; elsewhere nothing is done).

    Ends the process at once where that has happened already.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, by, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)


def how_it_ended(returncode: int) -> str:
    """An exit code in words."""
    return f"killed by {signal.Signals(-returncode).name}" if returncode < 0 else f"exit code {returncode}"


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
        pass_fds: Sequence[int] = (),
        on_line: Callable[[str], None] | None = None,
        on_refusal: Callable[[], None] | None = None,
        stop_seconds: float = 10.0,
    ) -> None:
        """Without effect until `start`.

        Args:
            pass_fds: descriptors that the child inherits.
            on_line: called, from another thread, with each line that the child and its own children write; without,
                they write where this process does.
            on_refusal: called, from another thread, when the child's first run ends with `REFUSED`; it isn't started
                again then.
        """
        self.name = name
        self._argv = argv
        self._environment = environment
        self._pass_fds = pass_fds
        self._on_line = on_line
        self._reader: threading.Thread | None = None
        self._on_refusal = on_refusal
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

    def kill(self) -> None:
        """End the child at once, if it runs; for who can't wait for `stop`."""
        process = self._process
        if process is not None:
            process.kill()

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
                    self._read_to_the_end()
                    return
                self._read_to_the_end()
                if process.returncode == REFUSED and self._on_refusal is not None and not self.restarts:
                    self._on_refusal()
                    return
                log.warning("%s (pid %d) ended: %s", self.name, process.pid, how_it_ended(process.returncode))
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
            pass_fds=self._pass_fds,
            stdout=None if self._on_line is None else subprocess.PIPE,
            stderr=None if self._on_line is None else subprocess.STDOUT,
        )
        self._process = process
        if self._on_line is not None and process.stdout is not None:
            reading = (process.stdout, self._on_line)
            self._reader = threading.Thread(
                target=_read_lines, args=reading, name=f"read-{self.name}", daemon=True
            )
            self._reader.start()
        log.info("%s started with pid %d", self.name, process.pid)
        return process

    def _read_to_the_end(self) -> None:
        # Not for ever: a grandchild that lives on holds the pipe open.
        if self._reader is not None:
            self._reader.join(LAST_LINES_S)

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


def _read_lines(source: IO[bytes], on_line: Callable[[str], None]) -> None:
    with source:
        for line in source:
            on_line(line.decode(errors="replace").rstrip("\r\n"))
