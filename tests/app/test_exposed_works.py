"""Works of high leverage: told as `exposure`, and the top slice hidden where the operator or privacy wants it."""

from typing import Any

import numpy as np
import pytest

from app.catalogue import Catalogue, ServedIndex
from app.redaction import hidden_id
from app.visibility import NEVER, PUBLIC, RIGHTS_HOLDER, SIGNED_IN, Levels
from das.index import AttributionIndex
from jobs.settings import Settings


@pytest.fixture(scope="module")
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"hide_exposed": 20.0})


@pytest.fixture
def served(tiny_index: Any) -> ServedIndex:
    return ServedIndex(tiny_index, AttributionIndex.open(tiny_index))


def exposed(served: ServedIndex, percent: float) -> set[str]:
    """The ids of the top slice."""
    assert served.exposure is not None
    rows = np.flatnonzero(served.exposure >= 100 - percent)
    return {served.index.works.column("id")[row] for row in rows}


def test_a_work_tells_its_exposure(client: Any, served: ServedIndex) -> None:
    listed = client.get(f"/v1/indexes/{served.id}/works", params={"limit": 100}).json()["items"]
    ids = served.index.works.column("id")
    for work in listed:
        assert work["exposure"] == pytest.approx(served.exposure[ids.index(work["work_id"])], abs=0.006)
    one = client.get(f"/v1/works/{listed[0]['work_id']}").json()
    assert one["exposure"] == listed[0]["exposure"]


def test_the_operators_slice_is_hidden_wherever_works_are_told(
    client: Any, ask: Any, work_off: Any, served: ServedIndex
) -> None:
    top = exposed(served, 20.0)
    assert 0 < len(top) <= len(served) // 5 + 1
    listed = client.get(f"/v1/indexes/{served.id}/works", params={"limit": 100}).json()["items"]
    assert {work["work_id"] for work in listed} == set(served.index.works.column("id")) - top
    for work_id in top:
        assert client.get(f"/v1/works/{work_id}").status_code == 404
        assert client.get(f"/v1/works/{work_id}/thumbnail").status_code == 404
    asked = ask(top_k=str(len(served)))
    work_off()
    told = client.get(asked["links"]["self"]).json()
    assert sum(hidden_id(work["work_id"]) for work in told["works"]) == len(top)
    assert not top & {work["work_id"] for work in told["works"]}
    report = client.get(f"{asked['links']['self']}/report.json").text
    assert not any(work_id in report for work_id in top)


def test_the_top_slice_is_for_rights_holders_by_default_where_nothing_is_public(
    tiny_index: Any, served: ServedIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The tiny index has fewer than a hundred works, so that a percent of it is none.
    assert (Levels(served, "signed-in", None).by_row == SIGNED_IN).all()
    many = np.linspace(0, 99.5, len(served)).astype(np.float32)
    monkeypatch.setitem(served.__dict__, "exposure", many)
    top = many >= 99
    assert top.sum() == 1
    assert (Levels(served, "public", None).by_row == PUBLIC).all(), "an index for everybody hides nothing"
    private = Levels(served, "signed-in", None).by_row
    assert (private[top] == RIGHTS_HOLDER).all()
    assert (private[~top] == SIGNED_IN).all()
    assert (Levels(served, "never", None).by_row == NEVER).all(), "what nobody sees stays so"
    assert (Levels(served, "signed-in", 0.0).by_row == SIGNED_IN).all()
    assert (Levels(served, "public", 100.0).by_row == RIGHTS_HOLDER).all()


def test_an_index_without_leverage_hides_nothing(
    served: ServedIndex, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(served.__dict__, "exposure", None)
    assert (Levels(served, "public", 50.0).by_row == PUBLIC).all()
    catalogue: Catalogue = client.app.state.service.catalogue
    own = catalogue.find(served.id)
    assert own is not None
    work = client.get(f"/v1/indexes/{served.id}/works", params={"limit": 1}).json()["items"][0]
    monkeypatch.setitem(own.__dict__, "exposure", None)
    assert client.get(f"/v1/works/{work['work_id']}").json()["exposure"] is None
