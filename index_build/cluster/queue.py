"""The queue of shards: Celery on the broker that the service uses too, with a queue of its own."""

from typing import Any

import redis
from celery import Celery
from kombu.exceptions import OperationalError

from jobs.broker import celery_broker_url, connect
from jobs.errors import BrokerError
from jobs.queue import transport_options
from jobs.settings import Settings

QUEUE = "build"
TASK = "das.build.shard"


def create_app(settings: Settings) -> Celery:
    """The Celery app of both ends.

    Raises:
        BrokerError: nothing says where the broker is.
    """
    app = Celery("das-build", broker=celery_broker_url(settings), set_as_current=False)
    app.conf.update(celery_settings(settings))
    return app


def celery_settings(settings: Settings) -> dict[str, Any]:
    """Celery's configuration, each setting with its reason."""
    return {
        "broker_transport_options": transport_options(settings),
        "task_default_queue": QUEUE,
        # Messages are a place and a number; nothing but JSON is ever read.
        "task_serializer": "json",
        "accept_content": ["json"],
        # What a shard gave lies in the place that the message names.
        "result_backend": None,
        "task_ignore_result": True,
        # The model lives in the process that computes; whoever kills that kills the worker, and the build asks again.
        "worker_pool": "solo",
        # A shard is off the queue when it is begun. Who was lost with it is told by its claim, within seconds; Redis
        # would hand it out again after an hour.
        "task_acks_late": False,
        "worker_prefetch_multiplier": 1,
        "broker_connection_retry_on_startup": True,
        "broker_connection_retry": True,
        "broker_connection_max_retries": None,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "worker_enable_remote_control": False,
        "worker_send_task_events": False,
        "worker_redirect_stdouts": False,
    }


class ShardQueue:
    """The end that asks for shards."""

    def __init__(self, settings: Settings) -> None:
        """Raises BrokerError where nothing says where the broker is."""
        self._settings = settings
        self._app = create_app(settings)

    def ask(self, exchange: str, shards: list[int]) -> bool:
        """Ask for shards; False if the broker can't be reached now."""
        try:
            for shard in shards:
                self._app.send_task(
                    TASK, args=[exchange, shard], queue=QUEUE, ignore_result=True, retry=False
                )
        except (OperationalError, redis.RedisError, OSError, BrokerError):
            return False
        return True

    def waiting(self) -> int | None:
        """How many shards, of any build, nobody has begun; None if the broker can't be asked."""
        try:
            client = connect(self._settings)
            try:
                return int(client.llen(QUEUE))
            finally:
                client.close()
        except (BrokerError, redis.RedisError, OSError):
            return None

    def close(self) -> None:
        """Close the connections."""
        self._app.close()
