"""A worker program with an engine of the test's own, in place of the one that computes gradients.

    python tests/worker/engines.py

Everything but the engine is the real thing. What it does with a job is said in the job's prompt:
`sleep S`, `steps N S`, `crash` (SIGKILL to this process), `slow-once`, `raise`, `refuse`, or `stubborn`, which
neither ends nor heeds the soft time limit.
"""

import os
import signal
import sys
import time
from collections.abc import Sequence

from celery.exceptions import SoftTimeLimitExceeded

from das.errors import ModelError
from jobs.database import upgrade
from jobs.models import ClaimedJob, JsonObject
from jobs.settings import Settings, get_settings
from worker.app import run
from worker.child import Progress


class ScriptedEngine:
    def __init__(self, settings: Settings) -> None:
        self._journal = settings.data_dir / "journal"

    def describe(self) -> JsonObject:
        return {"indexes": ["photographs@3f9c2a"]}

    def decode(self, image_png: bytes) -> int:
        return len(image_png)

    def run(self, jobs: Sequence[ClaimedJob], images: Sequence[int], progress: Progress) -> list[JsonObject]:
        with self._journal.open("a") as journal:
            journal.write(" ".join(job.id for job in jobs) + "\n")
        progress("gradients", 0, 1)
        for job in jobs:
            self._play(job, (job.prompt or "").split(), progress)
        progress("scored", 1, 1)
        return [
            {"bytes": size, "attempt": job.attempt, "pid": os.getpid()}
            for job, size in zip(jobs, images, strict=True)
        ]

    def _play(self, job: ClaimedJob, script: list[str], progress: Progress) -> None:
        match script:
            case ["sleep", seconds]:
                time.sleep(float(seconds))
            case ["steps", count, seconds]:
                for step in range(int(count)):
                    time.sleep(float(seconds))
                    progress("gradients", step + 1, int(count))
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


if __name__ == "__main__":
    settings = get_settings()
    upgrade(settings)
    sys.exit(run(settings, ScriptedEngine))
