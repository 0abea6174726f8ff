"""One client that asks two services in turn: what a setting, a version or another worker does to its wait."""

import statistics
import time
from collections.abc import Sequence
from typing import Any

from measure.load.connection import Address
from measure.load.throughput import Phase, Throughput, Trial, figures_of


async def side_by_side(trial: Trial, first: Address, second: Address) -> dict[str, Any]:
    """Ask both in turn, one question after the other, so that what a busy machine takes is taken of both.

    Returns:
        The figures of each, and what part of the first's median time the second's takes, by rounds.

    Raises:
        SettingsError: a service can't be asked or fails a question, see `Throughput`.
    """
    services = [Throughput(trial, address) for address in (first, second)]
    for one in services:
        await one.begin()
    phases: Sequence[list[Phase]] = ([], [])
    cpu, began = time.process_time(), time.perf_counter()
    for _ in range(trial.rounds):
        for one, found in zip(services, phases, strict=True):
            found.append(await one.phase(1, trial.seconds))
    ratios = sorted(there.p50_ms / here.p50_ms for here, there in zip(*phases, strict=True))
    taken = time.perf_counter() - began
    return {
        "seconds": trial.seconds,
        "rounds": trial.rounds,
        "first": figures_of(phases[0]),
        "second": figures_of(phases[1]),
        "ratio": round(statistics.median(ratios), 3),
        "ratio_low": round(ratios[0], 3),
        "ratio_high": round(ratios[-1], 3),
        "client_cpu_share": round((time.process_time() - cpu) / taken, 3),
    }
