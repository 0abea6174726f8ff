"""The end of a distributed build that asks for shards, counts them in their order, and asks again for lost ones."""

import time
from collections.abc import Sequence

import numpy as np

from das.errors import BuildError
from index_build.cluster.exchange import BEAT_S, Claim, Exchange, Plan
from index_build.cluster.queue import ShardQueue
from index_build.gather import Gatherer, add
from index_build.progress import Reporter
from index_build.workspace import Workspace
from jobs.settings import Settings

LOST_S = 10 * BEAT_S
"""Seconds without a beat after which a shard is asked for again."""

_LOOK_S = 0.2
_ASK_AGAIN_S = 3.0
_REMIND_S = 60.0


def gather(
    gatherer: Gatherer,
    workspace: Workspace,
    plan: Plan,
    digests: Sequence[str],
    settings: Settings,
    reporter: Reporter,
) -> dict[str, np.ndarray]:
    """Have build workers compute the shards that `workspace` lacks; returns the kernel sums over all.

    As `Gatherer.run`, bit for bit: a shard's part is summed alone wherever it is computed, and the parts are added
    in the shards' order.

    Raises:
        BuildError: a shard can't be computed; the message says where and why.
        BrokerError: nothing says where the broker is.
    """
    queue = ShardQueue(settings)
    exchange = Exchange.begin(workspace.out, plan, digests)
    asking = _Asking(queue, exchange, reporter)
    sums = workspace.kernel_sums() or gatherer.no_sums()
    done = workspace.shards_done
    reporter.say(
        f"{plan.shards - done:,} of {plan.shards:,} shards are for build workers (`das build-worker`);"
        f" `das build-status {workspace.out}` tells how far they are"
    )
    try:
        with reporter.stage("gradients", plan.works, gatherer.works_in(done)) as stage:
            while done < plan.shards:
                if exchange.is_done(done):
                    add(sums, exchange.sums(done))
                    if not workspace.take(done, exchange.products(done), sums):
                        # Sums without their products: somebody has deleted files here.
                        sums = workspace.kernel_sums() or gatherer.no_sums()
                        exchange.forget(done, counted=False)
                        continue
                    exchange.forget(done)
                    done += 1
                    stage.advance(gatherer.works_in(done) - gatherer.works_in(done - 1))
                    continue
                if not exchange.is_there:
                    raise BuildError(
                        f"{exchange.path} is gone, where build workers leave shards. Run the same command again."
                    )
                for failure in exchange.failures():
                    raise BuildError(f"shard {failure.shard} failed on {failure.worker}: {failure.message}")
                asking.look(range(done, plan.shards))
                time.sleep(_LOOK_S)
    finally:
        queue.close()
    return sums


class _Asking:
    """Keeps every shard asked for that isn't done and that nobody computes."""

    def __init__(self, queue: ShardQueue, exchange: Exchange, reporter: Reporter) -> None:
        self._queue, self._exchange, self._reporter = queue, exchange, reporter
        self._asked = -_ASK_AGAIN_S
        self._beats: dict[int, tuple[int, float]] = {}
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
                f"build workers take shards, and nothing comes of them: is {self._exchange.path} the same disk for"
                " them, and may they write there? Their logs say more."
                if self._times > 1
                else "no build worker has taken a shard for a minute; is a `das build-worker` running?"
            )
        waiting = self._queue.waiting()
        if waiting:
            return
        missing = sorted(set(shards) - done - self._computed(claims, now))
        reachable = waiting is not None and self._queue.ask(self._exchange.path, missing)
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
