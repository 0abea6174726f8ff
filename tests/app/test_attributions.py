"""Asking, following, listing, cancelling and erasing, over HTTP."""

import base64
import contextlib
import hashlib
import html
import io
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image
from starlette.concurrency import run_in_threadpool

from app import intake, questions
from app.intake import WORTH_WAITING
from app.waiting import MAX_WAIT_S
from das.images import decode_png


def test_an_upload_is_accepted_with_its_lookalikes(client, store, picture):
    response = client.post(
        "/v1/attributions", files={"image": ("p.png", picture)}, data={"client_tag": "batch 7"}
    )
    assert response.status_code == 202
    body = response.json()
    assert response.headers["location"] == f"/v1/attributions/{body['id']}" == body["links"]["self"]
    assert response.headers["retry-after"] == "1"
    assert body["state"] == "queued"
    assert body["client_tag"] == "batch 7"
    assert body["index"].startswith("tiny@")
    assert body["method"] == "das-block"
    assert body["input"] == {
        "sha256": hashlib.sha256(picture).hexdigest(),
        "width": 16,
        "height": 16,
        "format": "PNG",
        "normalisation": [],
        "declared": None,
    }
    assert len(body["lookalikes"]) == 12
    similarities = [work["similarity"] for work in body["lookalikes"]]
    assert similarities == sorted(similarities, reverse=True)
    assert body["progress"] == {
        "stage": "screened", "done": 0, "total": 0, "eta_s": None, "attempt": 0, "waiting": 1
    }  # fmt: skip
    for unmeasured in (
        "works",
        "groups",
        "summary",
        "in_model",
        "quality",
        "candidates",
        "error",
        "finished_at",
    ):
        assert body[unmeasured] is None
    assert client.get(response.headers["location"]).json() == body


def test_a_work_of_the_index_looks_most_like_itself(client, store, tiny_works, tiny_index):
    file = tiny_works / "work-011.png"
    body = client.post("/v1/attributions", files={"image": ("x.png", file.read_bytes())}).json()
    first = body["lookalikes"][0]
    assert first["title"] == "Study no. 11"
    assert first["work_id"] == "w_" + hashlib.sha256(file.read_bytes()).hexdigest()[:16]
    assert first["similarity"] == pytest.approx(1.0, abs=1e-4)


def test_json_asks_the_same_as_a_form(client, store, picture):
    asked = {"image_base64": base64.b64encode(picture).decode(), "top_k": 3, "candidates": 7, "method": "das"}
    by_json = client.post("/v1/attributions", json=asked).json()
    form = {"top_k": "3", "candidates": "7", "method": "das"}
    by_form = client.post("/v1/attributions", files={"image": ("p.png", picture)}, data=form).json()
    for same in ("top_k", "method", "input", "lookalikes", "index"):
        assert by_json[same] == by_form[same]
    assert (by_json["top_k"], by_json["method"]) == (3, "das")


def test_an_answer_names_works_and_creators(client, ask, work_off):
    asked = ask(top_k="5")
    work_off()
    response = client.get(asked["links"]["self"])
    body = response.json()
    assert response.status_code == 200
    assert "retry-after" not in response.headers
    assert body["state"] == "succeeded"
    assert body["candidates"] == {"mode": "all", "count": 40, "scored": None, "asked": "auto"}
    assert [work["rank"] for work in body["works"]] == [1, 2, 3, 4, 5]
    first = body["works"][0]
    assert first["title"] == "Study no. 0"
    assert first["creator"] == first["rights_holder"] == "Ada Lovelace"
    assert first["licence"] == "CC0-1.0"
    assert first["source_url"] == "https://example.org/0"
    assert first["thumbnail"] == f"/v1/works/{first['work_id']}/thumbnail"
    assert first["share"] == pytest.approx(40 / 820)
    assert -1 <= first["similarity"] <= 1
    creators = body["groups"]["creator"]
    assert sum(group["share"] for group in creators) == pytest.approx(1)
    assert {group["name"] for group in creators} == {"Ada Lovelace", "Anna Atkins", "Hokusai"}
    assert all(group["low"] is None and group["high"] is None for group in creators)
    assert body["timings_ms"]["queue_wait"] == 1.5
    assert body["timings_ms"]["gradients"] == 2.0
    assert body["lookalikes"] == asked["lookalikes"]
    assert body["progress"]["stage"] == "scored"


