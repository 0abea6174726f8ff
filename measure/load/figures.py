"""What a load found out: how long each kind of request took, what went wrong, how much memory the service held."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import psutil

from measure.load.connection import Response

# What an honest service may answer; one that is full, or asked too often, also has to say when to come again.
EXPECTED = frozenset({200, 202, 204, 304})
FULL, RETRY_AFTER = frozenset({429, 503}), "retry-after"
_MB = 1e6


@dataclass
class Requests:
    """Seconds and statuses of each kind of request, and the number of each fault."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    statuses: dict[str, Counter[int]] = field(default_factory=dict)
    faults: Counter[str] = field(default_factory=Counter)

    def note(self, kind: str, response: Response) -> None:
        """Count an answer; a fault is any but a success, "not modified", or a refusal that says when to come."""
        self.seconds.setdefault(kind, []).append(response.seconds)
        self.statuses.setdefault(kind, Counter())[response.status] += 1
        if response.status in FULL and RETRY_AFTER not in response.headers:
            self.faults[f"{kind}: {response.status} without Retry-After"] += 1
        elif response.status not in EXPECTED | FULL:
            self.faults[f"{kind}: {response.status}"] += 1

    def note_broken(self, kind: str, error: Exception) -> None:
        """Count a request that had no answer."""
        self.faults[f"{kind}: {type(error).__name__}: {error}"] += 1

    def note_fault(self, what: str) -> None:
        """Count something that went wrong after an answer had begun well."""
        self.faults[what] += 1

    def told(self, seconds: float) -> dict[str, dict[str, Any]]:
        """Number, rate and latencies of each kind over a run of so many seconds."""
        return {
            kind: {
                "count": len(taken),
                "per_s": round(len(taken) / seconds, 2),
                "p50_ms": round(1e3 * float(np.quantile(taken, 0.5)), 2),
                "p99_ms": round(1e3 * float(np.quantile(taken, 0.99)), 2),
                "max_ms": round(1e3 * max(taken), 2),
                "statuses": {str(status): count for status, count in sorted(self.statuses[kind].items())},
            }
            for kind, taken in sorted(self.seconds.items())
        }


@dataclass
class Memory:
    """Resident memory of processes with their children, at first and at most, in bytes."""

    processes: dict[str, int]
    first: dict[str, int] = field(default_factory=dict)
    peak: dict[str, int] = field(default_factory=dict)

    def sample(self) -> None:
        """Look once; a process that has ended is left as it was last seen."""
        for name, pid in self.processes.items():
            resident = _resident(pid)
            self.first.setdefault(name, resident)
            self.peak[name] = max(self.peak.get(name, 0), resident)

    def told(self) -> dict[str, dict[str, float]]:
        """In megabytes."""
        return {
            name: {
                "first_rss_mb": round(self.first[name] / _MB, 1),
                "peak_rss_mb": round(self.peak[name] / _MB, 1),
            }
            for name in self.first
        }


def _resident(pid: int) -> int:
    total = 0
    try:
        process = psutil.Process(pid)
        for one in (process, *process.children(recursive=True)):
            total += int(one.memory_info().rss)
    except psutil.NoSuchProcess:
        pass
    return total
