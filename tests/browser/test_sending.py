"""Sending a large picture over a slow line: how much of it has gone, and a connection that breaks."""

import re
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Page, expect

from das.images import encode_png
from tests.browser.pages import expect_answer

BYTES_A_SECOND = 500_000
NOTE = """() => {
    const status = document.getElementById("sending");
    new MutationObserver(() => window.note(status.hidden, status.textContent)).observe(status, { childList: true });
}"""


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture of two megabytes."""
    path = tmp_path_factory.mktemp("large") / "large.png"
    path.write_bytes(encode_png(np.random.default_rng(8).integers(0, 256, (800, 800, 3), dtype=np.uint8)))
    return path


@pytest.fixture
def told(page: Page) -> list[str]:
    """What the page tells of sending, also once another page has taken its place."""
    told: list[str] = []

    def note(hidden: bool, sentence: str) -> None:
        assert not hidden
        told.append(sentence)

    page.expose_function("note", note)
    page.evaluate(NOTE)
    return told


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
    return page


def test_how_much_is_sent_is_told(slow: Page, told: list[str], large: Path) -> None:
    slow.locator("#image").set_input_files(large)
    expect_answer(slow)
    percents = [int(number[1]) for text in told if (number := re.search(r"(\d+) %", text))]
    assert len(percents) >= 4
    assert percents == sorted(set(percents))
    assert set(percents) <= set(range(0, 100, 10))


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
