"""The end of a distributed build that asks for shards, counts them in their order, and asks again for lost ones."""

import time
from collections.abc import Sequence
from functools import partial

import numpy as np

from das.errors import BuildError
from index_build.cluster.exchange import BEAT_S, Claim, Exchange, Plan, Shared
from index_build.cluster.place import PlaceAway
from index_build.cluster.queue import ShardQueue
from index_build.gather import Gatherer, add
from index_build.progress import Reporter
from index_build.workspace import Workspace
from jobs.settings import Settings

LOST_S = 10 * BEAT_S
"""Seconds without a beat after which a shard is asked for again."""

_ASK_AGAIN_S = 3.0
_REMIND_S = 60.0
_AWAY_S = 600.0
"""Seconds for which a store may be away; a build loses nothing by ending, and goes on with the same command."""


def gather(
    gatherer: Gatherer,
    workspace: Workspace,
    shared: Shared,
    plan: Plan,
    digests: Sequence[str],
    settings: Settings,
    reporter: Reporter,
) -> dict[str, np.ndarray]:
    """Have build workers compute the shards that `workspace` lacks; returns the kernel sums over all.

    As `Gatherer.run`, bit for bit: a shard's part is summed alone wherever it is computed, and the parts are added
    in the shards' order.

    Raises:
        BuildError: a shard can't be computed; the message says where and why. Or a work couldn't be read, and the
            plan is strict.
        BrokerError: nothing says where the broker is.
    """
    if plan.strict:
        workspace.check_strict()
    queue = ShardQueue(settings)
    exchange = Exchange.begin(shared, plan, digests)
    asking = _Asking(queue, exchange, reporter)
    sums = workspace.kernel_sums() or gatherer.no_sums()
    done = workspace.shards_done
    reporter.say(
        f"{plan.shards - done:,} of {plan.shards:,} shards are for build workers (`das build-worker`);"
        f" `das build-status {workspace.out}` tells how far they are"
    )
    away_since: float | None = None
    try:
        with reporter.stage("gradients", plan.works, gatherer.works_in(done)) as stage:
            while done < plan.shards:
                try:
                    if not exchange.is_done(done):
                        _look(exchange, asking, range(done, plan.shards))
                        away_since = None
                        time.sleep(exchange.look_s)
                        continue
                    total = {name: matrix.copy() for name, matrix in sums.items()}
                    add(total, exchange.sums(done))
                    if not workspace.take(done, partial(exchange.bring, done), total):
                        # Sums without their products: somebody has deleted files here.
                        exchange.forget(done, counted=False)
                        continue
                    sums, counted = total, done
                    done += 1
                    stage.advance(gatherer.works_in(done) - gatherer.works_in(counted))
                    exchange.forget(counted)
                    away_since = None
                    if plan.strict:
                        workspace.check_strict(counted)
                except PlaceAway as error:
                    away_since = _wait(error, away_since, reporter)
    finally:
        queue.close()
    return sums


def _look(exchange: Exchange, asking: "_Asking", shards: range) -> None:
    if not exchange.is_there:
        raise BuildError(
            f"{exchange.location} is gone, where build workers leave shards. Run the same command again."
        )
    for failure in exchange.failures():
        raise BuildError(f"shard {failure.shard} failed on {failure.worker}: {failure.message}")
    asking.look(shards)


def _wait(error: PlaceAway, since: float | None, reporter: Reporter) -> float:
    """Wait a moment for a store that is away, and tell since when it is; raises the error after `_AWAY_S`."""
    now = time.monotonic()
    if since is None:
        reporter.warn(f"{error} It is tried again for {_AWAY_S / 60:g} minutes.")
        since = now
    if now - since > _AWAY_S:
        raise error
    time.sleep(_ASK_AGAIN_S)
    return since


class _Asking:
    """Keeps every shard asked for that isn't done and that nobody computes."""

    def __init__(self, queue: ShardQueue, exchange: Exchange, reporter: Reporter) -> None:
        self._queue, self._exchange, self._reporter = queue, exchange, reporter
        self._asked = -_ASK_AGAIN_S
        self._beats: dict[int, tuple[float, float]] = {}
        self._heard = time.monotonic()
        self._reachable = True
        self._times = 0  # that shards were asked for: again, if the queue was found empty

    def look(self, shards: range) -> None:
        """Ask for what is missing, once nothing waits in the queue."""
        now = time.monotonic()
        if now - self._asked < _ASK_AGAIN_S:
            return
        self._asked = now
        claims = self._exchange.claims()
        done = self._exchange.done()
        if claims or done:
            self._heard = now
        elif now - self._heard > _REMIND_S:
            self._heard = now
            self._reporter.warn(
                f"build workers take shards, and nothing comes of them: is {self._exchange.location} the same place"
                " for them, and may they write there? Their logs say more."
                if self._times > 1
                else "no build worker has taken a shard for a minute; is a `das build-worker` running?"
            )
        waiting = self._queue.waiting()
        if waiting:
            return
        missing = sorted(set(shards) - done.keys() - self._computed(claims, now))
        reachable = waiting is not None and self._queue.ask(self._exchange.location, missing)
        self._times += reachable
        self._told(reachable)

    def _computed(self, claims: list[Claim], now: float) -> set[int]:
        """The shards whose claims were touched lately, by this process's clock: those of hosts may differ."""
        before = self._beats
        self._beats = {}
        for claim in claims:
            beat, since = before.get(claim.shard, (claim.beat, now))
            self._beats[claim.shard] = (claim.beat, since if beat == claim.beat else now)
        return {shard for shard, (_, since) in self._beats.items() if now - since < LOST_S}

    def _told(self, reachable: bool) -> None:
        if self._reachable and not reachable:
            self._reporter.warn("the broker can't be reached; shards are asked for again when it is back")
        self._reachable = reachable
