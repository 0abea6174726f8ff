"""Links to answers in a browser: made, copied, opened by somebody else, withdrawn."""

from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import Site
from tests.browser.pages import ANSWERED


def answered(page: Page) -> None:
    page.locator(".sample-grid button").first.click()
    page.wait_for_url(ANSWERED)
    expect(page.locator(".ranking li")).to_have_count(20)


def test_a_link_is_made_copied_and_withdrawn(
    browser: Browser, site: Site, page: Page, faults: list[str]
) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=site.url)
    answered(page)
    page.get_by_role("link", name="Share this answer").click()
    page.get_by_label("The picture, and all that could lead to it").check()
    page.get_by_label("Only so many of the first works").fill("2")
    page.get_by_label("Your own word for it").fill("a lawyer")
    page.get_by_role("button", name="Make the link").click()
    link = page.locator("#share-link").inner_text()
    page.get_by_role("button", name="Copy the link").click()
    expect(page.locator("#alert")).to_have_text("Copied.")
    assert page.evaluate("navigator.clipboard.readText()") == link

    # Somebody else, without JavaScript and without anything of the owner's.
    context = browser.new_context(java_script_enabled=False)
    context.set_default_timeout(60_000)
    other = context.new_page()
    other.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    asked: list[str] = []
    other.on("request", lambda request: asked.append(request.url))
    other.goto(link)
    expect(other.locator(".handed-on li")).to_have_count(3)
    expect(other.locator(".ranking li")).to_have_count(2)
    expect(other.locator(".subject img")).to_have_count(0)
    expect(other.locator(".ranking img").first).to_have_js_property("complete", True)
    assert other.locator(".ranking img").first.evaluate("image => image.naturalWidth") == 16
    assert all(url.startswith((link, f"{site.url}/static/")) for url in asked), asked
    other.get_by_role("link", name="Deutsch").click()
    expect(other.locator("html")).to_have_attribute("lang", "de")
    with other.expect_download() as download:
        other.get_by_role("link", name="Daten zum Nachprüfen").click()
    assert download.value.suggested_filename.endswith("-report.json")

    page.goto(page.url)
    expect(page.locator(".shares button")).to_contain_text("Withdraw")
    expect(page.locator(".shares li")).to_contain_text("a lawyer")
    expect(page.locator(".shares li")).to_contain_text("Opened 3 times")
    page.locator(".shares button").click()
    expect(page.locator(".shares li")).to_have_count(0)
    other.goto(link)
    expect(other.locator("h1")).to_have_text("This link opens nothing.")
    faults[:] = [fault for fault in faults if "404" not in fault]
    context.close()


def test_without_javascript(plain_page: Page) -> None:
    answered(plain_page)
    plain_page.get_by_role("link", name="Share this answer").click()
    expect(plain_page.locator("[data-copy]")).to_have_count(0)
    plain_page.get_by_role("button", name="Make the link").click()
    link = plain_page.locator("#share-link").inner_text()
    expect(plain_page.locator("[data-copy]")).to_be_hidden()
    plain_page.goto(link)
    expect(plain_page.locator(".ranking li")).to_have_count(20)
    expect(plain_page.locator(".subject img")).to_have_js_property("complete", True)
