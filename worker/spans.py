"""The worker's part of a question's trace: how long it waited, and the stages of its computation."""

import time
from collections.abc import Sequence
from itertools import pairwise

from jobs.models import ClaimedJob
from jobs.tracing import Tracing


class Marks:
    """When the stages of one batch began. Costs a look at the clock for each."""

    def __init__(self) -> None:
        self.began_ns = time.time_ns()
        self.stages: list[tuple[str, int]] = []

    def reach(self, stage: str) -> None:
        """This stage begins now, unless it has."""
        if not self.stages or self.stages[-1][0] != stage:
            self.stages.append((stage, time.time_ns()))


def tell(tracing: Tracing, jobs: Sequence[ClaimedJob], marks: Marks, failed: str | None) -> None:
    """Send the spans of a batch that is over, below the request of each job. `failed` is the kind of error."""
    if not tracing.active:
        return
    ended = time.time_ns()
    stages = [*marks.stages, ("", ended)]
    for job in jobs:
        told: dict[str, str | int] = {
            "das.job_id": job.id,
            "das.batch": len(jobs),
            "das.attempt": job.attempt,
        }
        created = int(job.created_at.timestamp() * 1e9)
        tracing.past("queue", min(created, marks.began_ns), marks.began_ns, job.traceparent)
        above = tracing.past(
            "answer",
            marks.began_ns,
            ended,
            job.traceparent,
            failed,
            **told,
        )
        for (stage, began), (_, until) in pairwise(stages):
            tracing.past(stage, began, until, above)
