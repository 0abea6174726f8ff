"""The page as a visitor uses it: by choosing, dropping, pasting, clicking, and by keyboard alone."""

import base64
import os
import re
import signal
import time

import httpx2 as httpx
import pytest
from playwright.sync_api import expect

from tests.browser.conftest import descendants
from tests.browser.pages import ANSWERED, expect_answer

TRANSFER = """([data, name, type]) => {
    const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
    const transfer = new DataTransfer();
    transfer.items.add(new File([bytes], name, { type }));
    return transfer;
}"""


def transfer_of(page, path, name="picture.png", kind="image/png"):
    data = base64.b64encode(path.read_bytes()).decode()
    return page.evaluate_handle(TRANSFER, [data, name, kind])


def test_choosing_a_picture_leads_to_its_answer(page, tiny_works):
    page.locator("#image").set_input_files(tiny_works / "work-011.png")
    expect_answer(page)
    first = page.locator(".ranking li").first
    expect(first.locator(".creator")).to_have_text(re.compile("Ada Lovelace|Anna Atkins|Hokusai"))
    expect(first.locator(".share")).to_have_text(re.compile(r"\d\s%$"))
    expect(first.get_by_role("link", name="Source")).to_have_attribute(
        "href", re.compile(r"https://example\.org/\d+")
    )
    expect(page.locator(".creators tbody tr")).to_have_count(3)
    expect(page.locator(".lookalikes .title").first).to_have_text("Study no. 11")
    expect(page.locator(".verdict")).to_contain_text("has not been measured for this index")
    for place in range(3):
        expect(page.locator(".ranking img").nth(place)).to_have_js_property("naturalWidth", 16)
    assert (
        page.locator(".ranking img").first.evaluate("i => getComputedStyle(i).imageRendering") == "pixelated"
    )


def test_dropping_a_picture_anywhere(page, tiny_works):
    transfer = transfer_of(page, tiny_works / "work-003.png")
    page.dispatch_event("footer", "dragenter", {"dataTransfer": transfer})
    expect(page.locator("#dropveil")).to_be_visible()
    page.dispatch_event("footer", "drop", {"dataTransfer": transfer})
    expect_answer(page)


def test_of_two_dropped_pictures_it_is_told_that_the_first_is_asked_about(page, tiny_works):
    first = tiny_works / "work-004.png"
    transfer = transfer_of(page, first)
    data = base64.b64encode((tiny_works / "work-005.png").read_bytes()).decode()
    second = page.evaluate_handle(TRANSFER, [data, "second.png", "image/png"])
    page.evaluate("([one, two]) => one.items.add(two.files[0])", [transfer, second])
    page.dispatch_event("footer", "drop", {"dataTransfer": transfer})
    page.wait_for_url(ANSWERED)
    expect(page.locator("#alert")).to_have_text("One picture at a time: only the first one is asked about.")
    expect_answer(page)
    expect(page.locator("#alert")).to_be_visible()
    # Once: who looks again isn't told anew.
    page.reload()
    expect(page.locator("#alert")).to_be_hidden()
    assert page.locator("#alert").text_content() == ""


def test_pasting_a_picture_also_on_an_answers_page(page, tiny_works):
    def paste():
        transfer = transfer_of(page, tiny_works / "work-020.png")
        page.evaluate(
            "t => document.body.dispatchEvent(new ClipboardEvent('paste', {clipboardData: t, bubbles: true}))",
            transfer,
        )

    paste()
    expect_answer(page)
    first = page.url
    paste()
    page.wait_for_url(lambda url: url != first)
    expect_answer(page)


def test_a_sample_is_asked_about_with_one_click(page):
    expect(page.locator(".sample-grid button")).to_have_count(3)
    page.locator(".sample-grid button").nth(1).click()
    expect_answer(page)


