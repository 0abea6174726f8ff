"""Answers whose version isn't served any more: another tells what works are called, or none who may see them."""

import html
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from app.answers import GONE, REPLACED
from app.catalogue import Catalogue, ServedIndex
from app.language import LANGUAGES
from app.redaction import ABOUT_HIDDEN, WITHHELD, hidden_id
from app.service import Service
from app.visibility import Visibility
from das.answer import NOT_MEASURED
from das.errors import EvidenceError
from das.evidence.recompute import recompute
from das.index import AttributionIndex
from index_build.changing import remove
from jobs.store import JobStore
from tests.app.conftest import scored
from tests.app.pdf_files import pages

HTML = {"Accept": "text/html"}
LIKELY = {"verdict": "likely", "p_value": 0.4, "p_value_re_encoded": 0.5, "references": 100}


@pytest.fixture(scope="module")
def later(tmp_path_factory: pytest.TempPathFactory, tiny_index: Path) -> ServedIndex:
    """A version without the work in the first row."""
    out = tmp_path_factory.mktemp("later") / "second"
    assert remove(AttributionIndex.open(tiny_index), np.arange(1), out).state == "made"
    return ServedIndex(out, AttributionIndex.open(out))


@pytest.fixture
def index(tiny_index: Path) -> AttributionIndex:
    return AttributionIndex.open(tiny_index)


@pytest.fixture
def serve(client: TestClient, store: JobStore, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Serve these indexes and no others, as after a restart."""
    service: Service = client.app.state.service  # type: ignore[attr-defined]

    def serve(*served: ServedIndex) -> None:
        catalogue = Catalogue([*served], None if served else "none is there")
        visibility = Visibility(service.settings, catalogue, store.opt_outs, service.budgets)
        monkeypatch.setattr(service, "catalogue", catalogue)
        monkeypatch.setattr(service, "visibility", visibility)

    return serve


@pytest.fixture
def answered(ask: Callable[..., Any], store: JobStore, index: AttributionIndex) -> dict[str, Any]:
    """A question about a copy of the work in the first row, answered by the first version."""
    asked: dict[str, Any] = ask(candidates="all", top_k="4")
    (job,) = store.leases.claim("a-worker", 1, [index.id])
    match = {
        "work_id": index.works.id_of(0),
        "verdict": "copy",
        "score": 0.97,
        "method": "sscd",
        "mirrored": False,
    }
    copy = {"verdict": "copy", "score": 0.97, "method": "sscd", "matches": [match]}
    result = {**scored(index, job), "in_model": LIKELY, "copy": copy}
    assert store.leases.finish(job.token, result, {"queue_wait_ms": 1.0, "batch": 1})
    return asked


def reports(client: TestClient, asked: dict[str, Any]) -> tuple[dict[str, Any], str, str]:
    """Its report as data, as a page and on paper."""
    found = [client.get(f"{asked['links']['self']}/report.{kind}") for kind in ("json", "html", "pdf")]
    assert [one.status_code for one in found] == [200, 200, 200], [one.text[:300] for one in found]
    return found[0].json()["report"], html.unescape(found[1].text), "\n".join(pages(found[2].content))


def test_reports_say_that_the_version_isnt_served_and_tell_what_is_stored(
    client: TestClient,
    answered: dict[str, Any],
    serve: Any,
    later: ServedIndex,
    index: AttributionIndex,
    tmp_path: Path,
) -> None:
    before = client.get(f"{answered['links']['self']}/report.json").json()["report"]
    serve(later)
    told = client.get(answered["links"]["self"]).json()
    assert told["links"]["report"] == f"{answered['links']['self']}/report.json"
    report, page, paper = reports(client, answered)
    assert report["index"] == {**dict.fromkeys(before["index"]), "id": index.id}
    numbers = [(one["rank"], one["work_id"], one["share"], one["score"]) for one in report["answer"]["works"]]
    assert numbers == [
        (one["rank"], one["work_id"], one["share"], one["score"]) for one in before["answer"]["works"]
    ]
    # The removed work has no title; the others have theirs from the version in its place.
    assert [one["title"] for one in report["answer"]["works"]] == [
        None,
        *(one["title"] for one in before["answer"]["works"][1:]),
    ]
    assert report["answer"]["groups"] == before["answer"]["groups"]
    assert REPLACED.format(index=index.id, served=later.id) in report["answer"]["notes"]
    assert report["quality"] is None
    # It may have been measured: nobody can tell any more.
    assert NOT_MEASURED in before["limits"]
    assert NOT_MEASURED not in report["limits"]
    for words in (page, paper):
        assert "this version isn't served any more" in " ".join(words.split())
        assert "not known any more" in " ".join(words.split())
    with pytest.raises(EvidenceError, match="can't be computed again"):
        recompute(report, index, tmp_path / "any.png")


def test_where_none_is_served_no_work_is_told(
    client: TestClient, answered: dict[str, Any], serve: Any, index: AttributionIndex
) -> None:
    before = client.get(answered["links"]["self"]).json()
    secrets = {*index.works.column("id"), *filter(None, index.works.column("title"))} - {None}
    secrets |= {name for name in index.works.creators if name}
    serve()
    service: Service = client.app.state.service  # type: ignore[attr-defined]
    service.recent.forget(answered["id"])
    told = client.get(answered["links"]["self"]).json()
    assert [(one["rank"], one["share"], one["score"]) for one in told["works"]] == [
        (one["rank"], one["share"], one["score"]) for one in before["works"]
    ]
    assert all(hidden_id(one["work_id"]) for one in told["works"])
    (group,) = told["groups"]["creator"]
    assert group["name"] == WITHHELD
    assert group["share"] == pytest.approx(sum(one["share"] for one in before["groups"]["creator"]))
    assert told["lookalikes"] == []
    assert told["copy"]["verdict"] == "copy"
    assert GONE.format(index=index.id) in told["notes"]
    assert not any("opt-outs" in note for note in told["notes"])
    report, page, paper = reports(client, answered)
    assert report["index"]["content_digest"] is None
    listed = client.get("/v1/attributions").text
    whole = html.unescape(client.get(answered["links"]["page"], headers=HTML).text)
    for text in (json.dumps(told), json.dumps(report), page, paper, listed, whole):
        assert not [one for one in secrets if f'"{one}"' in text or f">{one}<" in text or f"“{one}”" in text]
    for code, language in LANGUAGES.items():
        spoken = client.get(answered["links"]["self"], headers={"Accept-Language": code}).json()
        assert language("note.gone", index=index.id) in spoken["notes"]


def test_decisions_name_nobody_then(
    client: TestClient, answered: dict[str, Any], serve: Any, index: AttributionIndex
) -> None:
    rules = [{"code": "any", "outcome": "review", "when": {"top.share": {"at_least": 0.0001}}}]
    made = client.post("/v1/policies", json={"policy": {"policy": "unserved", "rules": rules}})
    client.post("/v1/policies/unserved/activate", json={"version": made.json()["version"]})
    asked = client.post("/v1/decisions", json={"policy": "unserved", "attribution": answered["id"]})
    assert asked.status_code in (200, 202), asked.text
    before = client.get(asked.json()["links"]["self"]).json()
    assert before["reasons"][0]["works"] == [index.works.id_of(0)]
    serve()
    told = client.get(asked.json()["links"]["self"]).json()
    assert told["outcome"] == before["outcome"] == "review"
    (reason,) = told["reasons"]
    assert (reason["works"], reason["creators"], reason["text"]) == ([], [], ABOUT_HIDDEN)
    assert not any(index.works.column("title")[0] in note for note in told["notes"])