def test_a_number_of_candidates_is_screened_by_clip(client, ask, work_off):
    asked = ask(candidates="6")
    claimed = work_off()
    body = client.get(asked["links"]["self"]).json()
    assert len(claimed.candidate_works) == 6
    assert body["candidates"] == {"mode": "screened", "count": 6, "scored": None, "asked": "6"}
    nearest = [work["work_id"] for work in asked["lookalikes"][:6]]
    assert [work["work_id"] for work in body["works"]] == nearest
    # Percentiles and creators' parts are of those six, and not of the index.
    for code, compared, of_all in (
        ("en", ["of those compared", "Of those compared"], ["of the works</span>", "Of the works"]),
        ("de", ["der verglichenen", "An den verglichenen"], ["der Werke</span>", "An den Werken"]),
        ("fr", ["des œuvres comparées", "Des œuvres comparées"], ["des œuvres</span>", "Des œuvres</th>"]),
    ):
        headers = {"Accept": "text/html", "Accept-Language": code}
        page = html.unescape(client.get(asked["links"]["page"], headers=headers).text)
        assert all(words in page for words in compared), code
        assert not any(words in page for words in of_all), code


@pytest.mark.parametrize("candidates", ["all", "auto", "40", "99999"])
def test_all_works_are_scored_where_screening_would_leave_none_out(ask, work_off, candidates):
    ask(candidates=candidates)
    assert work_off().candidate_works is None


def test_without_a_preference_a_question_answered_at_once_is_still_accepted(
    client, work_off, picture, monkeypatch
):
    """On a small index the worker may be done before the API tells of the question; 202 is what is documented."""
    ask = questions.ask

    async def answered_meanwhile(*given, **claim):
        job = await ask(*given, **claim)
        await run_in_threadpool(work_off)
        return await run_in_threadpool(given[0].store.get, job.id)

    monkeypatch.setattr(questions, "ask", answered_meanwhile)
    response = client.post("/v1/attributions", files={"image": ("p.png", picture)})
    assert (response.status_code, response.json()["state"]) == (202, "succeeded")
    assert "Retry-After" not in response.headers


def test_prefer_wait_answers_with_the_result(client, store, picture, work_off):
    def work_when_asked():
        while not store.queue_depth():
            time.sleep(0.01)
        time.sleep(0.1)
        work_off()

    worker = threading.Thread(target=work_when_asked)
    worker.start()
    response = client.post(
        "/v1/attributions", files={"image": ("p.png", picture)}, headers={"Prefer": "respond-async, wait=20"}
    )
    worker.join()
    assert response.status_code == 200
    assert response.headers["preference-applied"] == "wait=20"
    assert response.json()["state"] == "succeeded"


def test_prefer_wait_gives_up_in_time(client, store, picture):
    began = time.monotonic()
    response = client.post(
        "/v1/attributions", files={"image": ("p.png", picture)}, headers={"Prefer": "wait=1"}
    )
    assert response.status_code == 202
    assert 0.9 < time.monotonic() - began < MAX_WAIT_S


def test_wait_holds_until_it_is_finished(client, ask, work_off, monkeypatch):
    feed, look_on = client.app.state.service.feed, threading.Event()
    versions = feed._versions
    # Woken by the announcement: looks at the database find nothing out until this is over.
    monkeypatch.setattr(feed, "_versions", lambda job_ids: look_on.wait(60) and versions(job_ids))
    try:
        asked = ask()
        timer = threading.Timer(0.3, work_off)
        timer.start()
        began = time.monotonic()
        body = client.get(asked["links"]["self"], params={"wait": MAX_WAIT_S}).json()
        assert time.monotonic() - began < MAX_WAIT_S - 1, "woken, and not after all of its time"
    finally:
        look_on.set()
    assert body["state"] == "succeeded"


