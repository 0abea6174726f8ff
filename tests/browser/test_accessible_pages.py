"""What assistive technology meets on every page, in light and dark and three languages."""

import re

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.conftest import Site
from tests.browser.pages import ANSWERED, WIDE, violations


@pytest.mark.parametrize(
    ("scheme", "language", "width"), [("light", "en", 1280), ("dark", "de", 320), ("light", "fr", 640)]
)
def test_no_page_has_faults(
    browser: Browser, site: Site, faults: list[str], scheme: str, language: str, width: int
) -> None:
    context = browser.new_context(
        color_scheme=scheme,
        locale=language,
        viewport={"width": width, "height": 800},
        reduced_motion="reduce",
    )
    context.set_default_timeout(60_000)
    page = context.new_page()
    page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    for address in ("/", "/sign-in", "/indexes", "/api", "/opt-out", "/opt-outs", "/problems", "/deleted"):
        page.goto(site.url + address)
        expect(page.locator("html")).to_have_attribute("lang", language)
        assert violations(page) == [], address
        assert page.evaluate(WIDE) == 0, address
    page.goto(site.url + "/indexes")
    page.locator("main dt a").first.click()
    assert violations(page) == []
    assert page.evaluate(WIDE) == 0
    page.goto(site.url)
    page.locator(".sample-grid button").first.click()
    page.wait_for_url(ANSWERED)
    expect(page.locator(".ranking li")).to_have_count(20)
    assert violations(page) == []
    answer = page.url
    page.goto(f"{answer}/shares")
    assert violations(page) == []
    assert page.evaluate(WIDE) == 0
    page.locator("[name=works]").fill("x")
    page.locator(".opt-out button").click()
    expect(page.get_by_role("alert").first).to_be_visible()
    assert violations(page) == []
    faults[:] = [fault for fault in faults if "422" not in fault]
    for chosen in ((), ("picture", "creators")):
        page.goto(f"{answer}/shares")
        for part in chosen:
            page.locator(f"[name={part}]").check()
        page.locator(".opt-out button").click()
        link = page.locator("#share-link").inner_text()
        assert violations(page) == []
        assert page.evaluate(WIDE) == 0
        page.goto(link)
        assert violations(page) == []
        assert page.evaluate(WIDE) == 0
    page.goto(f"{site.url}/s/nothing")
    assert violations(page) == []
    faults[:] = [fault for fault in faults if "404" not in fault]
    page.goto(answer)
    page.locator(".beside").first.click()
    expect(page.locator(".pair img").nth(1)).to_have_js_property("complete", True)
    assert violations(page) == []
    assert page.evaluate(WIDE) == 0
    page.locator(".mine").first.click()
    assert violations(page) == []
    assert page.evaluate(WIDE) == 0
    page.locator("[name=contact]").fill("ada@example.org")
    page.locator(".opt-out button").click()
    page.wait_for_url(re.compile("/opt-outs/"))
    assert violations(page) == []
    assert page.evaluate(WIDE) == 0
    context.close()
