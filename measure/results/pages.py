"""Writing the pages and figures of a folder of results, and telling whether they are in step with its JSON."""

from pathlib import Path

from das.durable import write_bytes
from das.errors import SettingsError
from measure.results import figures
from measure.results.copies import KIND as COPIES_KIND
from measure.results.copies import copies_page
from measure.results.evaluation import evaluation_page
from measure.results.intervals import KIND as INTERVALS_KIND
from measure.results.intervals import intervals_page
from measure.results.overview import DEMO, overview_page
from measure.results.reports import KINDS, reports
from measure.results.uploads import KIND, uploads_page

OVERVIEW, EVALUATION, UPLOADS, COPIES = "README.md", "evaluation.md", "uploads.md", "copies.md"
INTERVALS = "intervals.md"


def pages(folder: Path) -> dict[str, str]:
    """The text of each page that the folder's JSON makes, by its file name.

    Raises:
        SettingsError: there is nothing to make a page of.
    """
    found: dict[str, str] = {}
    if (folder / DEMO).is_file():
        found[OVERVIEW] = overview_page(folder)
    if any(reports(folder, kind) for kind in KINDS):
        found[EVALUATION] = evaluation_page(folder)
    if reports(folder, KIND):
        found[UPLOADS] = uploads_page(folder)
    if reports(folder, COPIES_KIND):
        found[COPIES] = copies_page(folder)
    if reports(folder, INTERVALS_KIND):
        found[INTERVALS] = intervals_page(folder)
    if not found:
        raise SettingsError(
            f"{folder} holds no results: no {DEMO}, and nothing such as lds-NAME.json that das evaluate wrote."
        )
    return found


def draw(folder: Path) -> list[Path]:
    """Draw every figure that the page of the evaluation shows."""
    return figures.draw(folder, reports(folder, "lds"))


def write(folder: Path) -> list[Path]:
    """Write pages and figures; returns their paths."""
    texts = pages(folder)
    written = draw(folder)
    for name, text in texts.items():
        write_bytes(folder / name, text.encode())
        written.append(folder / name)
    return written


def out_of_step(folder: Path) -> list[str]:
    """Names of pages that aren't what the JSON makes, and of figures that are missing."""
    texts = pages(folder)
    wrong = [
        name
        for name, text in texts.items()
        if not (folder / name).is_file() or (folder / name).read_text() != text
    ]
    shown = [
        name
        for stem, report in reports(folder, "lds").items()
        for name, _ in figures.figures_of(stem, report)
    ]
    return wrong + [name for name in shown if not (folder / name).is_file()]
