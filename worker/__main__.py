"""`python -m worker`: one worker with the settings of the environment. `das serve` starts it in this way."""

import gc
import logging
import os
import sys
from pathlib import Path
from typing import NoReturn

from das.device import check_device
from das.errors import DasError
from jobs.broker import celery_broker_url, check_url
from jobs.database import upgrade
from jobs.logs import configure_logging, refusals_told
from jobs.process import REFUSED
from jobs.settings import Settings, get_settings
from jobs.tracing import check_tracing
from worker.app import bury, new_worker_id, run
from worker.keeper import Keeper, end_process

log = logging.getLogger(__name__)

# How OpenMP's threads wait for each other: asleep. By default they spin for a while, which on busy cores keeps the
# thread that is waited for from its core (docs/decisions/0040).
WAIT_POLICY = {"OMP_WAIT_POLICY": "PASSIVE"}


def main(model_dir: Path | None = None) -> NoReturn:
    """Run a worker until it is told to end, and another where one dies; then end the process.

    Args:
        model_dir: instead of the setting's.

    Raises:
        DasError: a setting can't be used, or nothing says where the broker is.
    """
    # Before torch is imported, whose OpenMP reads it then. Who has set it means it.
    os.environ.update(WAIT_POLICY | os.environ)
    from worker.engine import AttributionEngine, import_ahead

    settings = get_settings()
    if model_dir is not None:
        settings = settings.model_copy(update={"model_dir": model_dir.resolve()})
    configure_logging(settings)
    with refusals_told(settings):
        _check(settings)
    name = new_worker_id()

    def work(number: int) -> int:
        if number:
            bury(settings, f"{name}-{number - 1}")
        return run(settings, AttributionEngine, f"{name}-{number}")

    import_ahead(settings)
    # What was imported stays for good. Not looked at by garbage collection, its pages stay shared by all forks.
    gc.collect()
    gc.freeze()
    end_process(Keeper(work).run())


def _check(settings: Settings) -> None:
    """Find what would keep every worker from working before one is started."""
    check_device(settings.device)
    check_tracing()
    celery_broker_url(settings)
    if settings.redis_url is not None:
        check_url(settings)
    settings.index_directories()
    upgrade(settings)


if __name__ == "__main__":
    try:
        main()
    except DasError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(REFUSED)
