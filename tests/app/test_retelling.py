"""Answers in another language: by the API and on the page, with the same facts, and what stays in English."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.examples import ATTRIBUTION
from app.language import ENGLISH, LANGUAGES
from app.retelling import NOTES, retold, summary_of
from app.schemas import Attribution
from das import answer as said
from das import copies
from das.answer import CandidateSet, GroupShare, RankedWork, summarise
from tests.das.named_works import table

HTML = {"Accept": "text/html"}
GERMAN = {"Accept-Language": "de-AT, en;q=0.5"}
Ask = Callable[..., dict[str, Any]]
WorkOff = Callable[[], Any]


def test_the_api_tells_its_summary_in_the_language_that_is_accepted(
    client: TestClient, ask: Ask, work_off: WorkOff
) -> None:
    asked = ask()
    work_off()
    address = asked["links"]["self"]
    english = client.get(address)
    german = client.get(address, headers=GERMAN)
    french = client.get(address, headers={"Accept-Language": "fr"})
    assert [answer.headers["content-language"] for answer in (english, german, french)] == ["en", "de", "fr"]
    assert all("Accept-Language" in answer.headers["vary"] for answer in (english, german, french))
    assert "Einfluss" in german.json()["summary"]
    assert "influence mesurée" in french.json()["summary"]
    assert any("wurde für diesen Index nicht gemessen" in note for note in german.json()["notes"])
    # All else is the same.
    words = ("summary", "notes")
    assert {k: v for k, v in german.json().items() if k not in words} == {
        k: v for k, v in english.json().items() if k not in words
    }
    # A version that is known in one language isn't known in another.
    tags = {answer.headers["etag"] for answer in (english, german, french)}
    assert len(tags) == 3
    known = {"If-None-Match": german.headers["etag"]}
    assert client.get(address, headers={**GERMAN, **known}).status_code == 304
    assert client.get(address, headers=known).status_code == 200


def test_what_is_kept_and_sealed_stays_english(client: TestClient, ask: Ask, work_off: WorkOff) -> None:
    asked = ask()
    work_off()
    report = client.get(f"{asked['links']['self']}/report.json")
    assert client.get(f"{asked['links']['self']}/report.json", headers=GERMAN).content == report.content
    page = client.get(f"{asked['links']['self']}/report.html", headers={**GERMAN, **HTML}).text
    assert '<html lang="en">' in page
    assert "Works, by influence" in page


def test_the_page_speaks_the_language_and_keeps_the_chosen_one(
    client: TestClient, ask: Ask, work_off: WorkOff
) -> None:
    asked = ask()
    work_off()
    page = client.get(asked["links"]["page"], headers={**HTML, **GERMAN})
    assert '<html lang="de">' in page.text
    assert "Nach Urhebern" in page.text
    assert (page.headers["content-language"], page.headers["vary"]) == (
        "de",
        "Accept, Accept-Language, Cookie",
    )
    form = {"language": "fr", "next": asked["links"]["page"]}
    chosen = client.post("/language", data=form, headers=HTML, follow_redirects=False)
    assert (chosen.status_code, chosen.headers["location"]) == (303, asked["links"]["page"])
    assert re.search(
        r"das_language=fr; HttpOnly; Max-Age=\d+; Path=/; SameSite=lax", chosen.headers["set-cookie"]
    )
    try:
        french = client.get(asked["links"]["page"], headers={**HTML, **GERMAN}).text
        assert '<html lang="fr">' in french
        assert "Par auteur" in french
        assert re.search(r'value="fr" lang="fr" aria-current="true"', french)
        # A program that sends cookies along is answered as it asks.
        assert client.get(asked["links"]["self"], headers=GERMAN).headers["content-language"] == "de"
    finally:
        client.cookies.clear()


def test_a_language_that_isnt_there_is_not_kept_and_nobody_is_led_elsewhere(client: TestClient) -> None:
    for form in (
        {"language": "tlh", "next": "//evil.example"},
        {"language": "../en", "next": "/v1/indexes"},
    ):
        answer = client.post("/language", data=form, headers=HTML, follow_redirects=False)
        assert (answer.status_code, answer.headers["location"]) == (303, "/")
        assert "set-cookie" not in answer.headers


def test_a_refusal_is_told_in_the_language_and_what_is_english_says_so(client: TestClient) -> None:
    page = client.post("/ask", files={"image": ("p.svg", b"<svg/>")}, headers={**HTML, **GERMAN})
    assert page.status_code == 415
    assert '<a href="#image">Das ist eine SVG-Zeichnung: Anweisungen statt Bildpunkte' in page.text
    assert '<p class="mistake" id="image-wrong">Das ist eine SVG-Zeichnung' in page.text
    gone = client.get("/a/att_0", headers={**HTML, **GERMAN})
    assert re.search(r'lang="en">[^<]*There is no attribution with this id', gone.text)
    empty = client.post(
        "/ask",
        # As a browser sends a form that nothing was chosen in.
        content=b'--x\r\nContent-Disposition: form-data; name="image"; filename=""\r\n\r\n\r\n--x--\r\n',
        headers={**HTML, **GERMAN, "Content-Type": "multipart/form-data; boundary=x"},
    )
    assert "Wählen Sie ein Bild aus, oder geben Sie seine Adresse an." in empty.text
    document = client.get("/v1/attributions/att_0", headers=GERMAN).json()
    assert (document["title"], document["detail"]) == (
        "Nicht gefunden",
        "There is no attribution with this id.",
    )


def test_every_sentence_about_the_picture_is_known() -> None:
    a = Attribution.model_validate(ATTRIBUTION)
    values = {
        "references": "64",
        "part": "97 %",
        "count": "3",
        "works": "3",
        "are": "are",
        "were": "were",
        "index": "x@1",
        "served": "x@2",
        "methods": "a",
        "source": "XMP",
        "before": "100",
        "growth": "3",
        "found": "19.8",
        "tokens": "75",
    }
    notes = [template.format(**values) for template in NOTES]
    notes += [f"{said.IN_MODEL_UNLIKELY.format(**values)} {said.NEAREST}"]
    told = a.model_copy(update={"notes": [*notes, "A worker's own words."]})
    for language in LANGUAGES.values():
        found = retold(told, language)
        left = found.left - {a.input.declared and a.input.declared.summary}
        assert left == (set() if language is ENGLISH else {"A worker's own words."})
        if language is not ENGLISH:
            assert not set(found.answer.notes) & set(notes)


ADA, TITLE = "Ada Lovelace", "Notes"


def told(
    creator: str | None, title: str | None, first: RankedWork, groups: list[GroupShare], count: CandidateSet
) -> Attribution:
    """The API's answer with these facts."""
    work = {
        **ATTRIBUTION["works"][0], "title": title, "creator": creator, "share": first.share,
        "low": first.low, "high": first.high, "thumbnail": "/v1/works/w_0/thumbnail",
    }  # fmt: skip
    return Attribution.model_validate(
        {
            **ATTRIBUTION,
            "works": [work],
            "groups": {"creator": [vars(group) for group in groups]},
            "candidates": {"mode": count.mode, "count": count.count, "asked": "all"},
            "in_model": None,
        }
    )