def test_an_etag_spares_the_answer_until_something_changes(client, ask, store):
    asked = ask()
    url = asked["links"]["self"]
    tag = client.get(url).headers["etag"]
    same = client.get(url, headers={"If-None-Match": tag})
    assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", tag)
    assert client.get(url, headers={"If-None-Match": 'W/"0", "x"'}).status_code == 200
    timer = threading.Timer(0.2, store.cancel, [asked["id"]])
    timer.start()
    changed = client.get(url, params={"wait": MAX_WAIT_S}, headers={"If-None-Match": tag})
    assert changed.status_code == 200
    assert changed.headers["etag"] != tag
    assert changed.json()["state"] == "cancelled"


def test_what_was_erased_is_gone_for_those_who_know_its_version_too(client, ask):
    url = ask()["links"]["self"]
    tag = client.get(url).headers["etag"]
    client.delete(url)
    for known in (tag, "*"):
        assert client.get(url, headers={"If-None-Match": known}).status_code == 410
        assert client.get(url, params={"wait": 5}, headers={"If-None-Match": known}).status_code == 410


def test_an_upload_is_answered_before_its_lookalikes_where_clip_has_much_to_do(
    client, store, ask, monkeypatch
):
    clip = client.app.state.service.screener.pid
    os.kill(clip, signal.SIGSTOP)
    try:
        monkeypatch.setattr(intake, "SCREENING_PATIENCE_S", 0.2)
        with ThreadPoolExecutor(WORTH_WAITING + 1) as others:
            list(others.map(lambda _: ask(), range(WORTH_WAITING + 1)))
        # Who would wait for CLIP now would do so until the test is given up.
        monkeypatch.setattr(intake, "SCREENING_PATIENCE_S", 3600.0)
        asked = ask()
        assert asked["lookalikes"] is None
        assert any("not found yet" in note for note in asked["notes"])
        url = asked["links"]["self"]
        tag = client.get(url).headers["etag"]
    finally:
        os.kill(clip, signal.SIGCONT)
    told = client.get(url, params={"wait": MAX_WAIT_S}, headers={"If-None-Match": tag})
    assert (told.status_code, len(told.json()["lookalikes"])) == (200, 12)
    assert told.headers["etag"] != tag


def test_the_list_filters_and_pages(client, ask):
    ids = [ask(client_tag="even" if number % 2 == 0 else "odd")["id"] for number in range(5)]
    first = client.get("/v1/attributions", params={"limit": 3}).json()
    assert [item["id"] for item in first["items"]] == ids[:1:-1]
    second = client.get("/v1/attributions", params={"limit": 3, "cursor": first["next_cursor"]}).json()
    assert [item["id"] for item in second["items"]] == ids[1::-1]
    assert second["next_cursor"] is None
    even = client.get("/v1/attributions", params={"client_tag": "even", "state": "queued"}).json()
    assert [item["id"] for item in even["items"]] == ids[4::-2]
    created = client.get(f"/v1/attributions/{ids[2]}").json()["created_at"]
    later = client.get("/v1/attributions", params={"created_after": created}).json()
    assert [item["id"] for item in later["items"]] == [ids[4], ids[3]]
    assert client.get("/v1/attributions", params={"state": "failed"}).json()["items"] == []


def test_a_list_tells_each_question_in_short(client, ask, work_off):
    asked = ask(client_tag="mine", prompt="x" * 4000, top_k="40")
    work_off()
    whole = client.get(asked["links"]["self"]).json()
    (short,) = client.get("/v1/attributions").json()["items"]
    assert short == {
        **{name: whole[name] for name in ("id", "state", "created_at", "started_at", "finished_at")},
        **{name: whole[name] for name in ("client_tag", "index", "method", "summary")},
        "in_model": None,
        "copy": None,
        "links": {"self": asked["links"]["self"], "page": asked["links"]["page"]},
    }
    assert short["summary"]
    assert len(client.get("/v1/attributions").content) < 1500


