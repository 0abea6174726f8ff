"""`IsolatedNormaliser` with real processes that are really killed, starved and stopped."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from unittest import mock

import numpy as np
import psutil
import pytest
from image_files import DISPLAY_P3, rgb_profile, saved

from das.errors import DasError, ImageRefused
from das.images import ImageLimits, IsolatedNormaliser, encode_png, isolated, normalise
from das.images.wire import BrokenFrameError, receive_frame, send_frame

SMALL = encode_png(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8))

# 36 megapixels of RGBA: 3 MB of file, 144 MB of memory and more than a second of decoding.
LARGE = saved(np.zeros((6000, 6000, 4), np.uint8), "PNG", compress_level=1)

# Enough for the interpreter, NumPy and a small picture, not for LARGE.
LITTLE_MEMORY = 320 << 20


@pytest.fixture(scope="module")
def shared() -> Iterator[IsolatedNormaliser]:
    with IsolatedNormaliser() as normaliser:
        yield normaliser


def wait_until(condition: Callable[[], bool], seconds: float = 90.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def children() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


def hurried(seconds: float) -> AbstractContextManager[object]:
    """For the length of a block each picture has so long, and not what it takes a decoder to start."""
    decode = isolated._Decoder.decode
    return mock.patch.object(
        isolated._Decoder,
        "decode",
        lambda decoder, data, format, limits, _: decode(decoder, data, format, limits, seconds),
    )


def refused_in_thread(normaliser: IsolatedNormaliser, data: bytes) -> tuple[threading.Thread, list[str]]:
    codes: list[str] = []

    def ask() -> None:
        try:
            normaliser.normalise(data)
        except ImageRefused as refusal:
            codes.append(refusal.code)

    thread = threading.Thread(target=ask)
    thread.start()
    return thread, codes


# --- the same answers ---


def test_the_answer_is_that_of_the_same_process(shared):
    pixels = np.random.default_rng(1).integers(0, 256, (24, 40, 4), dtype=np.uint8)
    data = saved(pixels, "PNG", icc_profile=rgb_profile(DISPLAY_P3))

    apart, here = shared.normalise(data), normalise(data)

    np.testing.assert_array_equal(apart.pixels, here.pixels)
    assert (apart.sha256, apart.width, apart.height, apart.format, apart.steps) == (
        (here.sha256, here.width, here.height, here.format, here.steps)
    )
    assert apart.steps == ("icc", "alpha")
    apart.pixels[0, 0] = 0  # writable, as PyTorch wants it


@pytest.mark.parametrize(
    "data", [b"", b"<svg/>", b"text", SMALL[:600], encode_png(np.zeros((4, 4, 3), np.uint8))]
)
def test_the_refusal_is_that_of_the_same_process(shared, data):
    with pytest.raises(ImageRefused) as here:
        normalise(data)
    with pytest.raises(ImageRefused) as apart:
        shared.normalise(data)

    assert (apart.value.code, str(apart.value)) == (here.value.code, str(here.value))


def test_libtiffs_complaints_about_a_damaged_file_are_not_printed(shared, capfd):
    damaged = bytearray(saved(np.zeros((32, 32, 3), np.uint8), "TIFF", compression="tiff_lzw"))
    damaged[8:20] = b"\xff" * 12

    with pytest.raises(ImageRefused) as caught:
        shared.normalise(bytes(damaged))

    assert caught.value.code == "damaged"
    assert capfd.readouterr() == ("", "")


def test_its_limits_are_those_it_was_given():
    with IsolatedNormaliser(ImageLimits(max_pixels=1000, max_bytes=5000), processes=1) as normaliser:
        with pytest.raises(ImageRefused) as pixels:
            normaliser.normalise(SMALL)
        with pytest.raises(ImageRefused) as size:
            normaliser.normalise(SMALL + bytes(5000))

    assert (pixels.value.code, size.value.code) == ("too-many-pixels", "too-large")


def test_processes_are_kept_from_picture_to_picture(shared):
    shared.normalise(SMALL)
    before = shared.process_ids
    for _ in range(20):
        shared.normalise(SMALL)
    assert shared.process_ids == before


def test_many_threads_each_get_their_own_picture(shared):
    pictures = [np.full((40, 40, 3), value, np.uint8) for value in range(60)]

    with ThreadPoolExecutor(8) as threads:
        results = list(threads.map(lambda pixels: shared.normalise(encode_png(pixels)).pixels, pictures))

    for expected, result in zip(pictures, results, strict=True):
        np.testing.assert_array_equal(result, expected)


# --- death, time, memory ---


def test_a_decoder_killed_in_the_middle_of_a_picture_is_replaced():
    with IsolatedNormaliser(processes=1) as normaliser:
        normaliser.normalise(SMALL)
        (pid,) = normaliser.process_ids
        idle = psutil.Process(pid).memory_info().rss

        thread, codes = refused_in_thread(normaliser, LARGE)
        wait_until(lambda: psutil.Process(pid).memory_info().rss > idle + 40_000_000)
        os.kill(pid, signal.SIGKILL)
        thread.join(90)

        assert codes == ["decoder-died"]
        assert normaliser.normalise(SMALL).width == 32
        assert pid not in normaliser.process_ids
        assert not psutil.pid_exists(pid)  # reaped, no zombie


def test_a_decoder_that_died_while_idle_is_replaced_and_nobody_is_refused():
    with IsolatedNormaliser(processes=2) as normaliser:
        normaliser.normalise(SMALL)
        for pid in normaliser.process_ids:
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda pid=pid: is_gone(pid))

        assert normaliser.normalise(SMALL).width == 32


def test_a_picture_that_takes_too_long_is_stopped():
    with IsolatedNormaliser(processes=1, timeout_s=60) as normaliser:
        normaliser.normalise(SMALL)
        (pid,) = normaliser.process_ids
        with hurried(0.03), pytest.raises(ImageRefused) as caught:
            normaliser.normalise(LARGE)

        assert caught.value.code == "decoder-timeout"
        assert "0.03 s" in str(caught.value)
        assert not psutil.pid_exists(pid)
        assert normaliser.normalise(SMALL).width == 32


def test_a_decoder_that_hangs_for_ever_is_stopped():
    with IsolatedNormaliser(processes=1, timeout_s=60) as normaliser:
        normaliser.normalise(SMALL)
        (pid,) = normaliser.process_ids
        os.kill(pid, signal.SIGSTOP)

        with hurried(0.3), pytest.raises(ImageRefused) as caught:
            normaliser.normalise(SMALL)

        assert caught.value.code == "decoder-timeout"
        assert not psutil.pid_exists(pid)


def test_a_picture_that_needs_too_much_memory_is_refused():
    with IsolatedNormaliser(processes=1, memory_bytes=LITTLE_MEMORY) as normaliser:
        assert normaliser.normalise(SMALL).width == 32
        with pytest.raises(ImageRefused) as caught:
            normaliser.normalise(LARGE)

        assert caught.value.code == "decoder-died"
        assert "memory" in str(caught.value)
        assert normaliser.normalise(SMALL).width == 32


def test_when_all_are_busy_the_wait_has_an_end():
    with IsolatedNormaliser(processes=1, timeout_s=60) as normaliser:
        normaliser.normalise(SMALL)
        (pid,) = normaliser.process_ids
        os.kill(pid, signal.SIGSTOP)
        normaliser._timeout_s = 0.4
        threads = [refused_in_thread(normaliser, SMALL) for _ in range(4)]
        for thread, _ in threads:
            thread.join(90)

    codes = [code for _, found in threads for code in found]
    assert "decoder-timeout" in codes
    assert set(codes) <= {"decoder-timeout", "decoder-busy"}


def test_others_are_served_while_one_picture_takes_its_time():
    with IsolatedNormaliser(processes=2, timeout_s=10) as normaliser:
        with ThreadPoolExecutor(2) as threads:
            list(threads.map(normaliser.normalise, [SMALL, SMALL]))  # both have started
        stopped, resumed = normaliser.process_ids
        os.kill(stopped, signal.SIGSTOP)
        os.kill(resumed, signal.SIGSTOP)
        slow = [refused_in_thread(normaliser, SMALL) for _ in range(2)]
        wait_until(normaliser._idle.empty)  # each thread has its decoder: neither can slip past the other
        os.kill(resumed, signal.SIGCONT)
        wait_until(lambda: sum(not thread.is_alive() for thread, _ in slow) == 1)

        for _ in range(10):
            normaliser.normalise(SMALL)
        assert sum(thread.is_alive() for thread, _ in slow) == 1
        for thread, _ in slow:
            thread.join(90)

    assert sorted(code for _, codes in slow for code in codes) == ["decoder-timeout"]


def test_a_decoder_that_cannot_start_says_so(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with (
        IsolatedNormaliser(processes=1) as normaliser,
        pytest.raises(DasError, match="could not be started"),
    ):
        normaliser.normalise(SMALL)


# --- what the processes are allowed, and how they end ---


def test_the_limits_are_set_and_no_secret_is_handed_on(monkeypatch):
    monkeypatch.setenv("DAS_DATABASE_URL", "postgresql://user:secret@host/das")
    with IsolatedNormaliser(processes=1) as normaliser:
        normaliser.normalise(SMALL)
        process = psutil.Process(normaliser.process_ids[0])

        assert process.rlimit(psutil.RLIMIT_AS)[1] == 1536 << 20
        assert process.rlimit(psutil.RLIMIT_DATA)[1] == 1536 << 20
        assert process.rlimit(psutil.RLIMIT_CORE) == (0, 0)
        assert process.rlimit(psutil.RLIMIT_FSIZE) == (0, 0)
        assert not [name for name in process.environ() if name.startswith("DAS_")]


def test_close_leaves_no_process_behind():
    before = set(children())
    normaliser = IsolatedNormaliser(processes=2)
    normaliser.normalise(SMALL)
    pids = normaliser.process_ids
    assert len(pids) == 2

    normaliser.close()
    normaliser.close()

    assert set(children()) == before
    assert not any(psutil.pid_exists(pid) for pid in pids)
    with pytest.raises(RuntimeError, match="closed"):
        normaliser.normalise(SMALL)


def test_close_in_the_middle_of_a_picture_refuses_it():
    normaliser = IsolatedNormaliser(processes=1)
    normaliser.normalise(SMALL)
    (pid,) = normaliser.process_ids
    idle = psutil.Process(pid).memory_info().rss
    thread, codes = refused_in_thread(normaliser, LARGE)
    wait_until(lambda: psutil.Process(pid).memory_info().rss > idle + 40_000_000)

    normaliser.close()
    thread.join(90)

    assert codes == ["decoder-died"]
    assert not psutil.pid_exists(pid)


def test_when_the_parent_is_killed_the_processes_end():
    code = (
        "import sys, time; from das.images import IsolatedNormaliser; n = IsolatedNormaliser(); "
        f"n.normalise(bytes.fromhex('{SMALL.hex()}')); print(*n.process_ids, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(pids) == 2
        parent.kill()

    for pid in pids:
        wait_until(lambda pid=pid: is_gone(pid))


def test_an_endless_loop_in_c_code_is_ended_by_the_alarm_when_no_parent_is_left_to_do_it():
    code = (
        "import collections, itertools; from das.images import ImageLimits, decoder; "
        "decoder.decode = lambda *_: collections.deque(itertools.repeat(0), maxlen=0); "
        "decoder.serve(ImageLimits(), 0.1, 1 << 30)"
    )
    here, there = socket.socketpair()
    with here:
        with there:
            process = subprocess.Popen([sys.executable, "-c", code], stdin=there.fileno())
        assert receive_frame(here, 0, time.monotonic() + 60) == ({"ready": True}, b"")
        send_frame(here, {"format": "PNG"}, SMALL, None)

        assert process.wait(20) == -signal.SIGALRM


# --- what a decoder that was taken over could say ---


@pytest.mark.parametrize(
    "sent",
    [
        b"\0\0\0\x02" + (1 << 40).to_bytes(8, "big") + b"{}",
        b"\xff\xff\xff\xff" + bytes(8),
        b"\0\0\0\x02" + bytes(8) + b"[]",
        b"\0\0\0\x02" + bytes(8) + b"\xff{",
        b"\0\0\0\x02\0\0",
        b"\0\0\0\x02" + (9).to_bytes(8, "big") + b"{}short",
    ],
)
def test_a_broken_frame_is_recognised(sent):
    here, there = socket.socketpair()
    with here:
        with there:
            there.sendall(sent)
        with pytest.raises(BrokenFrameError):
            receive_frame(here, 1000, time.monotonic() + 5)


def test_frames_arrive_whole_and_their_end_is_seen():
    here, there = socket.socketpair()
    with here:
        with there:
            send_frame(there, {"a": 1}, b"xyz", None)
        assert receive_frame(here, 3, None) == ({"a": 1}, b"xyz")
        assert receive_frame(here, 3, None) is None
