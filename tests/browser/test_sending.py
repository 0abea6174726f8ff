"""Sending a large picture over a slow line: how much of it has gone, and a connection that breaks."""

import time
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Page, expect

from das.images import encode_png
from tests.browser.test_page import expect_answer

BYTES_A_SECOND = 500_000
NOTE = """() => {
    const status = document.getElementById("sending");
    window.told = [];
    new MutationObserver(() => window.told.push(status.textContent)).observe(status, { childList: true });
}"""


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture of two megabytes."""
    path = tmp_path_factory.mktemp("large") / "large.png"
    path.write_bytes(encode_png(np.random.default_rng(8).integers(0, 256, (800, 800, 3), dtype=np.uint8)))
    return path


@pytest.fixture
def slow(page: Page) -> Page:
    """A page whose uploads take four seconds."""
    conditions = {
        "offline": False,
        "latency": 0,
        "downloadThroughput": -1,
        "uploadThroughput": BYTES_A_SECOND,
    }
    page.context.new_cdp_session(page).send("Network.emulateNetworkConditions", conditions)
    page.evaluate(NOTE)
    return page


def told_until(page: Page, sentence: str) -> list[str]:
    """What was told by the time that this was."""
    deadline = time.monotonic() + 30
    while sentence not in (told := page.evaluate("window.told")):
        assert time.monotonic() < deadline, told
        page.wait_for_timeout(50)
    return told


def test_how_much_is_sent_is_told(slow: Page, large: Path) -> None:
    slow.locator("#image").set_input_files(large)
    expect(slow.locator("#sending")).to_be_visible()
    told = told_until(slow, "Sending… 80 %")
    percents = [int(text.split()[1]) for text in told]
    assert len(percents) >= 4
    assert percents == sorted(set(percents))
    assert set(percents) <= set(range(0, 100, 10))
    expect_answer(slow)


def test_a_connection_that_breaks_is_told_and_the_picture_can_be_sent_again(
    page: Page, tiny_works: Path, faults: list[str]
) -> None:
    page.route("**/ask", lambda route: route.abort("connectionreset"))
    page.locator("#image").set_input_files(tiny_works / "work-002.png")
    expect(page.locator("#alert")).to_contain_text("couldn't be sent")
    expect(page.locator("#sending")).to_be_hidden()
    page.unroute("**/ask")
    page.locator("#image").set_input_files(tiny_works / "work-002.png")
    expect_answer(page)
    # The browser itself tells of what it couldn't send.
    assert all("ERR_CONNECTION_RESET" in fault for fault in faults)
    faults.clear()
