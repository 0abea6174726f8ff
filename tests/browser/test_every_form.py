"""Every form of the page, submitted by a real browser with and without JavaScript: all are the service's own."""

import re
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.browser.pages import ANSWERED

TEMPLATES = Path(__file__).parent.parent.parent / "app" / "templates"
SIGNING_IN = {"/sign-in", "/sign-out", "/sign-out/everywhere", "/opt-outs/*"}
"""Those of a service that asks for keys: test_signing_in.py sends them."""
SHARING = {"/a/*/shares", "/a/*/shares/*/revoke"}
"""Links to an answer: test_sharing.py sends them."""
OPERATING = "/operator/"
"""Those of whoever runs the service begin so: test_operating.py sends them."""
FORM = re.compile(r'<form.*?\saction="([^"]+)"')


def form_actions() -> set[str]:
    """Where the forms of all templates are sent, with a star for what is filled in."""
    texts = [path.read_text() for path in TEMPLATES.glob("*.html")]
    actions = {re.sub(r"{{.*?}}", "*", action) for text in texts for action in FORM.findall(text)}
    # A page that asks whether somebody is sure sends the form that led to it once more.
    return {action for action in actions - {"*"} if not action.startswith(OPERATING)}


@pytest.fixture(params=[True, False], ids=["javascript", "plain"])
def watched(request):
    """A page, and whether it runs JavaScript; what it writes is noted with the headers that tell where from."""
    page = request.getfixturevalue("page" if request.param else "plain_page")
    sent = []
    page.on("request", lambda r: sent.append(r) if r.method == "POST" else None)
    return page, sent, request.param


def test_each_is_taken_for_the_services_own(watched, site, tiny_works, paused_worker, faults):
    page, sent, scripted = watched
    home = site.url + "/"
    page.locator("#image").set_input_files(tiny_works / "work-014.png")
    if not scripted:
        page.get_by_role("button", name="Ask", exact=True).click()
    page.wait_for_url(ANSWERED)
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("h1")).to_have_text("This question was cancelled.")
    cancelled = page.url
    page.get_by_role("button", name="Ask again").click()
    page.wait_for_url(lambda url: url != cancelled and ANSWERED.search(url))
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Delete").click()
    if not scripted:
        expect(page.locator("h1")).to_have_text("Delete this picture and its answer? They can't be had back.")
        page.get_by_role("button", name="Delete").click()
    expect(page.locator("h1")).to_have_text("Deleted.")
    page.goto(home)
    page.get_by_role("button", name="Deutsch").click()
    expect(page.locator("html")).to_have_attribute("lang", "de")
    expect(page.locator("h1")).to_have_text("Welchen Werken verdankt dieses Bild am meisten?")
    page.locator(".sample-grid button").first.click()
    page.wait_for_url(ANSWERED)

    page.locator(".lookalikes .mine").first.click()
    page.get_by_label("Wie Sie zu erreichen sind").fill("ada@example.org")
    page.get_by_role("button", name="Um Ausnahme bitten").click()
    expect(page.locator("h1")).to_have_text("Ihre Bitte ist eingegangen.")
    page.get_by_role("button", name="Bitte zurückziehen").click()
    if not scripted:
        page.get_by_role("button", name="Bitte zurückziehen").click()
    expect(page.locator("h1")).to_have_text("Ihre Bitte ist zurückgezogen.")
    page.get_by_role("button", name="Kontakt und Angaben löschen").click()
    if not scripted:
        page.get_by_role("button", name="Kontakt und Angaben löschen").click()
    expect(page.locator("h1")).to_have_text("Gelöscht.")

    submitted = {re.sub(r"(att|opt)_[0-9a-f]{32}", "*", r.url.removeprefix(site.url)) for r in sent}
    # The page that was following the deleted question is told so.
    faults[:] = [fault for fault in faults if "410" not in fault]
    assert submitted == form_actions() - SIGNING_IN - SHARING
    for request in sent:
        headers = request.all_headers()
        assert headers["origin"] == site.url, request.url
        assert headers["sec-fetch-site"] == "same-origin", request.url
        # Without JavaScript a page asks first.
        assert request.response().status in ({303} if scripted else {200, 303}), request.url