def test_a_list_tells_the_verdicts(client, ask, store, tiny_index):
    asked = ask()
    (job,) = store.leases.claim("w", 1, [asked["index"]])
    result = {"works": [], "summary": "x", "in_model": {"verdict": "unsure"}, "copy": {"verdict": "near"}}
    store.leases.finish(job.token, result, {})
    (short,) = client.get("/v1/attributions").json()["items"]
    assert (short["in_model"], short["copy"], short["summary"]) == ("unsure", "near", "x")


def test_erased_questions_are_listed_where_they_are_asked_for(client, ask):
    asked = ask(client_tag="mine")
    client.delete(asked["links"]["self"])
    assert client.get("/v1/attributions").json()["items"] == []
    response = client.get("/v1/attributions", params={"state": "erased", "limit": 100})
    assert response.status_code == 200
    gone = next(item for item in response.json()["items"] if item["id"] == asked["id"])
    assert (gone["state"], gone["index"], gone["method"], gone["client_tag"]) == ("erased", None, None, None)


def test_cancelling_stops_an_open_question_only(client, ask, work_off):
    asked = ask()
    cancel = asked["links"]["self"] + "/cancel"
    assert client.post(cancel).json()["state"] == "cancelled"
    assert client.post(cancel).status_code == 200
    assert client.get(asked["links"]["image"]).status_code == 200
    done = ask()
    work_off()
    refused = client.post(done["links"]["self"] + "/cancel")
    assert (refused.status_code, refused.json()["code"]) == (409, "conflict")


def test_erasing_leaves_a_tombstone_and_no_byte_of_the_picture(client, ask, settings):
    asked = ask()
    url, image = asked["links"]["self"], asked["links"]["image"]
    stored = client.get(image).content
    assert client.delete(url).status_code == 204
    for address in (url, image, url + "/cancel"):
        method = "POST" if address.endswith("cancel") else "GET"
        gone = client.request(method, address)
        assert (gone.status_code, gone.json()["code"]) == (410, "erased")
    assert client.delete(url).status_code == 204
    for path in settings.data_dir.rglob("*"):
        # A database's side files come and go with those who have it open.
        with contextlib.suppress(FileNotFoundError):
            assert not path.is_file() or stored not in path.read_bytes()


def test_the_image_is_the_normalised_picture_without_metadata(client, store):
    pixels = np.random.default_rng(1).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    exif[0x010F] = "A camera that should not be known"
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", exif=exif)
    body = client.post("/v1/attributions", files={"image": ("p.png", buffer.getvalue())}).json()
    assert (body["input"]["width"], body["input"]["height"]) == (20, 30)
    assert body["input"]["normalisation"] == ["orientation"]
    image = client.get(body["links"]["image"])
    assert image.headers["content-type"] == "image/png"
    assert b"camera" not in image.content
    assert np.array_equal(decode_png(image.content), np.rot90(pixels, -1))


def test_a_full_queue_says_when_to_come_back(client, ask, store, settings, picture):
    for _ in range(settings.queue_limit):
        ask()
    response = client.post("/v1/attributions", files={"image": ("p.png", picture)})
    assert (response.status_code, response.json()["code"]) == (503, "queue-full")
    assert int(response.headers["retry-after"]) > 0
    assert store.queue_depth() == settings.queue_limit


def test_an_owner_at_the_limit_is_told_before_the_body_is_read(client, ask, store, settings, monkeypatch):
    ask()
    monkeypatch.setattr(store, "settings", settings.model_copy(update={"owner_queue_limit": 1}))
    response = client.post("/v1/attributions", content=b"no form at all", headers={"Content-Type": "x/y"})
    assert (response.status_code, response.json()["code"]) == (503, "queue-full")
    assert "1 of your pictures is already waiting" in response.json()["detail"]
    assert store.queue_depth() == 1
