"""`das query`: of a picture that says what made it, and of works whose metadata say anything."""

import json
from pathlib import Path

import typer
from PIL import Image
from typer.testing import CliRunner

from das.config import BuildConfig
from das.query import register
from index_build.build import build
from tests.conftest import make_picture
from tests.das.generated_files import A1111, with_texts


def test_metadata_with_the_names_of_a_rankings_numbers_change_none(tiny_model: Path, tmp_path: Path) -> None:
    works = tmp_path / "works"
    works.mkdir()
    for number in range(4):
        Image.fromarray(make_picture(number)).save(works / f"{number}.png")
    rows = "".join(f"{number}.png,7,7,7,7,box\n" for number in range(4))
    (works / "metadata.csv").write_text("file_name,rank,score,share,percentile,camera\n" + rows)
    config = BuildConfig(
        name="odd", model=str(tiny_model), works=works, timesteps=2, dimension=16, probes=("loss",), references=0,
        clip=None,
    )  # fmt: skip
    build(config, tmp_path / "index")
    app = typer.Typer()
    register(app)
    app.callback()(lambda: None)

    told = CliRunner().invoke(
        app, ["query", str(works / "2.png"), "--index", str(tmp_path / "index"), "--json"]
    )

    assert told.exit_code == 0, told.output
    ranked = json.loads(told.stdout)["works"]
    assert [work["rank"] for work in ranked] == [1, 2, 3, 4]
    assert {work["camera"] for work in ranked} == {"box"}
    assert ranked[0]["file"] == "2.png"
    assert all(0 <= work["share"] <= 1 and work["percentile"] <= 100 for work in ranked)
    assert len({work["score"] for work in ranked}) > 1


def test_the_answer_tells_what_the_picture_says_and_what_was_taken(tiny_index: Path, tmp_path: Path) -> None:
    picture = tmp_path / "generated.png"
    picture.write_bytes(with_texts({"parameters": A1111}, pixels=make_picture(3)))
    app = typer.Typer()
    register(app)
    app.callback()(lambda: None)

    told = CliRunner().invoke(
        app, ["query", str(picture), "--index", str(tiny_index), "--seed", "3", "--json"]
    )

    assert told.exit_code == 0, told.output
    answer = json.loads(told.stdout)
    assert (answer["declared"]["tool"], answer["declared"]["seed"]) == ("AUTOMATIC1111", 965400086)
    assert answer["declared"]["taken"] == ["prompt"]
    assert answer["notes"][0] == answer["declared"]["summary"]
    assert answer["notes"][0].startswith("The picture says that it was made by “v1-5-pruned-emaonly”")
