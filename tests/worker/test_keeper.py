"""The keeper: another worker for one that dies, and an end in order. Each runs in a process of its own."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = """
import os, signal, sys, time
from pathlib import Path
from worker.keeper import Keeper
runs = Path(sys.argv[1])
def work(number):
    with runs.open("a") as lines:
        lines.write(f"{number} {os.getpid()}\\n")
    %s
sys.exit(Keeper(work).run())
"""


def until(condition: Callable[[], object], patience: float = 90.0) -> None:
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


class Kept:
    """A keeper whose work is a few lines of Python."""

    def __init__(self, folder: Path, work: str) -> None:
        self._runs = folder / "runs"
        self.process = subprocess.Popen([sys.executable, "-c", SCRIPT % work, str(self._runs)], cwd=ROOT)

    @property
    def runs(self) -> list[int]:
        """The process ids of the workers so far."""
        lines = self._runs.read_text().splitlines() if self._runs.exists() else []
        assert [int(line.split()[0]) for line in lines] == list(range(len(lines)))
        return [int(line.split()[1]) for line in lines]


@pytest.fixture
def keep(tmp_path: Path) -> Iterator[Callable[[str], Kept]]:
    started: list[Kept] = []

    def keep(work: str) -> Kept:
        started.append(Kept(tmp_path, work))
        return started[-1]

    yield keep
    for kept in started:
        kept.process.kill()
        kept.process.wait()


def test_a_killed_worker_is_followed_by_another(keep: Callable[[str], Kept]) -> None:
    kept = keep("time.sleep(60)")
    until(lambda: len(kept.runs) == 1)
    os.kill(kept.runs[0], signal.SIGKILL)
    until(lambda: len(kept.runs) == 2)
    assert not psutil.pid_exists(kept.runs[0]), "it leaves no zombie"
    assert kept.process.poll() is None


@pytest.mark.parametrize("code", [0, 2], ids=["done", "refused"])
def test_one_that_ends_by_itself_is_the_last(keep: Callable[[str], Kept], code: int) -> None:
    kept = keep(f"return {code}")
    assert kept.process.wait(90) == code
    assert len(kept.runs) == 1


def test_one_that_fails_is_followed_by_another(keep: Callable[[str], Kept]) -> None:
    kept = keep("return 0 if number == 2 else [1 // 0, sys.exit(1)][number]")
    assert kept.process.wait(90) == 0
    assert len(kept.runs) == 3


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_end_is_handed_on_once(
    keep: Callable[[str], Kept], number: signal.Signals, tmp_path: Path
) -> None:
    kept = keep(
        "heard = []\n"
        "    for n in (15, 2): signal.signal(n, lambda n, f: heard.append(n))\n"
        "    runs.with_name('ready').touch()\n"
        "    while not heard: time.sleep(0.01)\n"
        "    time.sleep(0.3)\n"
        "    return 10 + len(heard)"
    )
    until((tmp_path / "ready").exists)
    kept.process.send_signal(number)
    assert kept.process.wait(90) == 11
    assert len(kept.runs) == 1, "what was told to end isn't started again"


def test_a_worker_doesnt_outlive_its_killed_keeper(keep: Callable[[str], Kept]) -> None:
    kept = keep("time.sleep(60)")
    until(lambda: len(kept.runs) == 1)
    kept.process.kill()
    kept.process.wait()
    until(lambda: not psutil.pid_exists(kept.runs[0]))


def test_what_is_imported_ahead_is_what_loading_needs_and_can_be_forked(tiny_index: Path) -> None:
    script = (
        "import os, sys\n"
        "from jobs.settings import Settings\n"
        "from worker.engine import AttributionEngine, import_ahead\n"
        "settings = Settings(_env_file=None, index_dir=sys.argv[1], torch_threads=2)\n"
        "import_ahead(settings)\n"
        "import torch\n"
        "before = {name.split('.')[0] for name in sys.modules}\n"
        "print(torch.cuda.is_initialized(), flush=True)\n"
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    engine = AttributionEngine(settings)\n"
        "    later = {name.split('.')[0] for name in sys.modules} - before\n"
        "    print(len(engine.describe()['indexes']), sorted(later), flush=True)\n"
        "    os._exit(0)\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tiny_index)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:2] == ["False", "1 []"]


def test_an_ordinary_end_says_nothing_of_what_libraries_leave() -> None:
    script = (
        "import ctypes, logging, sys\n"
        "from worker.keeper import Keeper, end_process\n"
        "logging.basicConfig()\n"
        # nanobind has itself called in this way.
        "ctypes.pythonapi.Py_AtExit.argtypes = [ctypes.c_void_p]\n"
        "ctypes.pythonapi.Py_AtExit(ctypes.cast(ctypes.CDLL(None).abort, ctypes.c_void_p))\n"
        "logging.warning('the last line')\n"
        "print('printed')\n"
        "code = Keeper(lambda number: 2).run()\n"
        "%s(code)\n"
    )
    ends = [
        subprocess.run([sys.executable, "-c", script % end], cwd=ROOT, capture_output=True, text=True)
        for end in ("sys.exit", "end_process")
    ]
    assert ends[0].returncode == -signal.SIGABRT, "what is called at the interpreter's end is called"
    assert (ends[1].returncode, ends[1].stdout) == (2, "printed\n")
    assert ends[1].stderr == "WARNING:root:the last line\n"


def test_nothing_is_imported_ahead_for_a_gpu(tiny_index: Path) -> None:
    script = (
        "import sys\n"
        "from jobs.settings import Settings\n"
        "from worker.engine import import_ahead\n"
        "import_ahead(Settings(_env_file=None, index_dir=sys.argv[1], device='cuda'))\n"
        "print('torch' in sys.modules)\n"
    )
    shown = subprocess.run(
        [sys.executable, "-c", script, str(tiny_index)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert shown.stdout.strip() == "False"
