"""Decode untrusted files in processes that may die, so that the service doesn't."""

import contextlib
import hashlib
import json
import logging
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import asdict
from typing import Any

import numpy as np

from das.confined import MODULE_PATH, bare_environment
from das.errors import DasError, ImageRefused
from das.images.declared import Declared, declared_from
from das.images.normalise import (
    DEFAULT_LIMITS,
    Decoded,
    ImageLimits,
    NormalisedImage,
    check_before_decoding,
)
from das.images.wire import BrokenFrameError, receive_frame, send_frame
from das.rights.values import VALUES

_log = logging.getLogger(__name__)

# A cold start takes 0.3 s on an idle machine; this is for one that is starting everything at once.
_START_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 1.0
_SOCKET_BUFFER_BYTES = 1 << 20

# The measured peak of the address space is 1.03 GiB, for a WebP of 40 megapixels with alpha.
DEFAULT_MEMORY_BYTES = 1536 << 20

_BOOTSTRAP = (
    "import json, sys; arguments = json.loads(sys.argv[1]); sys.path[:] = arguments['path']; "
    "from das.images.decoder import serve; from das.images.normalise import ImageLimits; "
    "serve(ImageLimits(**arguments['limits']), arguments['timeout_s'], arguments['memory_bytes'])"
)


class IsolatedNormaliser:
    """`normalise` in a small pool of decoder processes with limits on time and memory.

    The processes are started at once and used again for every picture. One that dies or takes too long is
    killed and replaced, and only the picture it was decoding is refused: no picture holds a process for longer
    than `timeout_s`, and no caller waits longer than that for one. Safe to use from many threads.
    Close it, or use it as a context manager; processes also end by themselves when their parent does.
    """

    def __init__(
        self,
        limits: ImageLimits = DEFAULT_LIMITS,
        *,
        processes: int = 2,
        timeout_s: float = 10.0,
        memory_bytes: int = DEFAULT_MEMORY_BYTES,
    ) -> None:
        """`timeout_s` is for one picture; `memory_bytes` bounds the address space of each process."""
        self._limits = limits
        self._timeout_s = timeout_s
        self._memory_bytes = memory_bytes
        self._lock = threading.Lock()
        self._closed = False
        self._idle: queue.LifoQueue[_Decoder] = queue.LifoQueue()
        self._decoders: set[_Decoder] = set()
        for _ in range(processes):
            self._add_decoder()

    def normalise(self, data: bytes) -> NormalisedImage:
        """As `das.images.normalise`, with the same refusals.

        Raises `ImageRefused` also with code "decoder-died" (the process crashed, or was out of memory),
        "decoder-timeout", and "decoder-busy" if no process became free in time.
        """
        format = check_before_decoding(data, self._limits)
        decoder = self._take()
        try:
            pixels, steps, declared = decoder.decode(data, format, self._limits, self._timeout_s)
        except _DecoderLostError as lost:
            _log.warning(
                "decoder process %d lost on a %s of %d bytes: %s", decoder.pid, format, len(data), lost
            )
            raise ImageRefused(lost.code, lost.message) from lost
        finally:
            self._give_back(decoder)
        return NormalisedImage(
            pixels=pixels,
            sha256=hashlib.sha256(data).hexdigest(),
            width=pixels.shape[1],
            height=pixels.shape[0],
            format=format,
            steps=steps,
            declared=declared,
        )

    def signal(self, data: bytes) -> str | None:
        """What a file says of text and data mining (`das.rights.values`); None where it says nothing."""
        format = check_before_decoding(data, self._limits)
        decoder = self._take()
        try:
            return decoder.signal(data, format, self._timeout_s)
        except _DecoderLostError as lost:
            _log.warning("decoder process %d lost on the signals of a %s: %s", decoder.pid, format, lost)
            return None
        finally:
            self._give_back(decoder)

    @property
    def process_ids(self) -> tuple[int, ...]:
        """The process ids of the decoders, busy and idle."""
        with self._lock:
            return tuple(sorted(decoder.pid for decoder in self._decoders))

    def close(self) -> None:
        """End all processes; a picture that is being decoded is refused as "decoder-died"."""
        with self._lock:
            self._closed = True
            decoders, self._decoders = self._decoders, set()
        for decoder in decoders:
            decoder.stop()

    def __enter__(self) -> "IsolatedNormaliser":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _take(self) -> "_Decoder":
        deadline = time.monotonic() + self._timeout_s
        while True:
            if self._closed:
                raise RuntimeError("this IsolatedNormaliser is closed")
            try:
                decoder = self._idle.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise ImageRefused(
                    "decoder-busy",
                    "Too many pictures are being read at this moment. Try again in a few seconds.",
                ) from None
            if decoder.is_alive():
                return decoder
            # It died while idle, so no picture is to blame: put a new one in its place.
            self._give_back(decoder)

    def _give_back(self, decoder: "_Decoder") -> None:
        if decoder.is_alive():
            self._idle.put(decoder)
            return
        decoder.stop()
        with self._lock:
            self._decoders.discard(decoder)
            if self._closed:
                return
        self._add_decoder()

    def _add_decoder(self) -> None:
        decoder = _Decoder(self._limits, self._timeout_s, self._memory_bytes)
        with self._lock:
            closed = self._closed
            if not closed:
                self._decoders.add(decoder)
        if closed:
            decoder.stop()
        else:
            self._idle.put(decoder)


