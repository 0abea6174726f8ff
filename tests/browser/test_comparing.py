"""Works beside the picture: by mouse, by keyboard, and without JavaScript."""

from playwright.sync_api import Page, expect

from tests.browser.pages import ANSWERED, expect_answer


def test_by_keyboard_and_the_focus_comes_back(page: Page) -> None:
    page.locator(".sample-grid button").first.click()
    expect_answer(page)
    answer = page.url
    second = page.locator(".beside").nth(1)
    second.focus()
    for key, rank in (("Enter", 2), ("ArrowRight", 3), ("ArrowLeft", 2)):
        page.keyboard.press(key)
        expect(page.locator(".pair figcaption").nth(1)).to_contain_text(f"Rank {rank}")
        # Only then does its script listen to the keys.
        page.wait_for_load_state()
    page.keyboard.press("Escape")
    page.wait_for_url(lambda url: "/works/" not in url)
    expect(page.locator(".beside").nth(1)).to_be_focused()
    assert page.url.startswith(f"{answer}#w_")


def test_by_mouse_without_javascript(plain_page: Page) -> None:
    page = plain_page
    page.locator(".sample-grid button").first.click()
    page.wait_for_url(ANSWERED)
    expect(page.locator(".ranking li")).to_have_count(20)
    page.locator(".beside").first.click()
    page.get_by_role("link", name="Next work").click()
    expect(page.locator(".pair figcaption").nth(1)).to_contain_text("Rank 2")
    page.get_by_role("link", name="Back to the answer").click()
    expect(page.locator(".ranking li")).to_have_count(20)
