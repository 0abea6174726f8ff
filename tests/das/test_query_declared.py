"""`das query` of a picture that says what made it."""

import json
from pathlib import Path

import typer
from typer.testing import CliRunner

from das.query import register
from tests.conftest import make_picture
from tests.das.generated_files import A1111, with_texts


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
