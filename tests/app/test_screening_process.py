"""CLIP in a process of its own: the library's numbers, no torch in the API, and a death that costs one picture."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from app.catalogue import ServedIndex
from app.clip import NICENESS
from app.screening import Nearest, Screener, ScreeningError
from das.index import AttributionIndex
from das.screening import Embedder, Screen

PICTURE = np.random.default_rng(3).integers(0, 256, (40, 24, 3), dtype=np.uint8)
PATIENCE_S = 120.0


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def served(tiny_index: Path) -> ServedIndex:
    return ServedIndex(tiny_index, AttributionIndex.open(tiny_index))


@pytest.fixture(scope="module")
def screener(served: ServedIndex) -> Iterator[Screener]:
    screener = Screener([served])
    screener.start()
    until(lambda: screener.status(served.id) == "ready")
    yield screener
    screener.close()


def ask(screener: Screener, index_id: str) -> Nearest:
    return asyncio.run(screener.nearest(index_id, PICTURE, 5))


def test_it_tells_what_the_library_tells(screener: Screener, served: ServedIndex) -> None:
    found = ask(screener, served.id)
    rows, similarities = Screen.open(served.directory).nearest(
        Embedder.load(served.index.clip).embed([PICTURE])[0], 5
    )
    assert found.work_ids == [served.index.works.id_of(int(row)) for row in rows]
    assert found.similarities == pytest.approx(similarities.tolist(), abs=1e-6)


def test_it_gives_way_to_the_api(screener: Screener) -> None:
    assert screener.pid is not None
    assert psutil.Process(screener.pid).nice() == min(19, os.nice(0) + NICENESS)


def test_one_that_died_idle_is_started_again_for_the_next(screener: Screener, served: ServedIndex) -> None:
    before = ask(screener, served.id)
    assert screener.pid is not None
    os.kill(screener.pid, signal.SIGKILL)
    until(lambda: screener.pid is None)
    assert ask(screener, served.id) == before
    assert screener.status(served.id) == "ready"


def test_one_that_dies_on_a_picture_costs_that_picture(
    screener: Screener, served: ServedIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = ask(screener, served.id)
    killed = screener.pid
    assert killed is not None
    process = psutil.Process(killed)
    # Stopped, it can't answer before it is killed.
    process.suspend()
    connection, asked = screener._process, threading.Event()
    assert connection is not None
    hear = connection.hear
    monkeypatch.setattr(connection, "hear", lambda seconds: asked.set() or hear(seconds))

    async def ask_and_kill() -> None:
        asking = asyncio.ensure_future(screener.nearest(served.id, PICTURE, 5))
        assert await asyncio.to_thread(asked.wait, PATIENCE_S)
        process.kill()
        await asking

    with pytest.raises(ScreeningError, match="the screening of this picture failed"):
        asyncio.run(ask_and_kill())
    assert ask(screener, served.id) == before
    assert screener.pid not in (None, killed)


def test_one_that_hangs_is_killed(
    screener: Screener, served: ServedIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = ask(screener, served.id)
    hanging = screener.pid
    assert hanging is not None
    psutil.Process(hanging).suspend()
    monkeypatch.setattr("app.screening.ANSWER_SECONDS", 0.3)
    with pytest.raises(ScreeningError):
        ask(screener, served.id)
    monkeypatch.undo()
    assert not psutil.pid_exists(hanging)
    assert ask(screener, served.id) == before


def test_an_index_without_its_clip_is_failed_with_the_reason(tiny_index: Path, tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    gone = ServedIndex(tmp_path / "gone", AttributionIndex.open(tiny_index))
    screener = Screener([gone])
    screener.start()
    until(lambda: screener.status(gone.id) == "failed")
    assert "manifest.json" in (screener.failure(gone.id) or "")
    with pytest.raises(ScreeningError, match=r"manifest\.json"):
        ask(screener, gone.id)
    screener.close()


def test_it_ends_with_the_service_also_while_it_loads(served: ServedIndex) -> None:
    screener = Screener([served])
    screener.start()
    until(lambda: screener.pid)
    pid = screener.pid
    assert pid is not None
    # Stopped, it would load for ever.
    psutil.Process(pid).suspend()
    screener.close()
    assert not psutil.pid_exists(pid)


def test_the_api_imports_no_torch_also_when_it_tells_look_alikes(tiny_index: Path, tmp_path: Path) -> None:
    script = """
import asyncio, sys, time
import numpy as np
from starlette.testclient import TestClient
from app.main import create_app
from jobs.database import upgrade
from jobs.settings import Settings
settings = Settings(_env_file=None, data_dir=sys.argv[1], index_dir=sys.argv[2])
upgrade(settings)
with TestClient(create_app(settings)) as client:
    screener = client.app.state.service.screener
    (index_id,) = [served.id for served in client.app.state.service.catalogue]
    found = asyncio.run(screener.nearest(index_id, np.zeros((16, 16, 3), np.uint8), 3))
    print(len(found.work_ids), [m for m in ("torch", "open_clip", "faiss") if m in sys.modules])
"""
    shown = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "data"), str(tiny_index)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout.splitlines()[-1] == "3 []"
