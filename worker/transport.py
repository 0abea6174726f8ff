"""How a worker listens to its broker: Celery's Redis transport, with two faults mended and more haste.

The first fault: when the broker goes away while a task runs, acknowledging it fails. kombu (5.7) logs that and goes
on counting the message as being worked on. With a prefetch count of 1 the worker then never asks for another, and
since it asks for nothing it doesn't notice that its connection is gone either.

The second: it asks for messages while its child still loads. A bell that it is given then waits until that is done,
while another worker would have heard it at once. And what it has asked for goes on for a second after its child has
died: a bell that comes then was lost, or waited for the next child.
"""

from collections.abc import Callable
from typing import Any

import redis
from celery.app.amqp import AMQP
from kombu.connection import Connection
from kombu.transport import TRANSPORT_ALIASES, virtual
from kombu.transport import redis as redis_transport


class WorkersQoS(redis_transport.QoS):
    """Forgets a message whose acknowledgement failed, as if it had been delivered to nobody.

    The broker still has that one as unacknowledged and delivers it again one day. That is a bell too many, which is
    harmless. The next thing the worker does is to ask for a message: that fails, and it connects anew.
    """

    def ack(self, delivery_tag: str) -> None:
        try:
            super().ack(delivery_tag)  # type: ignore[no-untyped-call]
        except (redis.RedisError, OSError):
            virtual.QoS.ack(self, delivery_tag)  # type: ignore[no-untyped-call]
            raise


class Channel(redis_transport.Channel):
    """Asks for no message that nobody would take up, and puts one back that was asked for when somebody would."""

    QoS = WorkersQoS
    # Whether a message would be taken up; asked at each turn of the event loop. None: always.
    hears: Callable[[], bool] | None = None

    def _brpop_start(self, timeout: float | None = None) -> None:
        if self.hears is None or self.hears():
            super()._brpop_start(timeout)  # type: ignore[no-untyped-call]

    def basic_consume(
        self, queue: str, no_ack: bool, callback: Callable[[Any], Any], consumer_tag: str, **options: Any
    ) -> Any:
        def take_up(message: Any) -> None:
            if self.hears is None or self.hears():
                callback(message)
            else:
                message.requeue()

        return super().basic_consume(queue, no_ack, take_up, consumer_tag, **options)  # type: ignore[no-untyped-call]


class Transport(redis_transport.Transport):
    Channel = Channel


class HastyConnection(Connection):
    """Tries again to connect after half a second, then at most every two.

    kombu waits 2, 4, 6 and up to 30 s, which is right for a crowd of workers and a broker far away. An attempt on
    ours costs a millisecond, and somebody waits for an answer.
    """

    def _ensure_connection(self, *arguments: Any, **options: Any) -> Any:
        hasty = {"interval_start": 0.5, "interval_step": 0.5, "interval_max": 2.0}
        return super()._ensure_connection(  # type: ignore[no-untyped-call]
            *arguments, **{**hasty, **options}
        )


class HastyAmqp(AMQP):  # type: ignore[misc]
    """Celery's messaging, over `HastyConnection`."""

    Connection = HastyConnection


def use_for_redis_urls() -> None:
    """Let every connection of this process that is made from now on take this transport for Redis URLs."""
    name = f"{__name__}:{Transport.__name__}"
    TRANSPORT_ALIASES.update({"redis": name, "rediss": name})
