"""A refused field: its sentence beside it, focused, what was typed still there; with JavaScript and without."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.browser.conftest import Site, _watched
from tests.browser.pages import ANSWERED, WIDE, violations

LANGUAGES = {
    "en": ("Ask", "isn't on the public internet"),
    "de": ("Fragen", "nicht im öffentlichen Internet"),
    "fr": ("Demander", "pas sur l’Internet public"),
}


@pytest.fixture(params=[True, False], ids=["script", "plain"])
def scripted(request: pytest.FixtureRequest) -> bool:
    """Whether the browser runs JavaScript."""
    found: bool = request.param
    return found


@pytest.fixture(params=LANGUAGES)
def visited(
    request: pytest.FixtureRequest, browser: Browser, site: Site, faults: list[str], scripted: bool
) -> Iterator[tuple[Page, str]]:
    """The first page in a browser of this language, 320 pixels wide, and which language that is."""
    context = browser.new_context(
        java_script_enabled=scripted, locale=request.param, viewport={"width": 320, "height": 640}
    )
    yield _watched(context, site, faults), request.param
    context.close()
    # The browser tells of each refusal on its console.
    faults[:] = [fault for fault in faults if not re.search(r"\b(415|422)\b", fault)]


def described_by(field: Locator) -> str:
    """The text that a field is described by."""
    ids = field.get_attribute("aria-describedby")
    assert ids is not None
    return " ".join(field.page.locator(f"#{name}").inner_text() for name in ids.split())


def test_a_refused_field_has_its_sentence_beside_it_and_the_focus(
    visited: tuple[Page, str], scripted: bool, tiny_works: Path
) -> None:
    page, language = visited
    address = page.locator("#image_url")
    ask = page.locator("#ask button.primary")
    address.fill("https://10.0.0.1/x.png")
    ask.click()
    sentence = LANGUAGES[language][1]
    expect(page.locator("#image_url-wrong")).to_contain_text(sentence)
    expect(address).to_be_focused()
    expect(address).to_have_value("https://10.0.0.1/x.png")
    expect(address).to_have_attribute("aria-invalid", "true")
    assert sentence in described_by(address)
    link = page.locator("#refusal").get_by_role("link")
    expect(link).to_contain_text(sentence)
    ask.focus()
    link.click()
    expect(address).to_be_focused()
    if scripted:
        assert violations(page) == []
        assert page.evaluate(WIDE) == 0
    # What is right then is asked about; nothing of the refusal stays.
    address.fill("")
    page.locator("#image").set_input_files(tiny_works / "work-013.png")
    if not scripted:
        ask.click()
    page.wait_for_url(ANSWERED)
    expect(page.locator("#answer")).to_be_visible()


def test_a_refused_file_and_a_missing_one(visited: tuple[Page, str], scripted: bool, tmp_path: Path) -> None:
    page, _ = visited
    drawing = tmp_path / "x.svg"
    drawing.write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    page.locator("#image").set_input_files(drawing)
    if not scripted:
        page.locator("#ask button.primary").click()
    expect(page.locator("#image-wrong")).to_contain_text("SVG")
    expect(page.locator("#image")).to_be_focused()
    assert "SVG" in described_by(page.locator("#image"))
    # Chosen once more, and by nothing at all.
    page.locator("#ask button.primary").click()
    expect(page.locator("#image-wrong")).not_to_contain_text("SVG")
    expect(page.locator("#image-wrong")).not_to_be_empty()
    expect(page.locator("#image")).to_be_focused()


def test_the_form_of_opt_outs(visited: tuple[Page, str]) -> None:
    page, _ = visited
    page.goto(page.url.rstrip("/") + "/opt-out")
    page.locator("#creator").fill("Nobody at all")
    page.locator("#contact").fill("ada@example.org")
    page.locator("#statement").fill("Mine.\nAll of them.")
    page.locator("form.opt-out button").click()
    expect(page.locator("#creator-wrong")).to_contain_text("tiny")
    expect(page.locator("#creator")).to_be_focused()
    expect(page.locator("#creator")).to_have_value("Nobody at all")
    expect(page.locator("#contact")).to_have_value("ada@example.org")
    expect(page.locator("#contact-wrong")).to_be_hidden()
    expect(page.locator("#statement")).to_have_value("Mine.\nAll of them.")
