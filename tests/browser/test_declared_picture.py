"""A picture that says what made it, in a real browser: shown, asked with, and asked again with another prompt."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from das.config import BuildConfig, ClipSpec
from index_build.build import build
from tests.browser.conftest import Site
from tests.conftest import make_picture
from tests.das import families
from tests.das.generated_files import A1111, with_texts

ANSWERED = re.compile(r"/a/att_[0-9a-f]{32}$")


@pytest.fixture(scope="module")
def site(tiny_works: Path, tiny_clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A service with an index of a model that is conditioned on text."""
    folder = tmp_path_factory.mktemp("declared")
    (folder / "samples").mkdir()
    families.make_stable_diffusion(folder / "painter")
    config = BuildConfig(
        name="painter",
        model=str(folder / "painter"),
        works=tiny_works,
        timesteps=2,
        dimension=32,
        probes=("loss",),
        clip=ClipSpec(directory=tiny_clip),
    )
    build(config, folder / "index")
    site = Site(folder, folder / "index", folder / "samples")
    yield site
    site.stop()


@pytest.fixture
def generated(tmp_path: Path) -> Path:
    path = tmp_path / "generated.png"
    path.write_bytes(with_texts({"parameters": A1111}, pixels=make_picture(3)))
    return path


def follow(page: Page, generated: Path) -> None:
    page.locator("#image").set_input_files(generated)
    page.get_by_role("button", name="Ask").click()
    page.wait_for_url(ANSWERED)
    expect(page.locator(".ranking li").first).to_be_visible()
    expect(page.locator(".verdict p").first).to_contain_text("says that it was made by “v1-5-pruned-emaonly”")
    said = page.locator(".declared")
    expect(said).to_contain_text("AUTOMATIC1111")
    expect(said).to_contain_text("PNG text parameters")
    prompt = said.get_by_label("Prompt to ask with")
    expect(prompt).to_have_value("a red boat, waves\nat night")
    expect(page.locator(".verdict")).to_contain_text("It was asked with the prompt that the picture says")
    first = page.url
    prompt.fill("a storm")
    page.get_by_role("button", name="Ask with this prompt").click()
    page.wait_for_url(lambda url: url != first and ANSWERED.search(url) is not None)
    expect(page.locator(".ranking li").first).to_be_visible()
    expect(page.locator(".declared").get_by_label("Prompt to ask with")).to_have_value("a storm")
    expect(page.locator(".verdict")).to_contain_text("from another prompt than the request gives")


def test_what_it_says_is_shown_and_the_prompt_edited(page: Page, generated: Path) -> None:
    follow(page, generated)


def test_the_same_without_a_script(plain_page: Page, generated: Path) -> None:
    follow(plain_page, generated)
