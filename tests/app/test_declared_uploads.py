"""Uploads that say what made them: in the answer, as defaults, on the page, and gone when erased."""

import base64
import contextlib
import io
import json
import re
from pathlib import Path

import pytest
from PIL import Image

from app.answers import PROMPT_UNUSED, SEED_UNUSED
from das.provenance import GENERATED
from tests.conftest import make_picture
from tests.das.credentials import TRAINED, created, signed
from tests.das.generated_files import A1111, unicode_comment, with_comment, with_texts

HTML = {"Accept": "text/html"}
SECRET = "a boat that nobody shall know of"
TEXT = A1111.replace("a red boat", SECRET)


@pytest.fixture
def generated() -> bytes:
    return with_texts({"parameters": TEXT}, pixels=make_picture(3))


@pytest.fixture
def post(client, store):
    def post(data: bytes, name: str = "p.png", **fields):
        response = client.post("/v1/attributions", files={"image": (name, data)}, data=fields)
        assert response.status_code == 202, response.text
        return response.json()

    return post


def test_what_the_picture_says_is_in_the_answer_and_asked_with(post, generated):
    body = post(generated)

    told = body["input"]["declared"]
    assert (told["tool"], told["source"], told["seed"]) == ("AUTOMATIC1111", "PNG text parameters", 965400086)
    assert told["prompt"] == f"{SECRET}, <lora:storm:0.8> (waves:1.2)\nat night"
    assert told["loras"][0] == {"name": "storm", "hash": "1f7c5a9b2d3e", "weight": 0.8}
    assert told["taken"] == ["prompt", "seed"]
    assert (body["prompt"], body["seed"]) == (f"{SECRET}, waves\nat night", 965400086)
    # This index's model takes no text and its method no seed: both are kept as facts, and that is said.
    assert {PROMPT_UNUSED, SEED_UNUSED.format(methods="journey-trak")} <= set(body["notes"])


def test_the_request_wins_also_with_an_empty_prompt(post, generated):
    asked = post(generated, prompt="another", seed=7)
    empty = post(generated, prompt="")

    assert (asked["prompt"], asked["seed"], asked["input"]["declared"]["taken"]) == ("another", 7, [])
    assert (empty["prompt"], empty["input"]["declared"]["taken"]) == ("", ["seed"])


def test_the_same_by_json_where_null_is_left_out(client, store, generated):
    body = {"image_base64": base64.b64encode(generated).decode(), "prompt": None}
    told = client.post("/v1/attributions", json=body).json()

    assert told["input"]["declared"]["taken"] == ["prompt", "seed"]


def test_another_model_is_said_first(post, generated, work_off, client):
    body = post(generated)
    work_off()
    told = client.get(body["links"]["self"]).json()

    declared = told["input"]["declared"]
    assert told["notes"][0] == declared["summary"]
    assert declared["summary"].startswith(
        "The picture says that it was made by “v1-5-pruned-emaonly”; this index is of “model”."
    )
    assert declared["is_model_of_index"] == "unknown"
    page = client.get(body["links"]["page"], headers=HTML).text
    verdict = page[page.index("<h1>") : page.index("</header>", page.index("<h1>"))]
    assert re.findall("<p>(.*?)</p>", verdict)[0].startswith("The picture says that it was made by “v1-5")
    assert page.count("The picture says that it was made by") == 1


def test_a_picture_that_says_nothing_has_null(post, picture):
    body = post(picture)

    assert body["input"]["declared"] is None
    assert (body["prompt"], body["seed"]) == (None, None)


def test_jpeg_and_c2pa(post):
    jpeg = post(with_comment(unicode_comment(A1111, "be"), "JPEG"), "p.jpg")
    buffer = io.BytesIO()
    Image.fromarray(make_picture(4)).save(buffer, "PNG")
    manifest = post(signed(buffer.getvalue(), "PNG", created(TRAINED, "Painter")))

    assert jpeg["input"]["declared"]["source"] == "JPEG EXIF UserComment"
    told = manifest["input"]["declared"]
    assert (told["ai_generated"], told["tool"], told["prompt"]) == (True, "Painter", None)
    assert GENERATED in manifest["notes"]


def test_hostile_text_is_text_on_the_page(post, client):
    hostile = A1111.replace("a red boat", "</textarea><script>alert(1)</script>{{ 7*7 }}")
    body = post(with_texts({"parameters": hostile}, pixels=make_picture(3)))

    page = client.get(body["links"]["page"], headers=HTML).text

    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;{{ 7*7 }}" in page


def test_the_stored_picture_carries_none_of_it(post, generated, client):
    body = post(generated)

    stored = client.get(body["links"]["image"]).content

    with Image.open(io.BytesIO(stored)) as image:
        assert image.info == {}
    assert SECRET.encode() not in stored


def test_what_was_said_is_erased_with_the_question(post, generated, client, store, settings):
    body = post(generated)
    assert store.get(body["id"]).input["declared"]["prompt"].startswith(SECRET)

    client.delete(body["links"]["self"])

    assert store.get(body["id"]).input == {}
    for path in Path(settings.data_dir).rglob("*"):
        # A database's side files come and go with those who have it open.
        with contextlib.suppress(FileNotFoundError):
            assert not path.is_file() or SECRET.encode() not in path.read_bytes(), path


def test_asked_again_it_keeps_what_the_file_said(post, generated, client, store):
    body = post(generated)
    client.post(body["links"]["self"] + "/cancel")

    response = client.post(body["links"]["page"] + "/again", headers=HTML, follow_redirects=False)

    job = store.get(response.headers["location"].rpartition("/")[2])
    assert job.input["declared"] == store.get(body["id"]).input["declared"]
    assert job.prompt == body["prompt"]


def test_another_prompt_is_asked_with_from_the_page_without_a_script(
    post, generated, client, store, work_off
):
    body = post(generated)
    work_off()
    for prompt, kept in (("a car,\r\nred", "a car,\nred"), ("", ""), ("ü" * 4000, "ü" * 4000)):
        response = client.post(
            body["links"]["page"] + "/again",
            data={"prompt": prompt},
            headers=HTML,
            follow_redirects=False,
        )
        assert response.status_code == 303, response.text
        job = store.get(response.headers["location"].rpartition("/")[2])
        assert (job.prompt, job.seed) == (kept, 965400086)
        assert job.input["declared"]["taken"] == ["seed"]
        store.erase(job.id)
    refused = client.post(body["links"]["page"] + "/again", data={"prompt": "a" * 4001}, headers=HTML)
    assert refused.status_code == 422
    assert "too long: 4,000 characters at most" in refused.text


def test_without_a_prompt_only_what_ended_badly_is_asked_again(post, generated, client, work_off):
    body = post(generated)
    work_off()

    assert client.post(body["links"]["page"] + "/again", headers=HTML).status_code == 409


def test_answers_stored_before_there_was_any_of_this_are_told(post, picture, client, store):
    body = post(picture)
    job = store.get(body["id"])
    with store.database.write() as session:
        kept = session.get(type(job), body["id"])
        kept.input = {name: value for name, value in kept.input.items() if name != "declared"}

    told = client.get(body["links"]["self"]).json()

    assert told["input"]["declared"] is None
    assert json.dumps(told)