class _DecoderLostError(Exception):
    """The process was killed or has died, and can't be used again."""

    def __init__(self, code: str, message: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.message = message


class _Decoder:
    """One decoder process and the connection to it, used by one thread at a time."""

    def __init__(self, limits: ImageLimits, timeout_s: float, memory_bytes: int) -> None:
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BUFFER_BYTES)
        arguments = {
            "path": MODULE_PATH,
            "limits": asdict(limits),
            "timeout_s": timeout_s,
            "memory_bytes": memory_bytes,
        }
        with theirs:
            # No preexec_fn and an exec at once: safe with threads. A session of its own keeps Ctrl-C away.
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-c", _BOOTSTRAP, json.dumps(arguments)],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                env=bare_environment(),
                start_new_session=True,
            )
        self._connection = ours
        self._ready = False
        self.pid = self._process.pid

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def decode(self, data: bytes, format: str, limits: ImageLimits, timeout_s: float) -> Decoded:
        """Raises `ImageRefused` from the decoder, or `_DecoderLostError` after killing it."""
        self._wait_until_ready()
        deadline = time.monotonic() + timeout_s
        try:
            send_frame(self._connection, {"format": format}, data, deadline)
            answer = receive_frame(self._connection, limits.max_pixels * 3, deadline)
            if answer is None:
                raise BrokenFrameError("the connection ended")
            decoded = _checked(*answer)
        except TimeoutError:
            self._kill()
            raise _DecoderLostError(
                "decoder-timeout",
                f"Decoding this picture took longer than {timeout_s:g} s and was stopped. Save it smaller, "
                "or in a plainer form (8-bit PNG or JPEG), and send that.",
                f"timeout after {timeout_s:g} s",
            ) from None
        except (BrokenFrameError, OSError) as error:
            self._kill()
            raise _DecoderLostError(
                "decoder-died",
                "Decoding this picture made the decoder crash: the file is damaged, needs too much memory, "
                "or is made to do harm. Open it in an image program and save it anew.",
                f"{error}; {self._ending()}",
            ) from error
        except ImageRefused as refusal:
            if refusal.code == "decoder-died":
                # Out of memory in the middle of C code: what that leaves behind isn't trusted.
                self._kill()
            raise
        except BaseException:
            # Whatever it was, half a frame may be under way.
            self._kill()
            raise
        if answer[0].get("more") is not True:
            return decoded
        return decoded._replace(declared=self._credentials(decoded.declared, deadline))

    def _credentials(self, known: Declared | None, deadline: float) -> Declared | None:
        """What the manifest adds to what is known; without it where reading it ends the process."""
        try:
            answer = receive_frame(self._connection, 0, deadline)
            if answer is None:
                raise BrokenFrameError("the connection ended")
            return declared_from(answer[0].get("declared"))
        except (TimeoutError, BrokenFrameError, OSError, ValueError) as error:
            self._kill()
            _log.warning(
                "decoder process %d lost on a C2PA manifest: %s; %s", self.pid, error, self._ending()
            )
            return known
        except BaseException:
            self._kill()
            raise

    def signal(self, data: bytes, format: str, timeout_s: float) -> str | None:
        """Raises `_DecoderLostError` after killing it."""
        self._wait_until_ready()
        deadline = time.monotonic() + timeout_s
        try:
            send_frame(self._connection, {"format": format, "signals": True}, data, deadline)
            answer = receive_frame(self._connection, 0, deadline)
            if answer is None:
                raise BrokenFrameError("the connection ended")
        except (TimeoutError, BrokenFrameError, OSError) as error:
            self._kill()
            raise _DecoderLostError("decoder-died", "", f"{error}; {self._ending()}") from error
        except BaseException:
            self._kill()
            raise
        found = answer[0].get("tdm")
        return found if isinstance(found, str) and found in VALUES else None

    def stop(self) -> None:
        """Close the connection, which ends an idle process, and make sure of it."""
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        try:
            self._process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._kill()
        self._connection.close()

    def _wait_until_ready(self) -> None:
        if self._ready:
            return
        try:
            greeting = receive_frame(self._connection, 0, time.monotonic() + _START_TIMEOUT_S)
        except (BrokenFrameError, OSError):
            greeting = None
        if greeting is None:
            self._kill()
            raise DasError(
                f"The process that decodes pictures could not be started ({self._ending()}). Its own message "
                "is on standard error."
            )
        self._ready = True

    def _kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def _ending(self) -> str:
        code = self._process.returncode
        if code is not None and code < 0:
            return f"ended by {signal.Signals(-code).name}"
        return f"exit status {code}"


def _checked(header: dict[str, Any], payload: bytearray) -> Decoded:
    """What a decoder answered, if it is of the right form. Raises `BrokenFrameError` or `ImageRefused`."""
    match header:
        case {"code": str(code), "message": str(message)}:
            raise ImageRefused(code, message)
        case {"height": int(height), "width": int(width), "steps": [*steps]}:
            if height < 1 or width < 1 or height * width * 3 != len(payload):
                raise BrokenFrameError(f"{len(payload)} bytes aren't a picture of {width} × {height}")
            if not all(isinstance(step, str) for step in steps):
                raise BrokenFrameError("the steps aren't words")
            try:
                declared = declared_from(header.get("declared"))
            except ValueError as error:
                raise BrokenFrameError(str(error)) from error
            pixels = np.frombuffer(payload, np.uint8).reshape(height, width, 3)
            return Decoded(pixels, tuple(steps), declared)
    raise BrokenFrameError("the header is none of a decoder's")
