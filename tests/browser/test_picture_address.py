"""Pasting a picture's address: it is fetched and asked about, or answered with a sentence."""

import functools
import http.server
import re
import threading

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Site

ANSWERED = re.compile(r"/a/att_[0-9a-f]{32}$")
PASTE = """text => {
  const data = new DataTransfer();
  data.setData("text/plain", text);
  document.body.dispatchEvent(new ClipboardEvent("paste", {clipboardData: data, bubbles: true, cancelable: true}));
}"""


@pytest.fixture(scope="module")
def site(tmp_path_factory, tiny_index, samples):
    """A service that may ask this machine for pictures, over http too."""
    site = Site(tmp_path_factory.mktemp("addresses"), tiny_index, samples, DAS_FETCH_ALLOW="127.0.0.1")
    yield site
    site.stop()


@pytest.fixture(scope="module")
def pictures(samples):
    """The samples on a server of this machine: its address."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=samples)
    handler.func.log_message = lambda *_: None
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_pasting_an_address_asks_about_the_picture(page, pictures):
    page.evaluate(PASTE, f" {pictures}/work-003.png\n")
    page.wait_for_url(ANSWERED)
    expect(page.locator(".ranking li")).to_have_count(20)


def test_an_address_that_cannot_be_had_is_a_sentence(page, pictures, faults):
    page.evaluate(PASTE, f"{pictures}/none.png")
    expect(page.locator("#image_url-wrong")).to_have_text("The address answers with 404, not with a picture.")
    expect(page.locator("#image_url")).to_have_value(f"{pictures}/none.png")
    page.locator("#image_url").fill("https://10.0.0.1/x.png")
    page.keyboard.press("Enter")
    expect(page.locator("#image_url-wrong")).to_contain_text("isn't on the public internet")
    page.locator("#image_url").fill("")
    page.get_by_role("button", name="Ask", exact=True).click()
    expect(page.locator("#image-wrong")).to_have_text("Choose a picture, or give its address.")
    assert all("422" in fault for fault in faults)
    faults.clear()


def test_other_words_that_are_pasted_ask_nothing(page):
    address = page.url
    page.evaluate(PASTE, "a poem, and no address")
    page.wait_for_timeout(300)
    assert page.url == address
    expect(page.locator("#image_url")).to_have_value("")


def test_an_address_is_asked_about_without_javascript(plain_page, pictures, faults):
    page = plain_page
    page.locator("#image_url").fill(f"{pictures}/none.png")
    page.get_by_role("button", name="Ask", exact=True).click()
    expect(page.get_by_role("alert").first).to_contain_text("404, not with a picture")
    page.locator("#image_url").fill(f"{pictures}/work-011.png")
    page.get_by_role("button", name="Ask", exact=True).click()
    page.wait_for_url(ANSWERED)
    expect(page.locator(".ranking li")).to_have_count(20)
    assert all("422" in fault for fault in faults)
    faults.clear()
