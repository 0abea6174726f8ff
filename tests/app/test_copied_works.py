"""What API and page say of a picture that is a copy of a work, apart from what influence it had."""

import html
from typing import Any

import pytest

from das.copies import UNCLEAR
from das.index import AttributionIndex
from tests.app.conftest import scored

TIMINGS = {"queue_wait_ms": 1.5, "engine_ms": 2.5, "batch": 1}


@pytest.fixture
def answered(client: Any, ask: Any, store: Any, tiny_index: Any) -> Any:
    """Ask, have the worker find `copy` and `in_model`, and return what the API tells and the page's text."""

    def answered(copy: dict[str, Any] | None, in_model: dict[str, Any] | None = None) -> tuple[Any, str]:
        asked = ask()
        index = AttributionIndex.open(tiny_index)
        (job,) = store.leases.claim("a-worker", 1, [index.id])
        result = scored(index, job) | {"copy": copy, "in_model": in_model}
        assert store.leases.finish(job.token, result, TIMINGS)
        page = client.get(asked["links"]["page"], headers={"Accept": "text/html"}).text
        return client.get(asked["links"]["self"]).json(), html.unescape(page)

    return answered


def match(
    work_id: str, verdict: str = "copy", score: float = 0.97, *, mirrored: bool = True
) -> dict[str, Any]:
    return {"work_id": work_id, "verdict": verdict, "score": score, "method": "pdq", "mirrored": mirrored}


def test_a_copy_is_told_on_top_and_beside_the_work_wherever_it_is_named(
    answered: Any, tiny_index: Any
) -> None:
    index = AttributionIndex.open(tiny_index)
    copied, near = index.works.id_of(2), index.works.id_of(0)
    matches = [match(copied), match(near, "near", 0.8, mirrored=False)]
    found = {"verdict": "copy", "score": 0.97, "method": "pdq", "matches": matches}
    told, page = answered(found)
    work = index.works.row(2)
    summary = told["copy"].pop("summary")
    assert told["copy"] == {
        "verdict": "copy",
        "score": 0.97,
        "method": "pdq",
        "mirrored": True,
        "work_id": copied,
        "title": work["title"],
        "creator": work["creator"],
        "thumbnail": f"/v1/works/{copied}/thumbnail",
    }
    assert summary.startswith(f"The picture itself is nearly the same as “{work['title']}”")
    assert "no proof that the model made it" in summary
    assert summary not in told["summary"]
    beside = {work["work_id"]: work["copy"] for work in told["works"] if work["copy"] is not None}
    assert beside == {
        one["work_id"]: {name: one[name] for name in ("verdict", "score", "method", "mirrored")}
        for one in matches
    }
    assert all("copy" in work for work in told["lookalikes"] or ())
    assert summary in page
    assert page.index("<h1>") < page.index(summary)
    assert "Nearly the same picture, mirrored" in page
    assert "A picture close to it" in page
    assert "yes, nearly the same picture; 0.97 of the PDQ hash is that of that work" in page


@pytest.mark.parametrize("verdict", ["likely", "unlikely"])
def test_where_the_model_made_it_nothing_is_said_of_proof(
    verdict: str, answered: Any, tiny_index: Any
) -> None:
    work_id = AttributionIndex.open(tiny_index).works.id_of(1)
    found = {"verdict": "copy", "score": 1.0, "method": "pdq", "matches": [match(work_id, score=1.0)]}
    in_model = {"verdict": verdict, "p_value": 0.5, "p_value_re_encoded": 0.5, "references": 200}
    told, page = answered(found, in_model)
    assert ("no proof" in told["copy"]["summary"]) == (verdict == "unlikely")
    assert told["copy"]["summary"] in page


@pytest.mark.parametrize(
    ("verdict", "score", "says"), [("none", 0.62, None), ("unclear", None, UNCLEAR)], ids=["none", "unclear"]
)
def test_where_there_is_no_copy_nobody_is_named(
    verdict: str, score: float | None, says: str | None, answered: Any
) -> None:
    told, page = answered({"verdict": verdict, "score": score, "method": "pdq", "matches": []})
    assert told["copy"]["summary"] == says
    assert (told["copy"]["verdict"], told["copy"]["score"]) == (verdict, score)
    assert told["copy"]["work_id"] is told["copy"]["title"] is told["copy"]["creator"] is None
    assert (UNCLEAR in page) == (says is not None)
    assert all(work["copy"] is None for work in told["works"])


def test_an_index_without_hashes_and_an_older_answer_tell_null(answered: Any) -> None:
    told, page = answered(None)
    assert told["copy"] is None
    assert "The picture itself" not in page
    assert "not known: works weren't hashed" in page


def test_a_work_that_is_gone_is_told_by_its_id_alone(answered: Any) -> None:
    found = {"verdict": "copy", "score": 0.9, "method": "pdq", "matches": [match("w" * 16, mirrored=False)]}
    told, _ = answered(found)
    assert told["copy"]["work_id"] == "w" * 16
    assert told["copy"]["thumbnail"] is None
    assert told["copy"]["summary"].startswith(
        "The picture itself is nearly the same as a work without a title."
    )
