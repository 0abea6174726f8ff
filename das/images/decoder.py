"""The decoder process: reads files from its standard input, a socket, and answers with pixels.

It limits its own memory before the first file, writes no file, and ends when the service closes the
connection. The parent kills it when a file takes too long; should the parent be gone, an alarm does.
"""

import os
import signal
import socket

from PIL import AvifImagePlugin, Image

from das.confined import limit_resources
from das.errors import ImageRefused
from das.images.declared.credentials import carries_manifest, with_credentials
from das.images.normalise import ImageLimits, decode
from das.images.wire import receive_frame, send_frame
from das.rights.files import signal_of

# The parent's own limit comes first; the alarm is for an orphan in an endless loop of C code.
_ALARM_AFTER_TIMEOUT_S = 1.0


def serve(limits: ImageLimits, timeout_s: float, memory_bytes: int) -> None:
    """Answer requests until the connection closes. Runs in a process of its own."""
    # Standard input, so that no other descriptor has to survive the exec.
    with socket.socket(fileno=0) as connection:
        limit_resources(memory_bytes)
        Image.MAX_IMAGE_PIXELS = limits.max_pixels
        # One thread per picture: the pool has a process per core, and each thread costs address space.
        AvifImagePlugin.DEFAULT_MAX_THREADS = 1
        _silence_standard_error()
        send_frame(connection, {"ready": True}, b"", None)
        while (request := receive_frame(connection, limits.max_bytes, None)) is not None:
            header, data = request
            # No handler: the kernel ends the process, even in C code that never comes back to Python.
            signal.setitimer(signal.ITIMER_REAL, timeout_s + _ALARM_AFTER_TIMEOUT_S)
            if header.get("signals") is True:
                send_frame(connection, {"tdm": signal_of(bytes(data), str(header["format"]))}, b"", None)
            else:
                _answer(connection, bytes(data), str(header["format"]), limits)
            signal.setitimer(signal.ITIMER_REAL, 0)


def _answer(connection: socket.socket, data: bytes, format: str, limits: ImageLimits) -> None:
    try:
        pixels, steps, declared = decode(data, format, limits)
    except ImageRefused as refusal:
        send_frame(connection, {"code": refusal.code, "message": str(refusal)}, b"", None)
        return
    more = carries_manifest(data)
    header = {
        "height": pixels.shape[0],
        "width": pixels.shape[1],
        "steps": steps,
        "declared": None if declared is None else declared.as_json(),
        "more": more,
    }
    send_frame(connection, header, pixels.data.cast("B"), None)
    if more:
        # After the pixels are away: should the library that reads manifests die of this one, they are kept.
        found = with_credentials(declared, data, format)
        send_frame(connection, {"declared": None if found is None else found.as_json()}, b"", None)


def _silence_standard_error() -> None:
    """libtiff writes its complaints about hostile files there; the parent logs how a process ended."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    os.close(null)
