"""`Retry-After`: when it is worth coming back, by how fast the queue is being worked off at the moment."""

import math

from jobs.pace import Pace

# Where nothing was answered yet, the model is being loaded, perhaps.
UNKNOWN_S = 30
# A queue of hours may shrink sooner than it looks: workers are added, questions cancelled.
LONGEST_S = 300
# Looking at a question that waits: seldom where many are before it, and never long after its answer is there.
LONGEST_LOOK_S = 10


def until_room(pace: Pace, ahead: int) -> int:
    """Seconds after which a full queue has room for many: half of those ahead have been answered by then.

    Coming back for the first free place would bring everybody back for one.
    """
    seconds = pace.seconds_for(ahead)
    return UNKNOWN_S if seconds is None else min(LONGEST_S, max(1, math.ceil(seconds / 2)))


def until_a_look(pace: Pace, waiting: int) -> int:
    """Seconds after which to look again at a question while so many wait."""
    seconds = pace.seconds_for(waiting)
    return 1 if seconds is None else min(LONGEST_LOOK_S, max(1, math.ceil(seconds / 2)))
