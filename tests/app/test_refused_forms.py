"""Forms that are refused: what is wrong stands beside its field, in the page's language, and what was typed stays."""

import re
from typing import Any

import pytest
from starlette.requests import Request
from starlette.testclient import TestClient

from app.catalogue import ServedIndex
from app.problems import FieldProblem, Problem
from app.refusals import refusal
from jobs.store import JobStore
from tests.app.form_pages import beside, field

HTML = {"Accept": "text/html"}
GERMAN = {**HTML, "Accept-Language": "de"}
FRENCH = {**HTML, "Accept-Language": "fr"}
ADDRESS = "https://10.0.0.1/a.png?<b>"


@pytest.mark.parametrize(
    ("language", "says"),
    [
        ("en", "This file is empty: choose another."),
        ("de", "Diese Datei ist leer: Wählen Sie eine andere aus."),
        ("fr", "Ce fichier est vide\u00a0: choisissez-en un autre."),
    ],
)
def test_an_empty_file_is_called_empty(client: TestClient, language: str, says: str) -> None:
    headers = {**HTML, "Accept-Language": language}
    page = client.post("/ask", files={"image": ("p.png", b"")}, headers=headers)
    assert (page.status_code, beside(page.text)) == (422, {"image": says})


def test_each_field_has_its_own_sentence_and_what_was_typed_stays(
    client: TestClient, store: JobStore, picture: bytes
) -> None:
    page = client.post("/ask", files={"image": ("p.png", picture)}, data={"image_url": ADDRESS}, headers=HTML)
    assert page.status_code == 422
    both = "Give a picture or an address, not both."
    assert beside(page.text) == {"image": both, "image_url": both}
    assert "2 things have to be mended first:" in page.text
    assert page.text.index('<a href="#image">') < page.text.index('<a href="#image_url">')
    image, address = field(page.text, "image"), field(page.text, "image_url")
    assert 'aria-describedby="image-wrong" aria-invalid="true" autofocus' in image
    assert 'aria-describedby="image_url-wrong" aria-invalid="true"' in address
    assert page.text.count("autofocus") == 1
    assert 'value="https://10.0.0.1/a.png?&lt;b&gt;"' in address
    assert 'name="next" value="/"' in page.text
    assert store.list(limit=1).jobs == []


@pytest.mark.parametrize(
    ("headers", "sentence"),
    [
        (HTML, "The host of the address isn&#39;t known, or isn&#39;t on the public internet."),
        (
            GERMAN,
            "Den Rechner in der Adresse kennt niemand, oder er ist nicht im öffentlichen Internet.",
        ),
        (FRENCH, "La machine de l’adresse n’est pas connue, ou n’est pas sur l’Internet public."),
    ],
)
def test_an_address_that_is_refused_says_so_at_the_address(
    client: TestClient, headers: dict[str, str], sentence: str
) -> None:
    page = client.post(
        "/ask", files={"other": (None, b"")}, data={"image_url": "https://10.0.0.1/"}, headers=headers
    )
    assert beside(page.text) == {"image_url": sentence}
    assert "aria-invalid" not in field(page.text, "image")
    assert f'<a href="#image_url">{sentence}</a>' in page.text


def test_a_file_that_is_refused_says_so_at_the_file_and_another_is_said_to_be_lost(
    client: TestClient, picture: bytes
) -> None:
    refused = client.post("/ask", files={"image": ("p.svg", b"<svg/>")}, headers=FRENCH)
    assert beside(refused.text)["image"].startswith("C’est un dessin SVG")
    assert "image-again" not in refused.text
    # Something that the page has no field for is told on top, and the file has to be chosen again.
    page = client.post("/ask", files={"image": ("p.png", picture)}, data={"top_k": "0"}, headers=GERMAN)
    assert beside(page.text) == {}
    assert re.search(r'Die Anfrage ist nicht gültig\. <span class="fine" lang="en">top_k', page.text)
    assert 'aria-describedby="image-again"' in field(page.text, "image")
    assert "Der Browser behält die gewählte Datei nicht" in page.text


def test_a_form_that_is_shown_for_the_first_time_has_nothing_beside_its_fields(client: TestClient) -> None:
    for address in ("/", "/opt-out", "/sign-in"):
        page = client.get(address, headers=HTML).text
        assert beside(page) == {}
        assert "aria-invalid" not in page
        assert "autofocus" not in page


@pytest.mark.parametrize(
    ("headers", "wrong", "none"),
    [
        (HTML, "This key isn&#39;t known, or it was revoked or has expired.", "Enter a key."),
        (GERMAN, "", "Geben Sie einen Schlüssel ein."),
        (FRENCH, "", "Entrez une clé."),
    ],
)
def test_a_key_that_lets_nobody_in_says_so_beside_its_field(
    client: TestClient, headers: dict[str, str], wrong: str, none: str
) -> None:
    page = client.post("/sign-in", data={"key": "das_secret_thing"}, headers=headers)
    assert page.status_code == 401
    assert wrong in beside(page.text)["key"]
    # A key is no text that a page repeats.
    assert "das_secret_thing" not in page.text
    assert beside(client.post("/sign-in", data={"key": " "}, headers=headers).text) == {"key": none}


def test_a_prompt_that_is_refused_stays_in_the_form_of_its_answer(
    client: TestClient, ask: Any, work_off: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The form is there where the index's model takes a text.
    monkeypatch.setattr(ServedIndex, "conditional", True)
    asked = ask()
    work_off()
    page = client.post(f"/a/{asked['id']}/again", data={"prompt": "a <i>\x07"}, headers=GERMAN)
    assert page.status_code == 422
    assert beside(page.text) == {
        "prompt": "Darin stehen Steuerzeichen, die nicht gespeichert werden können: Schreiben Sie es neu."
    }
    assert "a &lt;i&gt;\x07</textarea>" in page.text
    assert "etag" not in page.headers
    assert f'name="next" value="/a/{asked["id"]}"' in page.text


def test_what_no_language_has_words_for_is_told_in_english_and_says_so() -> None:
    scope = {"type": "http", "path": "/", "headers": [(b"accept-language", b"de")]}
    problem = Problem(
        "invalid-request",
        "a: no; c: never",
        errors=[
            FieldProblem(detail="never.", pointer="/c"),
            FieldProblem(detail="no.", pointer="/a"),
            FieldProblem(detail="nor this.", pointer="/a"),
            FieldProblem(detail="was sent twice.", pointer="/x/0"),
        ],
    )
    told = refusal(Request(scope), problem, {"a": "first", "c": "second"})
    assert [(one.field, one.sentence, one.english) for one in told.mistakes] == [
        ("first", "no.", True),
        ("second", "never.", True),
        ("", "x: was sent twice.", True),
    ]
    assert told.first == "first"
