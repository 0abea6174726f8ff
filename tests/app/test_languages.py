"""The languages: catalogues that say the same, which one a request gets, and how numbers and dates are written."""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from string import Formatter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.datastructures import LanguageAccept
from werkzeug.http import parse_accept_header

from app import wording
from app.language import ENGLISH, LANGUAGES, Language, accepted
from app.moderation.fields import FIELDS
from app.problems import CATALOGUE
from app.schemas import InModel, Share
from das import answer as said

APP = Path(wording.__file__).parent
OTHERS = [language for language in LANGUAGES.values() if language is not ENGLISH]


def placeholders(word: object) -> set[str]:
    forms = word.values() if isinstance(word, dict) else [word]
    return {name for form in forms for _, name, _, _ in Formatter().parse(str(form)) if name is not None}


@pytest.mark.parametrize("language", OTHERS, ids=lambda language: language.code)
def test_every_language_says_all_of_it_with_the_same_placeholders(language: Language) -> None:
    keys = {key for key in language.words if not key.startswith(("error.", "refused.", "field."))}
    assert keys == set(ENGLISH.words)
    for key in keys:
        own, english = language.words[key], ENGLISH.words[key]
        assert type(own) is type(english), key
        assert placeholders(own) == placeholders(english), key
        if isinstance(own, dict):
            assert set(own) == {"one", "other"}, key
        for text in own.values() if isinstance(own, dict) else [own]:
            assert text, key
            assert "\n" not in text, key
    # English has the titles of errors beside their statuses, in app.problems.
    errors = {key.removeprefix("error.") for key in language.words if key.startswith("error.")}
    assert errors <= set(CATALOGUE)
    assert errors >= {"not-found", "unsupported-image", "image-refused", "address-refused", "queue-full"}


@pytest.mark.parametrize("language", OTHERS, ids=lambda language: language.code)
def test_every_reason_to_refuse_a_picture_or_its_address_has_its_words(language: Language) -> None:
    code = "\n".join(
        path.read_text() for folder in (APP, APP.parent / "das" / "images") for path in folder.rglob("*.py")
    )
    reasons = set(re.findall(r'(?:ImageRefused|AddressRefused|_DecoderLostError)\(\s*"([a-z-]+)"', code))
    assert reasons > {"svg", "truncated", "not-public", "status"}
    words = {key.removeprefix("refused.") for key in language.words if key.startswith("refused.")}
    # What passes by itself is no refusal of the picture.
    assert words == reasons - {"decoder-busy"}


@pytest.mark.parametrize("language", OTHERS, ids=lambda language: language.code)
def test_every_field_that_a_rule_may_use_has_its_name(language: Language) -> None:
    names = {
        name if place == "answer" else f"{place}.{name}"
        for place, fields in FIELDS.items()
        for name in fields
    }
    assert {key.removeprefix("field.") for key in language.words if key.startswith("field.")} == names


def test_no_word_is_unused() -> None:
    code = "\n".join(
        path.read_text()
        for pattern in ("*.py", "templates/*.html", "static/*.js")
        for path in APP.rglob(pattern)
    )
    for key in ENGLISH.words:
        begin = key.index(".") + 1
        # Whole, or begun as in `f"step.{step}"` and `"home.lookalikes_" ~ status`.
        begun = (key[:end] + after for end in range(begin, len(key) + 1) for after in '"{')
        assert any(f'"{words}' in code for words in begun), key


def test_no_key_is_asked_for_that_isnt_there() -> None:
    for path in (*APP.rglob("*.py"), *APP.rglob("templates/*.html")):
        for key in re.findall(r'\b(?:t|language|ENGLISH)\("([a-z_]+\.[a-z_A-Z0-9-]+)"', path.read_text()):
            assert key in ENGLISH or key.endswith(("_", ".")), f"{path.name}: {key}"


@pytest.mark.parametrize(
    ("header", "code"),
    [
        ("", "en"), ("de", "de"), ("DE-at", "de"), ("fr-CA, en;q=0.5", "fr"), ("en, de", "en"), ("de, en", "de"),
        ("ja, de;q=0.3", "de"), ("ja", "en"), ("*", "en"), ("ja, *;q=0.1", "en"), ("en;q=0, *", "de"),
        ("de;q=0.5, fr;q=0.8", "fr"), ("de;q=0, fr;q=0", "en"), ("*;q=0", "en"), ("fr;q=0.9, de;q=0.9", "fr"),
        ("de;q=1.5", "en"), ("de;q=x, fr;q=0.1", "fr"), ("de ; q = 0.2 , fr;q=0.1", "de"), (",,;q=1,", "en"),
        ("d\x00e", "en"), ("deu", "en"), ("x" * 5000, "en"), ("ja," * 60 + "de", "en"),
        ("zh-Hans-CN, de-DE;q=0.9", "de"),
    ],
)  # fmt: skip
def test_which_language_a_header_asks_for(header: str, code: str) -> None:
    assert accepted(header).code == code


