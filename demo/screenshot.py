"""`das demo screenshot`: pictures of the real page for the README, taken with Chromium."""

import shutil
from pathlib import Path
from typing import Literal

from das.errors import DasError
from demo.check import start
from demo.home import SAMPLES, DemoIndex
from demo.samples import read_samples
from jobs.settings import Settings

WIDTH, HEIGHT = 1280, 1120  # CSS pixels
SCALE = 1.5  # device pixels per CSS pixel: sharp, and still a small file
# Pictures load as they come into view, which the page's own load event doesn't wait for.
PICTURES_SHOWN = """() => [...document.images]
    .filter(image => image.checkVisibility() && image.getBoundingClientRect().top < innerHeight)
    .every(image => image.complete && image.naturalWidth > 0)"""
Scheme = Literal["light", "dark"]
SCHEMES: tuple[Scheme, ...] = ("light", "dark")


class NoBrowserError(DasError):
    """There is no Chromium to take the pictures with."""


def chromium() -> str:
    """The system's browser. Raises `NoBrowserError` if there is none."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if not found:
        raise NoBrowserError("screenshots need Chromium on the PATH: install Debian's `chromium`")
    return found


def take_screenshots(settings: Settings, index: DemoIndex, out: Path) -> list[Path]:
    """Write home and answer, each light and dark, as PNG files to `out`; returns their paths."""
    from playwright.sync_api import sync_playwright

    executable = chromium()
    out.mkdir(parents=True, exist_ok=True)
    taken: list[Path] = []
    sample = next(sample for sample in read_samples(SAMPLES) if sample.reproduction)
    with start(settings, index) as demo, sync_playwright() as playwright:
        asked = demo.upload(sample.file, (SAMPLES / sample.file).read_bytes())
        demo.wait_for(asked["id"])
        browser = playwright.chromium.launch(
            executable_path=executable, args=["--no-sandbox", "--disable-gpu"]
        )
        for scheme in SCHEMES:
            context = browser.new_context(
                viewport={"width": WIDTH, "height": HEIGHT}, device_scale_factor=SCALE, color_scheme=scheme
            )
            page = context.new_page()
            for name, path in (("home", "/"), ("answer", asked["links"]["page"])):
                page.goto(demo.address + path, wait_until="load")
                page.evaluate("document.fonts.ready")
                page.wait_for_function(PICTURES_SHOWN)
                file = out / f"{name}-{scheme}.png"
                page.screenshot(path=file)
                taken.append(file)
            context.close()
        browser.close()
    return taken