def test_a_sentence_about_another_creator_is_told_and_one_that_would_say_something_else_is_left() -> None:
    first = RankedWork(1, "w_0", 0, 0.1, 0.1, 99.0)
    groups = [GroupShare("Anna Atkins", 0.5, 12, 0.008, 62.5), GroupShare(ADA, 0.1, 1, 0.0007, 150.0)]
    candidates = CandidateSet("all", 1500)
    stored = summarise(table([ADA], [TITLE]), first, groups, candidates)
    a = told(ADA, TITLE, first, groups, candidates)
    for language in LANGUAGES.values():
        sentence = summary_of(a.model_copy(update={"summary": stored}), language)
        assert sentence is not None
        assert sentence.index("Anna Atkins") < sentence.index(TITLE) < sentence.index(ADA)
        # As answers were that named the first work's creator whatever another's works hold.
        assert summary_of(a.model_copy(update={"summary": "One work by Ada Lovelace."}), language) is None


@pytest.mark.parametrize("mode", ["all", "screened", "approximate"])
@pytest.mark.parametrize("creator", [ADA, None])
@pytest.mark.parametrize("title", [TITLE, None])
@pytest.mark.parametrize(
    ("share", "low", "high"), [(0.2, None, None), (0.2, 0.15, 0.26), (0.001, None, None), (0, 0, 0)]
)
@pytest.mark.parametrize(("together", "works"), [(0.3, 2), (0.9, 1200), (0.2, 1), (0.2, 40)])
def test_told_from_the_facts_it_is_the_sentence_that_was_stored(
    mode: Any,
    creator: str | None,
    title: str | None,
    share: float,
    low: Any,
    high: Any,
    together: float,
    works: int,
) -> None:
    first = RankedWork(1, "w_0", 0, share, share, 99.0, low, high)
    factor = together / (works / 1500)
    groups = [GroupShare(ADA, together, works, works / 1500, factor, None if low is None else 0.1, 0.4)]
    candidates = CandidateSet(mode, 1500)
    stored = summarise(table([creator], [title]), first, groups, candidates)
    a = told(creator, title, first, groups, candidates).model_copy(update={"summary": stored})
    assert summary_of(a, ENGLISH) == stored
    for code in ("de", "fr"):
        sentence = summary_of(a, LANGUAGES[code])
        assert sentence is not None
        assert sentence != stored
        # As many shares and intervals as in English, and the same names.
        assert sentence.count("%") == stored.count("%")
        assert (ADA in sentence, TITLE in sentence) == (ADA in stored, TITLE in stored)


@pytest.mark.parametrize("verdict", ["copy", "near", "unclear", "none"])
def test_the_copys_sentence_is_the_english_one_in_english(verdict: Any) -> None:
    from app.retelling import _copy_sentence

    a = Attribution.model_validate(ATTRIBUTION)
    assert a.copied is not None
    for title, creator, mirrored in ((TITLE, ADA, True), (None, ADA, False), (None, None, False)):
        copied = a.copied.model_copy(
            update={"verdict": verdict, "title": title, "creator": creator, "mirrored": mirrored}
        )
        origin = None if a.in_model is None else a.in_model.verdict
        name = copies.name_of(title, creator)
        english = copies.copy_sentence(verdict, name, mirrored=mirrored, in_model=origin)
        assert _copy_sentence(copied, a, ENGLISH) == english