WEIGHTS = st.sampled_from(["", ";q=0.9", ";q=0.25", ";q=0.001"])
RANGES = st.lists(
    st.tuples(st.sampled_from(["en", "de", "fr", "ja"]), WEIGHTS),
    # Of two that weigh the same, werkzeug takes the one that is offered first, and here goes the one named first.
    unique_by=(lambda one: one[0], lambda one: one[1]),
)


@given(RANGES)
def test_it_is_chosen_as_werkzeug_does(ranges: list[tuple[str, str]]) -> None:
    header = ", ".join(language + weight for language, weight in ranges)
    known = parse_accept_header(header, LanguageAccept).best_match(list(LANGUAGES), default="en")
    assert accepted(header).code == known


@given(st.text())
def test_whatever_a_header_holds_a_language_comes_out(header: str) -> None:
    assert accepted(header) in LANGUAGES.values()


def test_numbers_and_dates_as_each_language_writes_them() -> None:
    german, french = LANGUAGES["de"], LANGUAGES["fr"]
    assert [language.number(1234567.891, 2) for language in (ENGLISH, german, french)] == [
        "1,234,567.89", "1.234.567,89", "1\u202f234\u202f567,89",
    ]  # fmt: skip
    at = datetime(2026, 3, 1, 9, 5, 7, tzinfo=UTC)
    assert [language.moment(at) for language in (ENGLISH, german, french)] == [
        "1 March 2026, 09:05:07 UTC", "1. März 2026, 09:05:07 Uhr UTC", "1 mars 2026 à 09:05:07 UTC",
    ]  # fmt: skip
    assert [wording.percent(0.0949, language) for language in (ENGLISH, german, french)] == [
        "9.5\u00a0%", "9,5\u00a0%", "9,5\u00a0%",
    ]  # fmt: skip
    assert [wording.top(99.17, language) for language in (german, french)] == [
        "in den oberen 0,8\u00a0%", "parmi les 0,8\u00a0% supérieurs",
    ]  # fmt: skip
    assert [german("home.more", n=n) for n in (1, 2, 1500)] == ["1 weiteres", "2 weitere", "1.500 weitere"]
    assert [LANGUAGES["fr"].number_form(n) for n in (0, 1, 2)] == ["one", "one", "other"]


def test_no_number_reads_as_none_or_as_two() -> None:
    def told(write: Callable[[Language], str]) -> list[str]:
        return [write(language) for language in LANGUAGES.values()]

    assert told(lambda language: wording.factor(0.04, language)) == [
        "less than 0.1×", "weniger als 0,1×", "moins de 0,1×",
    ]  # fmt: skip
    assert [wording.factor(value) for value in (0.1, 1.04, 9.94, 9.96, 12.3)] == [
        "0.1×", "1.0×", "9.9×", "10×", "12×",
    ]  # fmt: skip
    share = Share.model_construct(low=0.0, high=0.0005)
    assert told(lambda language: wording.between(share, language)) == [
        "less than 0.1\u00a0%", "weniger als 0,1\u00a0%", "moins de 0,1\u00a0%",
    ]  # fmt: skip
    rare = InModel.model_construct(
        verdict="unlikely",
        p_value=1 / 5001,
        p_value_re_encoded=0.02,
        p_value_held_out=1 / 5001,
        references=5000,
    )
    for language, fact in zip(
        LANGUAGES.values(), told(lambda one: wording._origin_fact(rare, one)), strict=True
    ):
        least, other = language.number(0.001, 3), language.number(0.02, 3)
        assert fact.count(f"p < {least} ") == 2, fact
        assert f" {other}" in fact, fact
        assert language.number(0.0, 3) not in fact, fact


@given(st.floats(0, 1))
def test_english_shares_are_those_of_the_summaries(share: float) -> None:
    assert ENGLISH.percent(share) == said.percent(share)


def test_english_numbers_are_those_of_the_summaries() -> None:
    assert [ENGLISH.counted(n) for n in (0, 3, 10, 11, 1200)] == [
        said.number_word(n) for n in (0, 3, 10, 11, 1200)
    ]
