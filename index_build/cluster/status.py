"""How far a build is, told from what lies on the disk and where shards are left."""

import time
from dataclasses import dataclass
from pathlib import Path

from das import durable
from das.errors import BuildError
from das.manifest import MANIFEST_NAME
from index_build.cluster.exchange import BEAT_S, Shared
from index_build.disk import lock_path
from index_build.progress import duration
from index_build.workspace import Workspace

_RECENT_S = 3600.0
_MOST_AGE = 10 * BEAT_S


@dataclass(frozen=True)
class BuildStatus:
    """How far a build is.

    Attributes:
        state: finished; starting, while nothing is on the disk; running, while somebody computes; else waiting.
        shards: of the whole build; None where only its coordinator knows, as it isn't a distributed one.
        done: shards computed, counted or not.
        shards_per_hour: over the last hour at most; None before the second shard.
        left_s: at that rate.
        workers: who computes which shard now.
    """

    state: str
    shards: int | None
    done: int
    shards_per_hour: float | None
    left_s: float | None
    workers: dict[str, int]

    def describe(self) -> str:
        """In words, a line for each thing."""
        if self.state in ("finished", "starting"):
            return self.state
        total = "" if self.shards is None else f" of {self.shards:,}"
        lines = [f"{self.state}: {self.done:,}{total} shards are done"]
        if self.shards_per_hour is not None:
            left = "" if self.left_s is None else f", about {duration(self.left_s)} left"
            lines.append(f"{self.shards_per_hour:,.0f} shards an hour{left}")
        return "\n".join([*lines, *(f"shard {shard}: {worker}" for worker, shard in self.workers.items())])


def status(out: Path, exchange: str | None = None) -> BuildStatus:
    """Look at the build of `out`, whose workers leave shards at the URL `exchange`, or beside it.

    Raises:
        BuildError: there is none.
        SettingsError: the URL can't be used.
    """
    out = out.resolve()
    workspace = Workspace(out)
    if (out / MANIFEST_NAME).is_file() and not workspace.path.exists():
        return BuildStatus("finished", None, 0, None, None, {})
    if not workspace.path.is_dir():
        if _is_held(lock_path(out)):
            return BuildStatus("starting", None, 0, None, None, {})
        raise BuildError(f"there is neither an index nor a build of one at {out}.")
    ended = {shard: moment for shard in range(workspace.shards_done) if (moment := workspace.ended(shard))}
    shards, workers = None, {}
    for build in Shared(out, exchange).builds():
        if (plan := build.read_plan()) is None:
            continue
        shards = plan.shards
        # What is being counted is moved meanwhile.
        ended = build.done() | ended
        now = time.time()
        workers = {claim.worker: claim.shard for claim in build.claims() if now - claim.beat < _MOST_AGE}
    rate = _rate(list(ended.values()))
    left = None if rate is None or shards is None else (shards - len(ended)) / rate
    return BuildStatus(
        state="running" if workers else "waiting",
        shards=shards,
        done=len(ended),
        shards_per_hour=None if rate is None else 3600 * rate,
        left_s=left,
        workers=workers,
    )


def _is_held(path: Path) -> bool:
    """Whether somebody holds a lock file; one that a killed process left doesn't count."""
    if not path.exists():
        return False
    held = durable.try_lock(path)
    if held is not None:
        held.release()
    return held is None


def _rate(ended: list[float]) -> float | None:
    """Shards a second, from when each ended."""
    recent = sorted(moment for moment in ended if max(ended) - moment <= _RECENT_S)
    if len(recent) < 2 or recent[-1] == recent[0]:
        return None
    return (len(recent) - 1) / (recent[-1] - recent[0])
