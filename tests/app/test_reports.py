"""Reports over HTTP: what they hold, who gets them, and that what is hostile stays text."""

import hashlib
import html
import json

import pytest

from das.evidence.report import LIMITS, pixels_digest
from das.evidence.seal import SigningKey, check_seal
from das.images import decode_png
from das.index import AttributionIndex
from tests.app.conftest import scored


@pytest.fixture
def answered(ask, work_off):
    """Ask with these fields and have it answered; returns the question's id."""

    def answered(**fields) -> str:
        body = ask(**fields)
        work_off()
        return body["id"]

    return answered


def test_a_report_holds_what_computing_it_again_takes(client, answered, picture, tiny_index):
    job_id = answered(top_k="5", prompt="a <b>cat</b>", seed="7")
    body = client.get(f"/v1/attributions/{job_id}").json()
    response = client.get(body["links"]["report"])
    assert response.status_code == 200
    assert response.headers["content-disposition"] == f'attachment; filename="{job_id}-report.json"'
    document = response.json()
    assert check_seal(document) is None
    report = document["report"]
    index = AttributionIndex.open(tiny_index)
    assert report["question"] == {
        "id": job_id,
        "asked_at": report["question"]["asked_at"],
        "finished_at": report["question"]["finished_at"],
        "method": body["method"],
        "candidates": {"mode": "all", "count": len(index)},
        "candidate_works": None,
        "top_k": 5,
        "prompt": "a <b>cat</b>",
        "seed": "7",
    }
    assert report["picture"]["sha256"] == hashlib.sha256(picture).hexdigest()
    assert report["picture"]["pixels"] == pixels_digest(decode_png(picture))
    assert report["index"]["content_digest"] == index.manifest.content_digest
    assert report["index"]["model"]["digest"] == index.manifest.model.digest
    works = report["answer"]["works"]
    assert [work["work_id"] for work in works] == [work["work_id"] for work in body["works"]]
    assert [work["share"] for work in works] == [work["share"] for work in body["works"]]
    row = index.works.row(index.works.row_of(works[0]["work_id"]))
    assert (works[0]["sha256"], works[0]["title"]) == (row["digest"], row["title"])
    assert report["limits"][: len(LIMITS)] == list(LIMITS)
    assert not set(report["limits"]) & set(report["answer"]["notes"])


def test_the_candidates_of_a_screened_question_are_named(client, answered):
    job_id = answered(candidates="4")
    report = client.get(f"/v1/attributions/{job_id}/report.json").json()["report"]
    assert len(report["question"]["candidate_works"]) == report["question"]["candidates"]["count"] == 4


def test_the_page_needs_nothing_else_and_lets_text_be_text(client, answered):
    job_id = answered(top_k="3", prompt="</code><script>alert(1)</script>{{ 7 * 7 }}")
    response = client.get(f"/v1/attributions/{job_id}/report.html")
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert response.headers["content-disposition"].startswith("attachment")
    text = response.text
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;{{ 7 * 7 }}" in text
    assert text.count("data:image/") == 1 + 3
    assert "http://" not in text
    assert "https://" not in text
    for limit in LIMITS:
        assert limit.replace("'", "&#39;") in text
    digest = client.get(f"/v1/attributions/{job_id}/report.json").json()["seal"]["digest"]
    assert digest in text


def test_what_it_is_a_copy_of_is_said(client, ask, store, tiny_index):
    ask()
    index = AttributionIndex.open(tiny_index)
    (job,) = store.leases.claim("a-worker", 1, [index.id])
    match = {
        "work_id": index.works.row(3)["id"], "score": 0.97, "method": "pdq", "mirrored": False, "verdict": "copy",
    }  # fmt: skip
    found = {"verdict": "copy", "score": 0.97, "method": "pdq", "matches": [match]}
    timings = {"queue_wait_ms": 1.5, "engine_ms": 2.5, "batch": 1}
    assert store.leases.finish(job.token, {**scored(index, job), "copy": found}, timings)
    sentence = client.get(f"/v1/attributions/{job.id}").json()["copy"]["summary"]
    assert index.works.row(3)["title"] in sentence
    report = client.get(f"/v1/attributions/{job.id}/report.json").json()["report"]
    assert report["answer"]["copy"]["summary"] == sentence
    page = html.unescape(client.get(f"/v1/attributions/{job.id}/report.html").text)
    assert f"<p>{sentence}</p>" in page


def test_without_an_answer_there_is_no_report(client, ask, store):
    body = ask()
    assert body["links"]["report"] is None
    for kind in ("json", "html"):
        address = f"/v1/attributions/{body['id']}/report.{kind}"
        response = client.get(address)
        assert (response.status_code, response.json()["code"]) == (409, "conflict")
        assert "queued" in response.json()["detail"]
    store.erase(body["id"])
    assert client.get(address).status_code == 410
    assert client.get("/v1/attributions/att_nowhere/report.json").status_code == 404


def test_a_key_signs_and_is_told(client, answered, tmp_path, monkeypatch):
    job_id = answered()
    assert client.get("/v1/report-key").status_code == 404
    key = SigningKey.create(tmp_path / "key.pem")
    monkeypatch.setattr(client.app.state.service, "signing_key", key)
    document = json.loads(client.get(f"/v1/attributions/{job_id}/report.json").content)
    assert check_seal(document, key.public) == key.public
    told = client.get("/v1/report-key").json()
    assert told == {"algorithm": "Ed25519", "key_id": key.public.id, "pem": key.public.pem}


def test_the_page_of_an_answer_leads_to_its_report(client, answered):
    job_id = answered()
    page = client.get(f"/a/{job_id}").text
    assert f'href="/v1/attributions/{job_id}/report.html" download' in page
    assert f'href="/v1/attributions/{job_id}/report.json" download' in page
