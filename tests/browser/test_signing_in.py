"""Signing in as people do it: in a real browser, with and without JavaScript, with a key and with a link."""

import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import DAS, Site, _watched

REFUSED = re.compile(r"the server responded with a status of 40[14] ")


class ShutSite(Site):
    """A service that asks for keys, and who makes them."""

    def keys(self, *arguments: str) -> str:
        """What `das keys` prints."""
        return made(self.environment, *arguments)


def made(environment: dict[str, str], *arguments: str) -> str:
    return subprocess.run(
        [str(DAS), "keys", *arguments], env=environment, capture_output=True, text=True, check=True
    ).stdout.strip()


@pytest.fixture(scope="module")
def shut(tmp_path_factory: pytest.TempPathFactory, tiny_index: Path, samples: Path) -> Iterator[ShutSite]:
    folder = tmp_path_factory.mktemp("shut")
    made({**os.environ, "DAS_DATA_DIR": str(folder / "data")}, "create", "the first")
    site = ShutSite(folder, tiny_index, samples, DAS_API_KEYS="required", DAS_OPT_OUTS_OPEN="true")
    yield site
    if site.process.poll() is None:
        site.stop()


@pytest.fixture(params=[True, False], ids=["script", "plain"])
def visit(
    request: pytest.FixtureRequest, browser: Browser, shut: ShutSite, faults: list[str]
) -> Iterator[Callable[[], Page]]:
    contexts = []

    def visit() -> Page:
        contexts.append(browser.new_context(java_script_enabled=request.param))
        return _watched(contexts[-1], shut, faults)

    yield visit
    for context in contexts:
        context.close()
    # What is refused here on purpose is told on the console; anything else there is a fault.
    faults[:] = [fault for fault in faults if not REFUSED.search(fault)]


def test_with_a_key_by_keyboard_and_out_again(visit: Callable[[], Page], shut: ShutSite) -> None:
    key = shut.keys("create", "Ada's own")
    page = visit()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    page.get_by_label("Key").fill("das_wrong")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert").first).to_contain_text("This key isn't known")
    page.get_by_label("Key").fill(key)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_contain_text("Which works does this picture owe")
    expect(page.locator(".signed-in")).to_contain_text("Ada's own")
    (cookie,) = page.context.cookies()
    assert (cookie["httpOnly"], cookie["sameSite"], cookie["name"]) == (True, "Strict", "das")

    page.locator(".sample-grid button").first.click()
    expect(page.locator("article.answer, #answer")).to_be_visible()
    answer = page.url
    assert "/a/att_" in answer
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    # Back at its address one is asked to sign in, and is led there.
    page.goto(answer)
    page.get_by_label("Key").fill(key)
    page.get_by_role("button", name="Sign in").click()
    expect(page.locator("#answer")).to_be_visible()
    assert page.url == answer

    # Somebody else who is signed in doesn't find it.
    other = visit()
    other.get_by_label("Key").fill(shut.keys("create", "Eve"))
    other.keyboard.press("Enter")
    expect(other.locator(".signed-in")).to_contain_text("Eve")
    response = other.goto(answer)
    assert response is not None
    assert response.status == 404


def test_with_a_link_until_it_is_withdrawn(
    visit: Callable[[], Page], shut: ShutSite, request: pytest.FixtureRequest
) -> None:
    link = shut.keys("link", "An artist", "--expires", "7d")
    page = visit()
    # The service has a free port, which the command doesn't know of.
    page.goto(f"{shut.url}/sign-in/{link.rpartition('/')[2]}")
    page.get_by_role("button", name="Go on to the page").click()
    expect(page.locator(".signed-in")).to_contain_text("An artist")
    page.locator("#image").set_input_files(sorted(Path(shut.environment["DAS_SAMPLES_DIR"]).glob("*.png"))[0])
    # With JavaScript choosing is asking.
    if not request.node.callspec.params["visit"]:
        page.get_by_role("button", name="Ask", exact=True).click()
    expect(page.locator("#answer")).to_be_visible()
    shut.keys("revoke", link.rpartition("/")[2][:17])
    page.wait_for_timeout(5500)
    page.goto(shut.url)
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()


def test_who_has_no_key_asks_to_be_left_out_and_comes_back_by_a_code(
    visit: Callable[[], Page], request: pytest.FixtureRequest
) -> None:
    page = visit()
    page.get_by_role("link", name="My work is in here").click()
    page.get_by_label("The creator's name").fill("Anna Atkins")
    page.get_by_label("How you can be reached").fill("anna@example.org")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("Your request is here.")
    code = page.locator(".token code").inner_text()

    elsewhere = visit()
    elsewhere.goto(page.url)
    elsewhere.get_by_label("Your code").fill(code[:-1])
    elsewhere.get_by_role("button", name="Show the request").click()
    expect(elsewhere.get_by_role("alert").first).to_contain_text("no request with this address and this code")
    elsewhere.get_by_label("Your code").fill(code)
    elsewhere.keyboard.press("Enter")
    expect(elsewhere.locator("main")).to_contain_text("anna@example.org")
    elsewhere.on("dialog", lambda dialog: dialog.accept())
    elsewhere.get_by_role("button", name="Withdraw the request").click()
    if not request.node.callspec.params["visit"]:
        elsewhere.get_by_role("button", name="Withdraw the request").click()
    expect(elsewhere.get_by_role("heading", level=1)).to_have_text("Your request is withdrawn.")
    page.reload()
    expect(page.get_by_role("heading", level=1)).to_have_text("Your request is withdrawn.")
    assert code not in page.url
    (cookie,) = page.context.cookies(page.url)
    assert (cookie["httpOnly"], page.url.endswith(cookie["path"])) == (True, True)
    assert page.context.cookies(page.url.partition("/opt-outs/")[0]) == []
