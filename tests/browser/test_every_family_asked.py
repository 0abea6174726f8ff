"""A question to every model family by the API and on the page: one service, one worker, an index of each family.

The questions are pictures that the family's own pipeline generated, and the prompt they were generated from.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2 as httpx
import pytest
from playwright.sync_api import Browser, expect

from tests.browser.conftest import Site
from tests.das import families, planted

PLANTED_TITLE = f"Work {planted.row_of('first')}"


@pytest.fixture(scope="module")
def folders(planted_family: Callable[[str], Path]) -> dict[str, Path]:
    return {family: planted_family(family) for family in families.FAMILIES}


@pytest.fixture(scope="module")
def site(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("families")
    (folder / "indexes").mkdir()
    (folder / "samples").mkdir()
    for family, made in folders.items():
        (folder / "indexes" / family).symlink_to(made / "first" / "index")
    site = Site(folder, folder / "indexes", folder / "samples")
    yield site
    site.stop()


def test_the_service_offers_every_family(site: Site) -> None:
    listed = httpx.get(f"{site.url}/v1/indexes", timeout=30).json()["items"]
    assert {index["name"] for index in listed} == set(families.FAMILIES)


# Twice through all families: the worker changes between models that it keeps.
@pytest.mark.parametrize("seed", range(planted.SAMPLES))
@pytest.mark.parametrize("family", families.FAMILIES)
def test_the_api_names_the_planted_work_first(
    family: str, seed: int, site: Site, folders: dict[str, Path]
) -> None:
    response = httpx.post(
        f"{site.url}/v1/attributions",
        data={"index": family, "prompt": planted.PROMPT},
        files={"image": (folders[family] / "first" / f"{seed}.png").open("rb")},
        headers={"Prefer": "wait=60"},
        timeout=90,
    )
    told = response.json()
    assert (response.status_code, told["state"], told["prompt"]) == (200, "succeeded", planted.PROMPT), told
    assert told["index"].partition("@")[0] == family
    assert [told["works"][0]["title"], told["works"][0]["rank"]] == [PLANTED_TITLE, 1]


@pytest.mark.parametrize("family", families.FAMILIES)
def test_the_page_names_the_planted_work_first(
    family: str, site: Site, folders: dict[str, Path], browser: Browser, faults: list[str]
) -> None:
    context = browser.new_context()
    context.set_default_timeout(60_000)
    page = context.new_page()
    page.on("pageerror", lambda error: faults.append(f"script: {error}"))
    page.goto(site.url)
    # In the order one does it: the picture waits for what goes with it.
    page.locator("#image").set_input_files(folders[family] / "first" / "0.png")
    expect(page.locator("#chosen")).to_have_text("0.png")
    page.get_by_label("Index").select_option(label=family)
    page.get_by_label("Prompt").fill(planted.PROMPT)
    page.get_by_role("button", name="Ask").click()
    page.wait_for_url(re.compile(r"/a/att_[0-9a-f]{32}$"))
    expect(page.locator(".ranking li")).to_have_count(len(planted.works()[0]))
    expect(page.locator(".ranking li").first).to_contain_text(PLANTED_TITLE)
    page.locator("summary").click()
    expect(page.locator("main")).to_contain_text(planted.PROMPT)
    context.close()


def test_a_picture_that_was_pasted_waits_for_its_prompt(
    site: Site, folders: dict[str, Path], browser: Browser, faults: list[str], tmp_path: Path
) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    page.goto(site.url)
    picture = (folders["stable-diffusion-xl"] / "first" / "1.png").read_bytes()
    page.evaluate(
        """bytes => {
            const clipboardData = new DataTransfer();
            clipboardData.items.add(new File([new Uint8Array(bytes)], "pasted.png", {type: "image/png"}));
            document.dispatchEvent(new ClipboardEvent("paste", {clipboardData, bubbles: true}));
        }""",
        list(picture),
    )
    preview = page.locator("#chosen img")
    expect(preview).to_be_visible()
    assert preview.evaluate("image => image.decode().then(() => image.naturalWidth)") > 0
    large = tmp_path / "large.png"
    large.write_bytes(b"\0" * 26_000_000)
    page.locator("#image").set_input_files(large)
    expect(page.locator("#image-wrong")).to_contain_text("at most 25 MB")
    expect(page.locator("#chosen")).to_be_hidden()
    page.locator("#image").set_input_files({"name": "a.png", "mimeType": "image/png", "buffer": picture})
    expect(page.locator("#image-wrong")).to_be_hidden()
    page.get_by_label("Index").select_option(label="stable-diffusion-xl")
    page.get_by_label("Prompt").fill("a prompt of its own")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(r"/a/att_[0-9a-f]{32}$"))
    told = httpx.get(page.url.replace("/a/", "/v1/attributions/"), timeout=30).json()
    assert (told["prompt"], told["index"].partition("@")[0]) == ("a prompt of its own", "stable-diffusion-xl")
    context.close()


def test_the_form_carries_the_prompt_without_javascript(
    site: Site, folders: dict[str, Path], browser: Browser
) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    for prompt in (planted.PROMPT, ""):
        page.goto(site.url)
        page.get_by_label("Prompt").fill(prompt)
        page.locator("#image").set_input_files(folders["flux"] / "first" / "0.png")
        page.get_by_role("button", name="Ask").click()
        page.wait_for_url(re.compile(r"/a/att_[0-9a-f]{32}$"))
        told = httpx.get(page.url.replace("/a/", "/v1/attributions/"), timeout=30).json()
        assert told["prompt"] == (prompt or None)
    context.close()


@pytest.mark.parametrize("scripted", [True, False], ids=["script", "plain"])
def test_a_prompt_that_is_refused_leaves_all_else_as_it_was(
    site: Site, folders: dict[str, Path], browser: Browser, scripted: bool
) -> None:
    context = browser.new_context(java_script_enabled=scripted)
    context.set_default_timeout(60_000)
    page = context.new_page()
    page.goto(site.url)
    page.locator("#image").set_input_files(folders["flux"] / "first" / "0.png")
    page.get_by_label("Index").select_option(label="flux")
    page.get_by_label("Prompt").fill("a bell\x07")
    page.get_by_role("button", name="Ask", exact=True).click()
    expect(page.locator("#prompt-wrong")).to_contain_text("control characters")
    expect(page.locator("#prompt")).to_be_focused()
    expect(page.locator("#prompt")).to_have_value("a bell\x07")
    expect(page.get_by_label("Index").locator("option:checked")).to_have_text("flux")
    # No page can put a file back; the script's is still there.
    kept = page.locator("#image").evaluate("field => field.files.length") if scripted else 0
    assert kept == (1 if scripted else 0)
    expect(page.locator("#image-again")).to_have_count(0 if scripted else 1)
    if not scripted:
        page.locator("#image").set_input_files(folders["flux"] / "first" / "0.png")
    page.get_by_label("Prompt").fill("a bell")
    page.get_by_role("button", name="Ask", exact=True).click()
    page.wait_for_url(re.compile(r"/a/att_[0-9a-f]{32}$"))
    told = httpx.get(page.url.replace("/a/", "/v1/attributions/"), timeout=30).json()
    assert (told["prompt"], told["index"].partition("@")[0]) == ("a bell", "flux")
    context.close()
