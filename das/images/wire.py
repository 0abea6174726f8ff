"""Frames between the service and its decoder processes: a JSON header and raw bytes.

Nothing is pickled: the decoder reads hostile files, so what it says is checked like any other input.
"""

import json
import socket
import struct
import time
from typing import Any

_PREFIX = struct.Struct("!IQ")  # bytes of the header, bytes of the payload
# Two prompts of 4,000 characters of four bytes, twenty LoRAs, and what else is declared.
_MAX_HEADER_BYTES = 131_072


class BrokenFrameError(Exception):
    """The other side closed the connection in the middle of a frame, or sent something that is none."""


def send_frame(
    connection: socket.socket, header: dict[str, Any], payload: bytes | memoryview, deadline: float | None
) -> None:
    """Send one frame. Raises TimeoutError at `deadline` (`time.monotonic` seconds; None waits for ever)."""
    encoded = json.dumps(header, ensure_ascii=False).encode()
    _set_timeout(connection, deadline)
    connection.sendall(_PREFIX.pack(len(encoded), len(payload)) + encoded)
    _set_timeout(connection, deadline)
    connection.sendall(payload)


def receive_frame(
    connection: socket.socket, max_payload: int, deadline: float | None
) -> tuple[dict[str, Any], bytearray] | None:
    """One frame's header and payload; None if the other side has closed the connection before it.

    Raises TimeoutError at `deadline`, BrokenFrameError if what comes is no frame or its payload is longer
    than `max_payload`.
    """
    prefix = _receive(connection, _PREFIX.size, deadline, may_be_at_end=True)
    if not prefix:
        return None
    header_bytes, payload_bytes = _PREFIX.unpack(prefix)
    if header_bytes > _MAX_HEADER_BYTES or payload_bytes > max_payload:
        raise BrokenFrameError(f"a frame of {header_bytes} + {payload_bytes} bytes is longer than agreed")
    try:
        header = json.loads(_receive(connection, header_bytes, deadline))
    except ValueError as error:
        raise BrokenFrameError("the header isn't JSON") from error
    if not isinstance(header, dict):
        raise BrokenFrameError("the header isn't an object")
    return header, _receive(connection, payload_bytes, deadline)


def _receive(
    connection: socket.socket, count: int, deadline: float | None, may_be_at_end: bool = False
) -> bytearray:
    buffer = bytearray(count)
    view = memoryview(buffer)
    received = 0
    while received < count:
        _set_timeout(connection, deadline)
        step = connection.recv_into(view[received:])
        if step == 0:
            if received == 0 and may_be_at_end:
                return bytearray()
            raise BrokenFrameError(f"the connection ended after {received} of {count} bytes")
        received += step
    return buffer


def _set_timeout(connection: socket.socket, deadline: float | None) -> None:
    if deadline is None:
        connection.settimeout(None)
        return
    remaining = deadline - time.monotonic()
    if remaining <= 0:
        raise TimeoutError
    connection.settimeout(remaining)
