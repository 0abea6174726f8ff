"""The photographs are the recorded ones, credited and licensed; a changed or missing file is said clearly."""

from dataclasses import replace
from pathlib import Path

import pytest

from demo.photographs import PHOTOGRAPHS, Photograph, PhotographError

ROOT = Path(__file__).parents[2]
LICENCES = {"CC0-1.0", "CC-BY-2.0", "Public-Domain"}


@pytest.mark.parametrize("photograph", PHOTOGRAPHS, ids=lambda photograph: photograph.name)
def test_a_photograph_is_read_and_fully_credited(photograph: Photograph) -> None:
    image = photograph.read()
    assert image.mode == "RGB"
    assert min(image.size) >= 300
    assert photograph.licence.name in LICENCES
    assert photograph.licence.url.startswith("https://creativecommons.org/")
    for text in (photograph.title, photograph.creator, photograph.caption):
        assert text.strip() == text != ""
    assert photograph.source_url.startswith("http")


def test_names_are_unique_and_the_notice_credits_everyone() -> None:
    assert len({photograph.name for photograph in PHOTOGRAPHS}) == len(PHOTOGRAPHS) == 11
    notice = (ROOT / "NOTICE").read_text(encoding="utf-8")
    for photograph in PHOTOGRAPHS:
        for text in (photograph.title, f"by {photograph.creator}", photograph.source_url, photograph.path):
            assert text in notice, text


def test_a_changed_file_is_refused() -> None:
    changed = replace(PHOTOGRAPHS[0], sha256="0" * 64)
    with pytest.raises(PhotographError, match=r"data/astronaut\.png of scikit-image has changed"):
        changed.read()


def test_a_missing_file_and_a_missing_package_are_named() -> None:
    with pytest.raises(PhotographError, match=r"no longer carries data/nowhere\.png"):
        replace(PHOTOGRAPHS[0], path="data/nowhere.png").read()
    with pytest.raises(PhotographError, match=r"come with no_such_package, which is not installed"):
        replace(PHOTOGRAPHS[0], package="no_such_package").read()
