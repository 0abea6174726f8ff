"""What tests look for on a page."""

import re

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

ANSWERED = re.compile(r"/a/att_[0-9a-f]{32}$")
WIDE = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"


def expect_answer(page) -> None:
    page.wait_for_url(ANSWERED)
    expect(page.locator(".ranking li")).to_have_count(20)
    expect(page.locator("h1")).to_contain_text("influence")


def violations(page: Page) -> list[str]:
    """What axe-core finds on a page: by the browser's own console, which the page's policy doesn't bind."""
    found = Axe().run(page).response["violations"]
    return [f"{one['id']}: {[node['html'][:200] for node in one['nodes']]}" for one in found]
