"""`das io-worker`: a process that has the duties of the service (`app.duties`) and answers no request.

As many may run as one likes, and each may be killed at any moment: what it had begun another takes up.
"""

import asyncio
import logging
import signal

from app.duties import performing
from app.metrics.exposition import open_port
from app.metrics.meters import Meters
from app.service import running_service
from jobs.database import upgrade
from jobs.logs import configure_logging, refusals_told
from jobs.settings import Settings, get_settings

logger = logging.getLogger(__name__)


def main() -> int:
    """Perform the duties until SIGTERM or SIGINT; what is on its way then has a moment to come to its end.

    What it does is told on `DAS_METRICS_PORT`, where that is set.

    Raises:
        DasError: a setting can't be used, there is no index, or the port is taken.
    """
    settings = get_settings()
    configure_logging(settings)
    meters = Meters()
    with refusals_told(settings):
        settings.index_directories()
        upgrade(settings)
        open_port(settings, meters.registry)
        asyncio.run(_perform(settings, meters))
    return 0


async def _perform(settings: Settings, meters: Meters) -> None:
    ending = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ending.set)
    async with running_service(settings, meters) as service, performing(service, here=True) as duties:
        logger.info("ready; its duties are %s", ", ".join(duties))
        await ending.wait()
