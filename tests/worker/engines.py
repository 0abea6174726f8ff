"""A worker program with an engine of the test's own, in place of the one that computes gradients.

    python tests/worker/engines.py

Everything but the engine is the real thing. What it does with a job is said in the job's prompt: `sleep S`,
`steps N S`, `hold NAME` (until the data directory has such a file), `crash` (SIGKILL to this process), `slow-once`,
`raise`, `refuse`, `search SCRIPT`, or `stubborn`, which neither ends nor heeds the soft time limit. `search` asks
other workers to play a script in their sections of an index of twelve shards: `plain`, `crash`, `raise`, `nonsense`,
or `hold-NAME-COUNT`, whose own section isn't scored before so many others are begun, and `deaf-NAME-COUNT`, which
doesn't look whether it is wanted. Where the data directory has a
file `load-slowly`, loading takes for ever, where it has `cannot-load`, that fails. Where the directory of indexes has
a file `slowness`, an index that comes takes so many seconds; where it has a file `room`, so many indexes are in
memory at once, each that is loaded has a line in the data directory's `loads`, and loading is said to take as many
seconds as stand behind. One whose name begins with `heavy` kills the process that loads it.
"""

import os
import signal
import sys
import time
from collections.abc import Callable, Collection, Sequence

from celery.exceptions import SoftTimeLimitExceeded

from das.errors import ModelError
from das.sections import Section
from jobs.database import upgrade
from jobs.models import ClaimedJob, JsonObject
from jobs.searches import SectionTask
from jobs.settings import Settings, get_settings
from worker import child
from worker.app import run
from worker.child import Progress, Tell
from worker.together import Lead, Search


class ScriptedEngine:
    def __init__(self, settings: Settings, tell: Tell) -> None:
        self._settings = settings
        self._journal = settings.data_dir / "journal"
        self._loaded: list[str] = []
        self._left_out: dict[str, str] = {}
        tell("the script")
        if (settings.data_dir / "load-slowly").exists():
            time.sleep(120)
        if (settings.data_dir / "cannot-load").exists():
            raise ModelError("The weights are damaged.")
        self.keep_up()

    @staticmethod
    def found(settings: Settings) -> list[str]:
        """What stands in the file `indexes`, one id a line; by default the one that most tests ask about."""
        named = settings.index_dir / "indexes"
        return named.read_text().split() if named.exists() else ["photographs@3f9c2a"]

    def due(self) -> bool:
        return self._indexes != [one for one in self.found(self._settings) if one not in self._left_out]

    def keep_up(self, asked: Collection[str] = ()) -> bool:
        before = getattr(self, "_indexes", None)
        now = [one for one in self.found(self._settings) if one not in self._left_out]
        slowness = self._settings.index_dir / "slowness"
        if before not in (None, now) and slowness.exists():
            time.sleep(float(slowness.read_text()))
        self._indexes = now
        self._loaded = [one for one in self._loaded if one in now] if self._room() else now
        return before != now

    def _room(self) -> int | None:
        room = self._settings.index_dir / "room"
        return int(room.read_text().split()[0]) if room.exists() else None

    def describe(self) -> JsonObject:
        return {"indexes": self._indexes, "loaded": self._loaded, "refused": self._left_out}

    def load(self, index_id: str) -> None:
        room = self._room()
        assert room is not None
        assert index_id in {*self._indexes} - {*self._loaded}
        self._loaded = [*self._loaded, index_id][-room:]
        with (self._settings.data_dir / "loads").open("a") as loads:
            loads.write(f"{os.getpid()} {index_id}\n")
        if index_id.startswith("heavy"):
            os.kill(os.getpid(), signal.SIGKILL)

    def leave_out(self, index_id: str, reason: str) -> None:
        self._left_out[index_id] = reason
        self.keep_up()

    def load_seconds(self, index_id: str) -> float:
        return float((self._settings.index_dir / "room").read_text().split()[1])

    def decode(self, image_png: bytes) -> int:
        return len(image_png)

    def run(
        self, jobs: Sequence[ClaimedJob], images: Sequence[int], progress: Progress, lead: Lead | None = None
    ) -> list[JsonObject]:
        with self._journal.open("a") as journal:
            journal.write(" ".join(job.id for job in jobs) + "\n")
        progress("gradients", 0, 1)
        assert {job.index_id for job in jobs} <= {*self._loaded}
        found = {}
        for job in jobs:
            script = (job.prompt or "").split()
            if script[:1] == ["search"]:
                assert lead is not None
                found[job.id] = self._search(job, script[1], progress, lead)
            else:
                self._play(job, script, progress)
        progress("scored", 1, 1)
        return [
            {"bytes": size, "attempt": job.attempt, "pid": os.getpid(), "sections": found.get(job.id)}
            for job, size in zip(jobs, images, strict=True)
        ]

    def score_section(self, task: SectionTask, alive: Callable[[], None]) -> bytes:
        assert task.index_id in self._loaded
        match task.question.decode().split("-"):
            case ["hold" | "deaf" as how, name, _]:
                (self._settings.data_dir / f"began-{task.number}").touch()
                while not (self._settings.data_dir / name).exists():
                    if how == "hold":
                        alive()
                    time.sleep(0.01)
            case ["crash"]:
                os.kill(os.getpid(), signal.SIGKILL)
            case ["raise"]:
                raise ValueError("a section that isn't one")
            case ["nonsense"]:
                return b"\xff"
        return _scored(task.begin, task.end).encode()

    def _search(self, job: ClaimedJob, script: str, progress: Progress, lead: Lead) -> list[str] | None:
        """Who found what in which rows, if others were asked."""
        found = lead(
            Search(
                job.index_id,
                job.method,
                script.encode,
                [1] * 12,
                lambda _: 0,
                lambda section: self._own(script.split("-"), section),
                lambda _, result: result.decode(),
                lambda: progress("scored", 0, 1),
            )
        )
        return found

    def _own(self, script: list[str], section: Section) -> str:
        while script[0] in ("hold", "deaf") and len([*self._settings.data_dir.glob("began-*")]) < int(
            script[2]
        ):
            time.sleep(0.01)
        return _scored(section.begin, section.end)

    def _play(self, job: ClaimedJob, script: list[str], progress: Progress) -> None:
        match script:
            case ["sleep", seconds]:
                time.sleep(float(seconds))
            case ["steps", count, seconds]:
                for step in range(int(count)):
                    time.sleep(float(seconds))
                    progress("gradients", step + 1, int(count))
            case ["hold", name]:
                while not (self._settings.data_dir / name).exists():
                    time.sleep(0.01)
            case ["slow-once"] if job.attempt == 1:
                time.sleep(60)
            case ["crash"]:
                os.kill(os.getpid(), signal.SIGKILL)
            case ["stubborn"]:
                try:
                    time.sleep(60)
                except SoftTimeLimitExceeded:
                    time.sleep(60)
            case ["raise"]:
                raise ValueError("a number that isn't one")
            case ["refuse"]:
                raise ModelError("the model can't be used with this picture")
            case _:
                pass


def _scored(begin: int, end: int) -> str:
    return f"{begin}-{end} by {os.getpid()}"


if __name__ == "__main__":
    if "DAS_TEST_LOAD_AGAIN_S" in os.environ:
        child.LOAD_AGAIN_S = float(os.environ["DAS_TEST_LOAD_AGAIN_S"])
    settings = get_settings()
    upgrade(settings)
    sys.exit(run(settings, ScriptedEngine))
