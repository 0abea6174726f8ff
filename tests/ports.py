"""Ports for servers that can't choose one themselves and tell it."""

import itertools
import socket
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
# Somebody else is quicker once in a while, and not this often.
TRIES = 10


class PortTakenError(Exception):
    """A server ended, or found its port taken, before it answered on it."""


def free_port() -> int:
    """One that nobody has at the moment."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def on_a_free_port(start: Callable[[int], T]) -> T:
    """What `start` returns for a port; where it raises `PortTakenError`, as another took it, for the next one."""
    for tried in itertools.count(1):
        try:
            return start(free_port())
        except PortTakenError:
            if tried == TRIES:
                raise
    raise AssertionError
