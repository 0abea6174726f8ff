"""An index that was built without CLIP: what the API offers of it, takes and refuses, and what people read."""

import io
from pathlib import Path

import pytest
from PIL import Image
from starlette.testclient import TestClient

from app.main import create_app
from das.config import BuildConfig
from index_build.build import build
from jobs.database import upgrade
from jobs.settings import Settings
from tests.conftest import make_picture, make_works


@pytest.fixture(scope="module")
def client(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("unscreened")
    make_works(folder / "works", 5)
    build(
        BuildConfig(
            name="unscreened",
            model=str(tiny_model),
            works=folder / "works",
            timesteps=2,
            dimension=16,
            probes=("loss",),
            references=0,
            clip=None,
        ),
        folder / "index",
    )
    settings = Settings(_env_file=None, data_dir=folder / "data", index_dir=folder / "index")
    upgrade(settings)
    with TestClient(create_app(settings), "http://127.0.0.1:8000") as client:
        yield client


def asked(client, candidates: str):
    stream = io.BytesIO()
    Image.fromarray(make_picture(0)).save(stream, "PNG")
    files = {"image": ("a.png", stream.getvalue(), "image/png")}
    return client.post("/v1/attributions", files=files, data={"candidates": candidates})


def test_the_index_says_that_it_has_no_screening(client):
    (index,) = client.get("/v1/indexes").json()["items"]
    assert index["status"] == "none"
    page = client.get("/", headers={"Accept": "text/html"}).text
    assert "left out of this index" in page


def test_a_number_of_candidates_is_refused_and_all_are_taken(client):
    refused = asked(client, "3")
    assert refused.status_code == 422
    assert "was built without screening" in refused.text
    accepted = asked(client, "all")
    assert accepted.status_code == 202
    job = accepted.json()
    assert job["lookalikes"] is None
    assert any("without screening" in note for note in job["notes"])