def test_a_hostile_file_gets_its_sentence(page, faults, tmp_path):
    hostile = tmp_path / "holiday.png"
    hostile.write_text("<!doctype html><script>alert(1)</script>")
    page.locator("#image").set_input_files(hostile)
    expect(page.locator("#image-wrong")).to_contain_text("seems to be")
    expect(page.locator("#image")).to_be_focused()
    assert page.url.rstrip("/").count("/") == 2
    # The browser itself reports every refused request on the console.
    assert all("415" in fault for fault in faults)
    faults.clear()


def test_a_file_that_is_too_large_is_refused_before_it_is_sent(page, tmp_path):
    large = tmp_path / "large.png"
    large.write_bytes(b"\0" * 26_000_000)
    page.locator("#image").set_input_files(large)
    expect(page.locator("#image-wrong")).to_contain_text("at most 25 MB")


def test_stages_survive_a_reload_and_the_answer_comes_by_itself(page, site, tiny_works, request):
    request.getfixturevalue("paused_worker")
    page.locator("#image").set_input_files(tiny_works / "work-005.png")
    page.wait_for_url(ANSWERED)
    expect(page.locator(".stages li")).to_have_count(4)
    expect(page.locator(".stages .now")).to_contain_text("waiting for a worker")
    expect(page.locator(".lookalikes .title").first).to_have_text("Study no. 5")
    expect(page.locator("#announce")).to_have_attribute("aria-live", "polite")
    page.reload()
    expect(page.locator(".stages .done")).to_have_count(2)
    expect(page.locator(".stages .now")).to_contain_text("waiting for a worker")


def test_an_answer_that_was_waited_for_replaces_the_stages(page, tiny_works):
    page.locator("#image").set_input_files(tiny_works / "work-006.png")
    expect_answer(page)
    expect(page.locator(".stages")).to_have_count(0)
    expect(page.locator("#announce")).to_contain_text("influence")
    assert page.title().endswith("DAS Attribution")


def test_cancelling_and_asking_again(page, site, tiny_works, paused_worker):
    page.locator("#image").set_input_files(tiny_works / "work-008.png")
    page.wait_for_url(ANSWERED)
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("h1")).to_have_text("This question was cancelled.")
    first = page.url
    page.get_by_role("button", name="Ask again").click()
    page.wait_for_url(lambda url: url != first)
    expect(page.locator(".stages")).to_be_visible()


def test_deleting_asks_first_and_is_final(page, faults, tiny_works, site):
    page.locator("#image").set_input_files(tiny_works / "work-009.png")
    expect_answer(page)
    address = page.url
    page.once("dialog", lambda dialog: dialog.dismiss())
    page.get_by_role("button", name="Delete").click()
    assert page.url == address
    page.once("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Delete").click()
    expect(page.locator("h1")).to_have_text("Deleted.")
    assert httpx.get(address.replace("/a/", "/v1/attributions/"), timeout=30).status_code == 410
    page.goto(address)
    expect(page.locator("h1")).to_have_text("Erased.")
    assert all("410" in fault for fault in faults)
    faults.clear()


def test_everything_works_without_javascript(plain_page, tiny_works, tmp_path, faults):
    page = plain_page
    page.locator("#image").set_input_files(tiny_works / "work-012.png")
    page.get_by_role("button", name="Ask").click()
    page.wait_for_url(ANSWERED)
    # The page refreshes itself until the answer is there.
    expect(page.locator(".ranking li")).to_have_count(20)
    answer = page.url
    page.get_by_role("button", name="Delete").click()
    expect(page.locator("h1")).to_have_text("Delete this picture and its answer? They can't be had back.")
    page.get_by_role("link", name="No, go back").click()
    page.wait_for_url(answer)
    page.get_by_role("button", name="Delete").click()
    page.get_by_role("button", name="Delete").click()
    expect(page.locator("h1")).to_have_text("Deleted.")
    page.get_by_role("link", name="Ask about a picture").click()
    page.locator(".sample-grid button").first.click()
    page.wait_for_url(ANSWERED)
    page.goto(page.url.partition("/a/")[0])
    hostile = tmp_path / "x.png"
    hostile.write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    page.locator("#image").set_input_files(hostile)
    page.get_by_role("button", name="Ask").click()
    expect(page.get_by_role("alert").first).to_contain_text("SVG")
    faults[:] = [fault for fault in faults if "415" not in fault]


