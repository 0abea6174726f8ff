"""A measured index over HTTP: its card, the answers by the method that was measured, and the page's words."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.answers import quality
from app.catalogue import Catalogue
from app.service import Service
from app.visibility import Visibility
from das.index import AttributionIndex
from das.manifest import NOT_MEASURED
from jobs.settings import Settings
from jobs.store import JobStore
from measure.index_quality import record_quality
from tests.quality import QUALITY

HTML = {"Accept": "text/html"}


@pytest.fixture(scope="module")
def tiny_index(tiny_index: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the index, measured."""
    copy = Path(shutil.copytree(tiny_index, tmp_path_factory.mktemp("measured") / "index"))
    record_quality(AttributionIndex.open(copy), QUALITY)
    return copy


def test_the_card_and_the_answers_of_the_measured_method_carry_the_figure(
    client: TestClient, ask: Callable[..., dict[str, Any]], work_off: Callable[[], Any]
) -> None:
    asked = ask()
    work_off()
    answer = client.get(asked["links"]["self"]).json()
    card = client.get(answer["links"]["index"]).json()
    assert card["quality"] == answer["quality"]
    assert answer["quality"] == {
        "method": "das-block",
        "lds": 41.26,
        "low": 38.04,
        "high": 44.96,
        "ceiling": 55.04,
        "perfect": 74.2,
        "subsets": 36,
        "queries": 1200,
        "truth": "truth, 48 models trained on 36 subsets of the 40 works",
        "measured_at": "2026-01-31T12:00:00Z",
        "note": answer["quality"]["note"],
    }
    assert "all subsets were used" in answer["quality"]["note"]
    assert NOT_MEASURED not in answer["notes"]
    assert "**LDS**: 41.3 %" in card["card"]
    page = client.get(asked["links"]["page"], headers=HTML).text.replace("\u00a0", " ")
    assert "Asked about 1,200 pictures and held against models trained again on 36 subsets" in page
    assert "score of 41.3 % (95 % interval: 38.0 to 45.0 %); a second real retraining reaches 55.0 %." in page
    assert "LDS 41.3 % (38.0 to 45.0 %), ceiling 55.0 %, measured on 31 January 2026" in page


def test_another_methods_answer_says_that_it_was_not_measured(
    client: TestClient, ask: Callable[..., dict[str, Any]], work_off: Callable[[], Any]
) -> None:
    asked = ask(method="das")
    work_off()
    answer = client.get(asked["links"]["self"]).json()
    assert answer["quality"] is None
    assert NOT_MEASURED in answer["notes"]
    page = client.get(asked["links"]["page"], headers=HTML).text
    assert "not measured for this method of the index" in page
    assert "second real retraining" not in page


def test_who_keeps_an_answer_is_told_of_a_new_figure(
    client: TestClient,
    ask: Callable[..., dict[str, Any]],
    work_off: Callable[[], Any],
    settings: Settings,
    store: JobStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = ask()
    work_off()
    service: Service = client.app.state.service  # type: ignore[attr-defined]
    kept = client.get(asked["links"]["self"]).headers["etag"]

    def started_again(settings: Settings) -> Any:
        """What a service says that opens the index now to who has that answer."""
        catalogue = Catalogue.open(settings)
        monkeypatch.setattr(service, "catalogue", catalogue)
        visibility = Visibility(settings, catalogue, store.opt_outs, service.budgets)
        monkeypatch.setattr(service, "visibility", visibility)
        return client.get(asked["links"]["self"], headers={"If-None-Match": kept})

    assert started_again(settings).status_code == 304
    # When it is erased is told as well.
    assert started_again(settings.model_copy(update={"keep_results_seconds": 3600})).status_code == 200
    (served,) = service.catalogue
    record_quality(served.index, QUALITY.model_copy(update={"lds": 12.5}))
    told = started_again(settings)
    record_quality(AttributionIndex.open(served.directory), QUALITY)
    assert (told.status_code, told.json()["quality"]["lds"]) == (200, 12.5)
    assert told.headers["etag"] != kept


def test_a_service_shows_a_new_figure_once_it_opens_the_index_again(settings: Settings) -> None:
    (before,) = Catalogue.open(settings)
    record_quality(before.index, QUALITY.model_copy(update={"ceiling": None, "perfect": None, "lds": 12.5}))
    (after,) = Catalogue.open(settings)
    assert after.id == before.id
    old, new = (quality(served.index.manifest.quality) for served in (before, after))
    assert old is not None
    assert new is not None
    assert (old.lds, new.lds, new.ceiling) == (41.26, 12.5, None)
    record_quality(after.index, QUALITY)
