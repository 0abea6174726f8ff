"""An index with an approximate search, from the worker's engine to what the API tells."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient
from typer.testing import CliRunner

from app.catalogue import Catalogue, ServedIndex
from app.main import create_app
from das.cli import build_app
from das.evidence.recompute import recompute
from das.index import AttributionIndex
from index_build.approximating import approximate
from jobs.database import upgrade
from jobs.settings import Settings
from jobs.store import JobStore
from tests.conftest import make_picture
from worker.engine import AttributionEngine


@pytest.fixture(scope="module")
def settings(many_works: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Settings:
    folder = tmp_path_factory.mktemp("approximate")
    approximate(AttributionIndex.open(many_works("int8")), folder / "index", size=8, depth=400, sample=800)
    found = Settings(_env_file=None, data_dir=folder / "data", index_dir=folder / "index", torch_threads=1)
    upgrade(found)
    return found


def test_what_is_read_of_the_sample_decides_whether_look_alikes_are_chosen(settings: Settings) -> None:
    index = AttributionIndex.open(settings.index_dir)
    served = ServedIndex(settings.index_dir, index)
    # Two feature sets of 32 numbers in a byte each.
    assert served.feature_bytes("das-block") == 800 * 32 * 2
    exact = index.manifest.model_copy(update={"approximate": None})
    whole = ServedIndex(settings.index_dir, AttributionIndex(index.path, exact, index.works))
    assert whole.feature_bytes("das-block") == 3000 * 32 * 2


def test_where_auto_is_screened_all_the_same_whoever_runs_it_is_told(
    tiny_index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("index_build.approximating.FEWEST_WORKS", 40)
    # Two feature sets of 128 numbers in two bytes each, of all 40 works.
    most = 40 * 128 * 2 * 2
    said = "is still screened by CLIP"
    command = ["index", "approximate", str(tiny_index), "--out", str(tmp_path / "index"), "--depth", "20"]
    settings = Settings(_env_file=None, data_dir=tmp_path / "data", index_dir=tmp_path / "index")
    for limit, told in ((most, False), (most - 1, True)):
        monkeypatch.setattr("das.approximation.ALL_UP_TO_FEATURE_BYTES", limit)
        done = CliRunner().invoke(build_app(), [*command, "--bytes", "4"])
        assert done.exit_code == 0, done.output
        assert (said in done.stdout) == told
        assert ("--sample 39" in done.stdout) == told
        caplog.clear()
        assert len(Catalogue.open(settings)) == 1
        assert (said in caplog.text) == told


def test_an_answer_is_told_as_approximate_everywhere(settings: Settings, tmp_path: Path) -> None:
    engine = AttributionEngine(settings)
    stream = io.BytesIO()
    Image.fromarray(make_picture(3)).save(stream, "PNG")
    with TestClient(create_app(settings), "http://127.0.0.1:8000") as client:
        (index,) = client.get("/v1/indexes").json()["items"]
        search = client.get(f"/v1/indexes/{index['id']}").json()["approximate"]
        assert (search["method"], search["sample"], search["queries"]) == ("das-block", 800, 50)
        assert 0.8 < search["recall_at_20"] <= 1
        asked = client.post("/v1/attributions", files={"image": ("a.png", stream.getvalue(), "image/png")})
        job_id = asked.json()["id"]
        store = JobStore(settings)
        (claimed,) = store.leases.claim("worker", 1, [index["id"]])
        (result,) = engine.run([claimed], [make_picture(3)], lambda *_: None)
        assert result["candidates"]["mode"] == "approximate"
        assert store.leases.finish(claimed.token, result, {})
        told = client.get(f"/v1/attributions/{job_id}").json()
        assert told["candidates"] == {
            "mode": "approximate",
            "count": 3000,
            "scored": result["candidates"]["scored"],
            "asked": "auto",
        }
        assert any("approximate search" in note for note in told["notes"])
        german = client.get(f"/v1/attributions/{job_id}", headers={"Accept-Language": "de"}).json()
        assert any("Näherungssuche" in note for note in german["notes"])
        page = client.get(f"/a/{job_id}", headers={"Accept": "text/html"}).text
        assert "found by an approximate search" in page
        report = client.get(f"/v1/attributions/{job_id}/report.json").json()["report"]
    (tmp_path / "a.png").write_bytes(stream.getvalue())
    again = recompute(report, AttributionIndex.open(settings.index_dir), tmp_path / "a.png")
    assert again.agrees
    assert again.works == len(np.unique([work["work_id"] for work in told["works"]]))
