"""Rights signals through a build: the table, the card, the API, the summary for the AI Act."""

import csv
from pathlib import Path

import pytest
import typer
from PIL import Image
from starlette.testclient import TestClient
from typer.testing import CliRunner

from app.main import create_app
from das.config import BuildConfig, ClipSpec
from das.errors import WorksError
from das.index import AttributionIndex
from index_build.build import build
from index_build.cli import register
from jobs.database import upgrade
from jobs.settings import Settings
from tests.conftest import make_picture
from tests.das.xmp import xmp


def options(works: Path, model: Path, clip: Path) -> BuildConfig:
    return BuildConfig(
        name="rights",
        model=str(model),
        works=works,
        timesteps=2,
        dimension=16,
        probes=("loss",),
        shard_size=4,
        clip=ClipSpec(directory=clip),
    )


@pytest.fixture(scope="module")
def works(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("works")
    signals = ["", "1", "noai", "", "allowed", ""]
    with (folder / "metadata.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["file_name", "tdm", "licence", "source_url"])
        for number, signal in enumerate(signals):
            extra = {"xmp": xmp("PROHIBITED-GENAIMLTRAINING")} if number in (3, 4) else {}
            Image.fromarray(make_picture(number)).save(folder / f"{number}.jpg", **extra)
            writer.writerow([f"{number}.jpg", signal, "CC0-1.0", f"https://museum.example.org/{number}"])
    return folder


@pytest.fixture(scope="module")
def index(works: Path, tiny_model: Path, tiny_clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("built") / "index"
    build(options(works, tiny_model, tiny_clip), out)
    return out


def test_the_table_keeps_the_strictest_of_file_and_metadata(index):
    opened = AttributionIndex.open(index)

    assert dict(zip(opened.works.column("file"), opened.works.column("tdm"), strict=True)) == {
        "0.jpg": None,
        "1.jpg": "prohibited",
        "2.jpg": "prohibited-ai",
        "3.jpg": "prohibited-generative-ai",
        "4.jpg": "prohibited-generative-ai",
        "5.jpg": None,
    }


def test_the_card_counts_them(index):
    card = str(AttributionIndex.open(index).card)

    assert "4 works carry a signal that reserves" in card
    assert "- prohibited-generative-ai (training of generative AI is reserved): 2\n" in card
    assert "- no signal: 2\n" in card


def test_the_api_tells_and_filters_them(index, tmp_path):
    settings = Settings(_env_file=None, data_dir=tmp_path, index_dir=index)
    upgrade(settings)
    with TestClient(create_app(settings), "http://127.0.0.1:8000") as client:
        works = f"/v1/indexes/{client.get('/v1/indexes').json()['items'][0]['id']}/works"

        def listed(**query) -> list:
            return [
                (work["source_url"][-1], work["tdm"])
                for work in client.get(works, params=query).json()["items"]
            ]

        assert len(listed()) == 6
        assert listed(tdm="prohibited-generative-ai") == [
            ("3", "prohibited-generative-ai"),
            ("4", "prohibited-generative-ai"),
        ]
        assert listed(tdm="none") == [("0", None), ("5", None)]
        assert listed(tdm="allowed") == []
        first = client.get(works, params={"tdm": "none", "limit": 1}).json()
        rest = client.get(works, params={"tdm": "none", "limit": 1, "cursor": first["next_cursor"]}).json()
        assert [work["source_url"][-1] for work in (*first["items"], *rest["items"])] == ["0", "5"]
        assert rest["next_cursor"] is None
        assert client.get(works, params={"tdm": "perhaps"}).status_code == 422
        one = client.get(f"/v1/works/{first['items'][0]['work_id']}").json()
        assert (one["tdm"], "tdm" in one["metadata"]) == (None, False)


def test_a_value_that_is_not_known_ends_the_build_before_it_begins(works, tiny_model, tiny_clip, tmp_path):
    folder = tmp_path / "works"
    folder.mkdir()
    Image.fromarray(make_picture(0)).save(folder / "a.png")
    (folder / "metadata.csv").write_text("file_name,tdm\na.png,perhaps\n")

    with pytest.raises(WorksError, match=r"the column tdm says 'perhaps' of a\.png"):
        build(options(folder, tiny_model, tiny_clip), tmp_path / "index")
    assert not list(tmp_path.glob("index*"))


def test_a_split_that_does_not_add_up_ends_the_build_before_it_begins(tiny_model, tiny_clip, tmp_path):
    folder = tmp_path / "works"
    folder.mkdir()
    Image.fromarray(make_picture(0)).save(folder / "a.png")
    (folder / "metadata.csv").write_text("file_name,rights_holder\na.png,Ada 60%; Eve 50%\n")
    out = tmp_path / "out"
    with pytest.raises(
        WorksError, match=r"rights_holder of a\.png can't be read: its percentages add up to 110"
    ):
        build(options(folder, tiny_model, tiny_clip), out)
    assert not out.exists()


def test_the_summary_fills_in_what_the_index_knows_and_leaves_the_rest_open(index):
    das = typer.Typer()
    register(das)
    told = CliRunner().invoke(das, ["index", "summary", str(index)])

    assert told.exit_code == 0, told.output
    assert "## 2. List of data sources" in told.output
    assert "6 pictures" in told.output
    assert "| museum.example.org | 6 |" in told.output
    assert "| CC0-1.0 | 6 |" in told.output
    assert "| prohibited-generative-ai | 2 |" in told.output
    assert told.output.count("TO BE FILLED IN") > 10
