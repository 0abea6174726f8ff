"""The doorbell: tells the workers that a job waits. It carries the job's id and nothing else.

The queue library is known here and in `worker` only. The message names its task, so that whoever rings
imports nothing of the worker.
"""

import logging
import threading
from typing import Any

import redis
from celery import Celery
from kombu.exceptions import OperationalError

from jobs.broker import celery_broker_url, connect
from jobs.errors import BrokerError
from jobs.settings import Settings

log = logging.getLogger(__name__)

TASK = "das.drain"
QUEUE = "das"


def visibility_timeout(settings: Settings) -> int:
    """Seconds after which Redis hands a bell that was never acknowledged to another worker.

    A task that takes longer than this runs twice, so it is above twice the hard limit of one.
    """
    return int(2 * settings.hard_time_limit_seconds) + 60


def transport_options(settings: Settings) -> dict[str, Any]:
    """What Celery's Redis transport is told, on both ends."""
    return {
        "visibility_timeout": visibility_timeout(settings),
        # Without these two, writing to a broker that hangs instead of refusing blocks for ever.
        "socket_timeout": settings.broker_timeout_seconds,
        "socket_connect_timeout": settings.broker_timeout_seconds,
        # Connections that a restart of the broker has cut are noticed before they are used.
        "health_check_interval": 10,
    }


class Doorbell:
    """Rings over connections that stay open. May be shared by threads; not to be carried over a fork.

    Ringing blocks for about a millisecond, and for `broker_timeout_seconds` at most where the broker hangs:
    from an event loop, call it in a thread.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._app: Celery | None = None

    def ring(self, job_id: str, passed_on: int = 0) -> bool:
        """Tell the workers that this job waits. `passed_on` counts the workers that heard it and lack its index.

        False if the bell can't be heard now. The job is safe all the same: it is in the database, and the
        sweeper rings for it again.
        """
        try:
            self._connected().send_task(
                TASK,
                args=[job_id, passed_on] if passed_on else [job_id],
                queue=QUEUE,
                serializer="json",
                ignore_result=True,
                # A second try at once, on a new connection: the broker may have been restarted since the last bell.
                retry=True,
                retry_policy={"max_retries": 1, "interval_start": 0, "interval_step": 0},
            )
        except (OperationalError, redis.RedisError, OSError, BrokerError) as error:
            log.warning("the bell for %s was not heard and will be rung again: %s", job_id, error)
            return False
        return True

    def connect(self) -> bool:
        """Open a connection ahead of the first bell, which would otherwise take some 50 ms more."""
        try:
            with self._connected().producer_pool.acquire(block=True) as producer:
                producer.connection.ensure_connection(max_retries=1)
        except (OperationalError, redis.RedisError, OSError, BrokerError) as error:
            log.warning("the broker can't be reached yet: %s", error)
            return False
        return True

    def waiting(self) -> int | None:
        """How many bells no worker has taken yet; None if the broker can't be asked."""
        try:
            client = connect(self._settings)
        except BrokerError:
            return None
        try:
            return int(client.llen(QUEUE))
        except (redis.RedisError, OSError):
            return None
        finally:
            client.close()

    def close(self) -> None:
        """Close the connections."""
        with self._lock:
            if self._app is not None:
                self._app.close()
                self._app = None

    def _connected(self) -> Celery:
        with self._lock:
            if self._app is None:
                app = Celery("das", broker=celery_broker_url(self._settings), set_as_current=False)
                app.conf.broker_transport_options = transport_options(self._settings)
                app.conf.task_ignore_result = True
                self._app = app
            return self._app