def test_the_keyboard_reaches_everything(page):
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    reached = []
    for _ in range(12):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("() => document.activeElement.id || document.activeElement.className"))
    assert "image" in reached
    page.locator(".sample-grid button").first.focus()
    page.keyboard.press("Enter")
    expect_answer(page)
    summary = page.locator("summary")
    summary.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_text("SHA-256 of the file")).to_be_visible()


def test_a_phone_never_scrolls_sideways(phone, tiny_works):
    wide = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert phone.evaluate(wide) == 0
    phone.locator("#image").set_input_files(tiny_works / "work-013.png")
    expect_answer(phone)
    phone.locator("summary").click()
    assert phone.evaluate(wide) == 0
    assert phone.evaluate("() => getComputedStyle(document.body).backgroundColor") == "rgb(21, 20, 18)"
    small = phone.eval_on_selector_all(
        "main button, main summary",
        "all => all.filter(e => e.getBoundingClientRect().height < 24).map(e => e.outerHTML)",
    )
    assert small == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_enough_contrast(browser, site, scheme):
    context = browser.new_context(color_scheme=scheme)
    page = context.new_page()
    page.goto(site.url)
    colours = page.evaluate(
        """() => Object.fromEntries(['paper', 'card', 'ink', 'quiet', 'edge', 'accent', 'on-accent'].map(
            name => [name, getComputedStyle(document.documentElement).getPropertyValue('--' + name).trim()]))"""
    )
    context.close()
    for text, ground in [("ink", "paper"), ("quiet", "paper"), ("quiet", "card"), ("accent", "paper")]:
        assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
    assert contrast(colours["on-accent"], colours["accent"]) >= 4.5
    assert contrast(colours["edge"], colours["paper"]) >= 3


def contrast(first: str, second: str) -> float:
    """The contrast of two colours `#rrggbb` as WCAG 2.2 defines it."""

    def luminance(colour):
        channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.fixture(scope="module")
def slow_site(tmp_path_factory, tiny_model, tiny_clip, samples):
    """A site whose questions take seconds, so that there is a middle to interrupt them in."""
    from das.config import BuildConfig, ClipSpec
    from index_build.build import build
    from tests.browser.conftest import Site
    from tests.conftest import make_works

    folder = tmp_path_factory.mktemp("slow")
    make_works(folder / "works", 3)
    config = BuildConfig(
        name="slow",
        model=str(tiny_model),
        works=folder / "works",
        timesteps=500,
        dimension=32,
        probes=("loss",),
        clip=ClipSpec(directory=tiny_clip),
    )
    build(config, folder / "index")
    site = Site(folder, folder / "index", samples)
    yield site
    site.stop()


def test_a_worker_killed_in_the_middle_is_told_and_the_answer_comes(browser, slow_site, tiny_works):
    context = browser.new_context()
    context.set_default_timeout(60_000)
    page = context.new_page()
    page.goto(slow_site.url)
    page.locator("#image").set_input_files(tiny_works / "work-001.png")
    page.wait_for_url(ANSWERED)
    question = f"{slow_site.url}/v1/attributions/{page.url.rsplit('/', 1)[1]}"
    deadline = time.monotonic() + 60
    while (told := httpx.get(question, timeout=30).json())["progress"]["done"] == 0:
        assert time.monotonic() < deadline, told
        page.wait_for_timeout(20)
    assert told["state"] == "running"
    worker = int(re.findall(r"worker started with pid (\d+)", slow_site.log.read_text())[-1])
    os.kill(descendants(worker)[0], signal.SIGKILL)
    expect(page.locator("main")).to_contain_text(re.compile("worker was lost|tried again|attempt"))
    # The new worker loads its model first.
    expect(page.locator(".ranking li")).to_have_count(3, timeout=120_000)
    told = httpx.get(question, timeout=30).json()
    assert (told["state"], told["progress"]["attempt"]) == ("succeeded", 2)
    context.close()
