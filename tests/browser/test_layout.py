"""How an answer is laid out in windows of every width, with titles and names that are long."""

from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.conftest import Site
from tests.browser.pages import ANSWERED, WIDE

TITLE = "Study of the harbour at daybreak, with Donaudampfschifffahrtsgesellschaftskapitäne and two herons"
CREATOR = "Maria Magdalena Freifrau von und zu Hohenlohe-Waldenburg-Schillingsfürst, after Utagawa Hiroshige"
# What a line of a work's title may be at least, about fifteen characters, and one beneath a look-alike.
LABEL_PX, LINE_PX = 176, 112
# A phone; either side of where the columns change, 640 and 960; what was seen to be narrow; a wide screen.
WIDTHS = (390, 640, 641, 768, 960, 961, 1000, 1120, 1280, 1680)

SAY = """([title, creator]) => {
    for (const one of document.querySelectorAll('.title')) one.textContent = title;
    for (const one of document.querySelectorAll('.label .creator, .wall .creator')) one.textContent = creator;
    for (const one of document.querySelectorAll('.creators th[scope=row]')) one.firstChild.textContent = creator;
}"""
# Every element with a line of text of its own that isn't short, by what it says and how wide it is.
LINES = """() => [...document.querySelectorAll('main *')]
    .filter((one) => [...one.childNodes].some((n) => n.nodeType === 3 && n.data.trim().length > 40)
        && one.checkVisibility() && !one.closest('.visually-hidden, details, svg'))
    .map((one) => [one.closest('section, header, aside').className + ' ' + one.className,
        one.getBoundingClientRect().width])"""
# What sticks out of its own box or into its neighbour's.
CLASHES = """() => [...document.querySelectorAll('.ranking li')].flatMap((row) => {
    const boxes = [...row.children].map((one) => one.getBoundingClientRect()).filter((box) => box.width);
    const over = boxes.some((a, i) => boxes.some((b, j) => i < j && a.left < b.right - 1 && b.left < a.right - 1
        && a.top < b.bottom - 1 && b.top < a.bottom - 1));
    const out = [...row.querySelectorAll('.label, .measure, .label *, .measure *')]
        .some((one) => one.scrollWidth > one.clientWidth + 1 && getComputedStyle(one).display === 'block'
            && !one.matches('.visually-hidden'));
    return over || out ? [row.className + ' ' + row.querySelector('.rank').textContent] : [];
})"""

BOX_WIDTHS = "all => all.map((one) => one.getBoundingClientRect().width)"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_text_of_an_answer_is_squeezed(browser: Browser, site: Site, scheme: Any) -> None:
    context = browser.new_context(color_scheme=scheme, reduced_motion="reduce")
    context.set_default_timeout(60_000)
    page = context.new_page()
    page.goto(site.url)
    page.locator(".sample-grid button").first.click()
    page.wait_for_url(ANSWERED)
    expect(page.locator(".ranking li")).to_have_count(20)
    page.evaluate(SAY, [TITLE, CREATOR])
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 1400})
        assert page.evaluate(WIDE) == 0, f"{width} px: something is wider than the window"
        lines = page.evaluate(LINES)
        assert len(lines) > 60
        assert [line for line in lines if line[1] < LINE_PX] == [], f"{width} px"
        labels = page.locator(".ranking .label")
        narrowest = min(labels.evaluate_all(BOX_WIDTHS))
        assert narrowest >= LABEL_PX, f"{width} px: a work's title has {narrowest:.0f} px"
        assert page.evaluate(CLASHES) == [], f"{width} px"
        first, *others = page.locator(".ranking img").evaluate_all(BOX_WIDTHS)
        assert first > max(others), f"{width} px: the first work's picture is the largest"
    context.close()
