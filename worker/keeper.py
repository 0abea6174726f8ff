"""The worker's outermost process: it keeps a worker running, and keeps what a worker has to import.

Nearly all of the time that a worker takes to load goes into importing torch and diffusers. This process does that
once and then forks; when a worker dies, the next one starts where the imports are done. What was imported is in
memory once, shared by all that were forked. It computes nothing, opens nothing and touches no device. Threads that
libraries start when they are imported aren't there in a fork; the libraries make new ones, as a test sees.
"""

import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import NoReturn

from jobs.process import LONGEST_PAUSE_S, RESTART_PAUSE_S, WELL_AFTER_S, end_with_parent, how_it_ended

log = logging.getLogger(__name__)

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
# What a worker ends with that was told to end, or that a person has to help: it isn't started again.
FINAL_CODES = (0, 2)
_LOOK_S = 0.1


def end_process(code: int) -> NoReturn:
    """End this process at once, with what was logged and printed written.

    Taken down in order, the interpreter has the libraries that were imported ahead count what of theirs is left:
    Triton, which comes with PyTorch, writes some thirty lines of "nanobind: leaked …" at each ordinary stop, and has
    no switch for them. There is nothing that an orderly end would put away: this process opens nothing.
    """
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


class Keeper:
    """Runs `work` in a forked process, again whenever that dies, until it ends by itself or is told to.

    `work` gets the number of the run, from 0, and returns the exit code.
    """

    def __init__(self, work: Callable[[int], int]) -> None:
        self._work = work
        self._pid: int | None = None
        self._stopping = False

    def run(self) -> int:
        """Return the last exit code. SIGTERM and SIGINT are handed on to the worker, which then ends in order."""
        before = {number: signal.signal(number, self._stop) for number in STOP_SIGNALS}
        try:
            return self._keep()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _keep(self) -> int:
        pause, number = RESTART_PAUSE_S, 0
        while not self._stopping:
            began = time.monotonic()
            self._fork(number)
            status = self._wait()
            code = os.waitstatus_to_exitcode(status)
            if self._stopping or code in FINAL_CODES:
                return max(0, code)
            log.warning("the worker ended: %s; another is started", how_it_ended(code))
            pause = RESTART_PAUSE_S if time.monotonic() - began > WELL_AFTER_S else pause
            self._sleep(pause)
            pause, number = min(2 * pause, LONGEST_PAUSE_S), number + 1
        return 0

    def _fork(self, number: int) -> None:
        # A signal to stop is kept waiting until it is known whom to hand it on to.
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        keeper = os.getpid()
        pid = os.fork()
        if pid == 0:
            self._be_the_worker(number, keeper)
        self._pid = pid
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)

    def _be_the_worker(self, number: int, keeper: int) -> NoReturn:
        code = 1
        try:
            # Ctrl-C reaches the keeper alone, which hands it on; twice would mean to end at once.
            os.setpgid(0, 0)
            for stop in STOP_SIGNALS:
                signal.signal(stop, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
            end_with_parent(keeper, signal.SIGKILL)
            code = self._work(number)
        except SystemExit as ending:
            code = ending.code if isinstance(ending.code, int) else 1
        except BaseException:
            log.exception("the worker failed")
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            # Not by `sys.exit`, which would unwind the keeper's own frames in this copy of it.
            os._exit(code)

    def _wait(self) -> int:
        """The worker's wait status. Until it is collected its id can't be another's, so it may be signalled."""
        assert self._pid is not None
        os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOWAIT)
        pid, self._pid = self._pid, None
        return os.waitpid(pid, 0)[1]

    def _stop(self, number: int, _frame: object) -> None:
        self._stopping = True
        if self._pid is not None:
            os.kill(self._pid, number)

    def _sleep(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self._stopping and time.monotonic() < until:
            time.sleep(_LOOK_S)
