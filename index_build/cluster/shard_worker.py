"""The end of a distributed build that computes: the process of `das build-worker`."""

import logging
import os
import socket
import time
import warnings
from collections.abc import Sequence
from contextlib import chdir, closing, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from celery.platforms import SecurityWarning

from das.errors import BuildError, DasError, SettingsError
from das.manifest import ExtensionRecord
from das.works import read_works
from index_build.cluster.exchange import Exchange, Plan
from index_build.cluster.place import PlaceAway
from index_build.cluster.queue import QUEUE, TASK, create_app
from index_build.gather import Gatherer
from index_build.inputs import WorksOnDisk, digest_of_works
from index_build.loaded import load
from index_build.pictures import PictureReader
from index_build.progress import QuietReporter
from index_build.records import extension_records, versions
from jobs.settings import Settings

log = logging.getLogger(__name__)

_PAUSE_S = 5.0
_SAME = ("das-attribution",)
"""What has to have the version that the build was begun with; of the rest (torch, …) a difference is told."""


@dataclass(frozen=True, eq=False)
class _Prepared:
    """A build whose model and works are loaded; one is kept, that of the last shard."""

    exchange: str
    plan: Plan
    gatherer: Gatherer
    works: WorksOnDisk


class ShardWorker:
    """Computes one shard after the other."""

    def __init__(self, device: str) -> None:
        """Nothing is loaded before the first shard."""
        self._device = device
        self._name = f"{socket.gethostname()}:{os.getpid()} ({device})"
        self._prepared: _Prepared | None = None

    def compute(self, place: str, shard: int) -> None:
        """Leave what a shard gives in the exchange at `place`, or why it can't be computed.

        A shard that is done, failed or of a build that is over is passed over: messages may come twice, and late.
        """
        try:
            exchange = Exchange(place)
        except SettingsError as error:
            log.error("shard %d of %s: %s", shard, place, error)
            time.sleep(_PAUSE_S)
            return
        try:
            plan = exchange.read_plan()
            if plan is None:
                log.warning(
                    "%s isn't here: is that build over, or its disk not to be seen under this path?", place
                )
                return
            if self._is_settled(exchange, shard):
                return
            began = time.monotonic()
            with exchange.claimed(shard, self._name), _standing_in(plan.directory):
                prepared = self._prepare(exchange, plan)
                with (
                    closing(PictureReader(prepared.works)) as reader,
                    QuietReporter().stage("gradients", 0) as stage,
                ):
                    found, sums = prepared.gatherer.compute(shard, reader, stage, strict=plan.strict)
                exchange.leave(shard, found, sums)
            log.info(
                "shard %d of %s: %d works in %.1f s", shard, place, len(found.rows), time.monotonic() - began
            )
        except PlaceAway as error:
            self._pause(place, error)
        except Exception as error:  # noqa: BLE001 - whatever it is, the shard is settled by it
            try:
                if not exchange.is_there:
                    log.info("the build of %s is over; shard %d isn't wanted any more", place, shard)
                    return
                if isinstance(error, DasError):
                    log.error("shard %d of %s: %s", shard, place, error)
                else:
                    log.exception("shard %d of %s failed", shard, place)
                self._prepared = None
                exchange.fail(shard, self._name, str(error) or type(error).__name__)
            except (OSError, PlaceAway) as refused:
                self._pause(place, refused)

    def _pause(self, place: str, error: OSError | PlaceAway) -> None:
        """The shard is asked for again; others shall have the time to take it."""
        log.error("nothing can be written into %s: %s", place, getattr(error, "strerror", None) or error)
        time.sleep(_PAUSE_S)

    def _is_settled(self, exchange: Exchange, shard: int) -> bool:
        done = shard < exchange.counted or exchange.is_done(shard)
        return done or any(failure.shard == shard for failure in exchange.failures())

    def _prepare(self, exchange: Exchange, plan: Plan) -> _Prepared:
        """Load what a build needs, unless it is loaded; raises DasError if it isn't what the coordinator has."""
        if self._prepared is not None and self._prepared.exchange == exchange.location:
            return self._prepared
        self._prepared = None
        _compare_versions(plan)
        source = read_works(
            plan.config.works,
            follow_links=plan.follow_links,
            format=plan.works_format,
            creator_from=plan.creator_from,
        )
        digests = exchange.digests()
        # The files themselves are compared as they are read.
        if len(source) != len(digests) or digest_of_works(source.table, digests) != plan.identity["works"]:
            raise BuildError(
                f"{plan.config.works} has other works or metadata here than where the build was started."
            )
        loaded = load(plan.config, self._device)
        model, *checkpoints = loaded.digests
        ours = plan.identity | {
            "model": model,
            "checkpoints": [digest[:12] for digest in checkpoints],
            "clip": loaded.embedder.digest,
        }
        if loaded.sscd is not None:
            ours["sscd"] = loaded.sscd.digest[:12]
        if different := [name for name in ours if ours[name] != plan.identity.get(name)]:
            raise BuildError(
                f"{', '.join(different)}: the weights here aren't those where the build was started"
                f" ({plan.config.model})."
            )
        works = WorksOnDisk(source, digests, plan.identity["works"])
        self._prepared = _Prepared(exchange.location, plan, Gatherer(plan.config, works, loaded), works)
        return self._prepared


def run(settings: Settings, device: str) -> int:
    """Compute shards until SIGTERM or Ctrl-C, finish the one in hand, and return the exit code.

    Raises:
        BrokerError: nothing says where the broker is.
    """
    # Celery warns root because pickled messages could run code as root; here only JSON is read.
    warnings.simplefilter("ignore", SecurityWarning)
    app = create_app(settings)
    worker = ShardWorker(device)

    @app.task(name=TASK)  # type: ignore[untyped-decorator]
    def compute(place: str, shard: int) -> None:
        worker.compute(place, shard)

    program = app.Worker(
        queues=[QUEUE],
        loglevel=settings.log_level.upper(),
        without_mingle=True,
        without_gossip=True,
        without_heartbeat=True,
        quiet=True,
    )
    program.start()
    return int(program.exitcode or 0)


def _standing_in(directory: str) -> chdir[str] | nullcontext[None]:
    """The coordinator's directory, where it is here too: a plan may name places relative to it."""
    return chdir(directory) if Path(directory).is_dir() else nullcontext()


def _compare_versions(plan: Plan) -> None:
    here = versions()
    if different := [name for name in _SAME if here.get(name) != plan.versions.get(name)]:
        said = "; ".join(f"{name} {here.get(name)}, there {plan.versions.get(name)}" for name in different)
        raise BuildError(f"this worker and the build are of different versions: {said}.")
    if (extensions := extension_records(plan.config)) != plan.extensions:
        raise BuildError(
            f"this worker and the build have other extensions: {_told(extensions)}, there {_told(plan.extensions)}."
        )
    others = [name for name in plan.versions if here.get(name) != plan.versions[name]]
    if torch.get_num_threads() != plan.threads:
        others.append(f"threads ({torch.get_num_threads()}, there {plan.threads})")
    if others:
        log.warning(
            "features may differ in their last bits from the coordinator's: other %s", ", ".join(others)
        )


def _told(extensions: Sequence[ExtensionRecord]) -> str:
    return ", ".join(f"{one.name} of {one.distribution} {one.version}" for one in extensions) or "none"
