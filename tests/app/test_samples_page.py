"""The samples that the page offers: what samples.json says of them, and how the page shows it."""

import json
from functools import partial
from pathlib import Path

import pytest
from PIL import Image

from app.language import ENGLISH, LANGUAGES, Language
from app.rendering import _words, templates
from app.samples import SHOWN_FIRST, Samples
from das.errors import SettingsError


def folder_of(tmp_path: Path, count: int, told: object = None) -> Path:
    for number in range(count):
        Image.new("RGB", (16, 16), (number, 0, 0)).save(tmp_path / f"{number:02d}.png")
    if told is not None:
        (tmp_path / "samples.json").write_text(json.dumps(told))
    return tmp_path


def home(samples: Samples, language: Language = ENGLISH) -> str:
    return templates.get_template("home.html").render(
        language=language,
        languages=LANGUAGES.values(),
        t=partial(_words, language),
        script_words={},
        max_upload_bytes=25_000_000,
        given={},
        here="/",
        samples=list(samples),
        samples_first=SHOWN_FIRST,
        samples_note=samples.note,
        indexes=[{"works": 1, "creators": None, "status": "ready"}],
    )


def test_a_picture_has_its_word_and_sentence(tmp_path: Path) -> None:
    entries = [{"file": "01.png", "title": "One", "shows": "A <word>", "about": "A sentence."}]
    samples = Samples(folder_of(tmp_path, 2, {"note": "Of all of them.", "samples": entries}))
    assert samples.note == "Of all of them."
    assert [(one.name, one.number, one.title, one.shows, one.about) for one in samples] == [
        ("01.png", 1, "One", "A <word>", "A sentence."),
        ("00.png", 2, "", "", ""),
    ]
    page = home(samples)
    assert "Of all of them." in page
    assert "<span>A &lt;word&gt;</span>" in page
    assert 'title="A sentence."' in page
    assert 'alt="One"' in page
    assert 'title="Sample generation 2"' in page
    assert 'title="Beispielbild 2"' in home(samples, LANGUAGES["de"])
    assert 'title="Image d’exemple 2"' in home(samples, LANGUAGES["fr"])


def test_a_list_needs_no_words(tmp_path: Path) -> None:
    samples = Samples(folder_of(tmp_path, 2, [{"file": "01.png"}]))
    assert (samples.note, [one.shows for one in samples]) == ("", ["", ""])
    assert "told" not in home(samples)
    assert "samples-note" not in home(samples)


@pytest.mark.parametrize("count", [SHOWN_FIRST, SHOWN_FIRST + 4])
def test_what_is_beyond_the_first_rows_is_a_click_away(tmp_path: Path, count: int) -> None:
    page = home(Samples(folder_of(tmp_path, count)))
    first, _, more = page.partition("<details")
    assert first.count('<button type="submit" name="sample"') == SHOWN_FIRST
    assert more.count('<button type="submit" name="sample"') == count - SHOWN_FIRST
    assert ("<summary>4 more</summary>" in more) == (count > SHOWN_FIRST)


@pytest.mark.parametrize("told", [{"note": "x"}, {"samples": 3}, ["a"], 7])
def test_another_file_is_refused(tmp_path: Path, told: object) -> None:
    with pytest.raises(SettingsError, match=r"samples\.json has to be"):
        Samples(folder_of(tmp_path, 1, told))
