"""Which index a worker loads next, where it may not hold all of them at once.

What is loaded is asked first, since loading another takes long. But not for ever: a question whose index isn't loaded
is next once it has waited for longer than `LOADS` times what loading takes, counted from the last loading at the
earliest. So where too much is asked of several indexes at once, a worker loads for a fifth of its time at most. Which
of several it loads, the order of claims decides (`jobs.turns`), so that everybody gets a turn.
"""

from collections.abc import Callable, Collection, Sequence
from datetime import datetime, timedelta

from jobs.claims import Waiting

LOADS = 4
# Indexes that are loaded in no time wouldn't be worth more exchanges than this.
PATIENCE_S = 2.0
# Another worker that has it loaded is given this long to take a question, or as long as loading it here would take.
GRACE_S = 2.0


def to_load(
    waiting: Sequence[Waiting],
    loaded: Collection[str],
    elsewhere: Collection[str],
    seconds_of: Callable[[str], float],
    loaded_at: datetime,
    now: datetime,
) -> Waiting | None:
    """The questions whose index is to be loaded before anything else is claimed; None: claim what is loaded.

    Args:
        waiting: what waits for indexes that this worker answers about, as `Leases.waiting_by_index` has it.
        loaded: ids of what is in memory here.
        elsewhere: of what is in another worker's, or is being loaded there.
        seconds_of: how long loading an index takes here, as far as is known.
        loaded_at: when something was last loaded here.
    """

    def waited(one: Waiting, since: datetime, least: float, times: float) -> bool:
        return now - since > timedelta(seconds=max(least, times * seconds_of(one.index_id)))

    ours = [one for one in waiting if one.index_id in loaded]
    missing = [
        one
        for one in waiting
        if one.index_id not in loaded
        and (one.index_id not in elsewhere or waited(one, one.since, GRACE_S, 1.0))
    ]
    if not missing:
        return None
    first = min(missing)
    # A question goes before all pictures of batches, wherever its index is.
    if not ours or first.priority < min(ours).priority:
        return first
    overdue = [
        one
        for one in missing
        if one.priority == first.priority == min(ours).priority
        and waited(one, max(one.since, loaded_at), PATIENCE_S, LOADS)
    ]
    return min(overdue, default=None)
