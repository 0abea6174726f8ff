"""A real `das serve` with its own worker and broker, and a real Chromium that looks at it."""

import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2 as httpx
import psutil
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright
from sqlalchemy import update

from jobs.database import Database
from jobs.models import WorkerBeat, utc_now
from jobs.settings import Settings

DAS = Path(sys.executable).with_name("das")
START_S = 240
STOP_S = 60
PATIENCE_MS = 60_000
# Playwright's own is five seconds, in which a busy machine may not have come to it.
expect.set_options(timeout=PATIENCE_MS)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)


class Site:
    """A running `das serve`."""

    def __init__(self, folder: Path, index: Path, samples: Path, **settings: str) -> None:
        self.log = folder / "log"
        self.environment = {
            **os.environ,
            "DAS_DATA_DIR": str(folder / "data"),
            "DAS_INDEX_DIR": str(index),
            "DAS_SAMPLES_DIR": str(samples),
            "DAS_TORCH_THREADS": "1",
            "DAS_PORT": "0",
            "NO_COLOR": "1",
            **settings,
        }
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [str(DAS), "serve"], env=self.environment, stdout=log, stderr=log, start_new_session=True
            )
        self.url = self._wait_for(r"Open (http://\S+)")
        self.wait_until_ready()

    def wait_until_ready(self) -> dict[str, Any]:
        """Return the checks of /readyz once all of them are well."""
        deadline = time.monotonic() + START_S
        while True:
            told: dict[str, Any] = httpx.get(self.url + "/readyz", timeout=30).json()
            if told["ready"]:
                return told
            assert time.monotonic() < deadline, f"{told}\n{self.log.read_text()}"
            time.sleep(0.2)

    def stop(self, how: signal.Signals = signal.SIGINT) -> float:
        """End it; returns the seconds that took."""
        began = time.monotonic()
        self.process.send_signal(how)
        try:
            self.process.wait(STOP_S)
        finally:
            # All that it started ends with it: a failed test leaves no service behind.
            self.process.kill()
        return time.monotonic() - began

    def _wait_for(self, pattern: str) -> str:
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and self.process.poll() is None:
            found = re.search(pattern, self.log.read_text())
            if found:
                return found[1]
            time.sleep(0.1)
        raise AssertionError(self.log.read_text())


@pytest.fixture(scope="session")
def samples(tmp_path_factory: pytest.TempPathFactory, tiny_works: Path) -> Path:
    folder = tmp_path_factory.mktemp("samples")
    for number in (3, 11, 20):
        shutil.copy(tiny_works / f"work-{number:03d}.png", folder)
    return folder


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory, tiny_index: Path, samples: Path) -> Iterator[Site]:
    site = Site(tmp_path_factory.mktemp("site"), tiny_index, samples)
    yield site
    if site.process.poll() is None:
        site.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = os.environ.get("DAS_TEST_CHROMIUM") or shutil.which("chromium")
    if program is None:
        pytest.skip("needs Chromium: install Debian's `chromium`, or name one in DAS_TEST_CHROMIUM")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


def _watched(context: BrowserContext, site: Site, faults: list[str]) -> Page:
    """A page that notes console errors, script errors, and requests to anywhere but the site."""
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    page.on("pageerror", lambda error: faults.append(f"script: {error}"))
    page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    page.on(
        "request",
        lambda request: None if request.url.startswith((site.url, "blob:")) else faults.append(request.url),
    )
    page.goto(site.url)
    return page


@pytest.fixture
def page(browser: Browser, site: Site, faults: list[str]) -> Iterator[Page]:
    context = browser.new_context()
    yield _watched(context, site, faults)
    context.close()


@pytest.fixture
def plain_page(browser: Browser, site: Site, faults: list[str]) -> Iterator[Page]:
    """A page in a browser that runs no JavaScript."""
    context = browser.new_context(java_script_enabled=False)
    yield _watched(context, site, faults)
    context.close()


@pytest.fixture
def phone(browser: Browser, site: Site, faults: list[str]) -> Iterator[Page]:
    """A page 320 pixels wide, in the dark, without motion."""
    context = browser.new_context(
        viewport={"width": 320, "height": 640}, color_scheme="dark", reduced_motion="reduce"
    )
    yield _watched(context, site, faults)
    context.close()


@pytest.fixture
def faults() -> Iterator[list[str]]:
    """What went wrong in the browser; a test that expects some of it takes it out."""
    found: list[str] = []
    yield found
    assert found == []


@pytest.fixture
def paused_worker(site: Site) -> Iterator[None]:
    """The worker's computing process, stopped for the length of a test, so that a question waits."""
    pid = int(re.findall(r"worker started with pid (\d+)", site.log.read_text())[-1])
    processes = [pid, *descendants(pid)]
    while True:
        for process in processes:
            os.kill(process, signal.SIGSTOP)
        if _writable(Path(site.environment["DAS_DATA_DIR"]) / "das.sqlite3"):
            break
        # It was stopped in a transaction, which would keep everybody else from writing.
        _go_on(processes)
        time.sleep(0.1)
    _be_heard_of_for_long(Path(site.environment["DAS_DATA_DIR"]))
    yield
    _go_on(processes)


def _be_heard_of_for_long(data_dir: Path) -> None:
    """Have the worker's last sign of life be one of the next hour: after a minute without no question is taken."""
    database = Database(Settings(_env_file=None, data_dir=data_dir), pooled=False)
    with database.write() as session:
        session.execute(update(WorkerBeat).values(seen_at=utc_now() + timedelta(hours=1)))
    database.close()


def _go_on(processes: list[int]) -> None:
    for process in reversed(processes):
        os.kill(process, signal.SIGCONT)


def _writable(database: Path) -> bool:
    """Whether nobody holds the lock of those who write."""
    connection = sqlite3.connect(f"file:{database}?mode=rw", uri=True, timeout=1, isolation_level=None)
    try:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("ROLLBACK")
    except sqlite3.OperationalError:
        return False
    finally:
        connection.close()
    return True


def descendants(pid: int) -> list[int]:
    """The process ids below one."""
    return [child.pid for child in psutil.Process(pid).children(recursive=True)]
