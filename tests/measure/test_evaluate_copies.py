"""`das evaluate copies`: its sets, its figures, and the page that is made of them."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from das.arrivals import ARRIVALS
from das.cli import build_app
from das.config import BuildConfig, ClipSpec
from das.errors import SettingsError, WorksError
from index_build.build import build
from measure.results import pages
from tests.das.boxes import boxes

WORKS, SIDE = 6, 128


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, tiny_clip: Path) -> Path:
    """An index of works with much structure, and a folder of a copy, a mirrored copy and two others."""
    path = tmp_path_factory.mktemp("copies")
    (path / "works").mkdir()
    for number in range(WORKS):
        Image.fromarray(boxes(SIDE, SIDE, number)).save(path / "works" / f"{number}.png")
    config = BuildConfig(
        name="asked",
        model=str(tiny_model),
        works=path / "works",
        timesteps=(100, 500),
        dimension=32,
        clip=ClipSpec(directory=tiny_clip),
    )
    build(config, path / "index")
    asked = path / "asked"
    asked.mkdir()
    pictures = {
        "same": boxes(SIDE, SIDE, 1),
        "mirrored": np.ascontiguousarray(boxes(SIDE, SIDE, 2)[:, ::-1]),
        "other": boxes(SIDE, SIDE, 70),
        # It is work 4, and isn't said to be: a false alarm.
        "unsaid": boxes(SIDE, SIDE, 4),
    }
    for name, pixels in pictures.items():
        Image.fromarray(pixels).save(asked / f"{name}.png")
    (asked / "metadata.csv").write_text("file_name,copy_of\nsame.png,1.png\nmirrored.png,3.png\n")
    return path


def test_the_figures_and_their_page(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "copies-tiny.json"
    command = ["evaluate", "copies", str(folder / "index"), "--other", f"asked={folder / 'asked'}"]
    result = CliRunner().invoke(build_app(), [*command, "--out", str(out), "--json"], catch_exceptions=False)
    assert result.exit_code == 0
    report = json.loads(out.read_text())
    assert json.loads(result.stdout) == report
    assert report["index"]["shortest_sides"] == [SIDE, SIDE]
    found = {(row["set"], row["arrival"]): row for row in report["copies"]}
    assert list(found) == [
        ("works", "as made"),
        *(("works", name) for name in ARRIVALS),
        ("asked", "as made"),
    ]
    for arrival in ("as made", "jpeg-90", "flip"):
        assert found["works", arrival]["told"]["rate"] == 100
    for row in found.values():
        assert sum(row[verdict] for verdict in ("copy", "near", "none", "unclear")) == row["count"]
    # Both are called copies, but the mirrored one is of another work than is said.
    asked = found["asked", "as made"]
    assert (asked["count"], asked["copy"], asked["told"]["rate"]) == (2, 2, 50)
    others = {row["set"]: row for row in report["others"]}
    assert set(others) == {"asked", "noise", "grey noise", "flat colours", "gradients"}
    assert (others["asked"]["count"], others["asked"]["copy"], others["asked"]["none"]) == (2, 1, 1)
    assert others["asked"]["told"]["low"] < 50 < others["asked"]["told"]["high"]
    assert others["flat colours"]["unclear"] == 100
    assert others["flat colours"]["highest_score"] is None
    page = pages.pages(tmp_path)["copies.md"]
    assert "## tiny" in page
    assert "| asked | as made | 2 | 2 | 0 | 0 | 0 | 50.0 (" in page
    assert "| flat colours | as made | 100 | 0 | 0 | 0 | 100 | 0.0 (" in page


def test_fewer_works_are_evenly_spaced_and_a_missing_folder_is_named(folder: Path, tmp_path: Path) -> None:
    command = ["evaluate", "copies", str(folder / "index"), "--count", "2", "--json"]
    told = json.loads(CliRunner().invoke(build_app(), command, catch_exceptions=False).stdout)
    assert told["copies"][0]["count"] == 2
    nowhere = CliRunner().invoke(build_app(), [*command, "--works", str(tmp_path / "nowhere")])
    assert isinstance(nowhere.exception, SettingsError)
    assert "--works" in str(nowhere.exception)
    empty = CliRunner().invoke(build_app(), [*command, "--works", str(tmp_path)])
    assert isinstance(empty.exception, WorksError)
    assert f"{tmp_path} holds no images" in str(empty.exception)


def test_a_copy_of_what_is_no_work_is_told(folder: Path, tmp_path: Path) -> None:
    Image.fromarray(boxes(SIDE, SIDE, 1)).save(tmp_path / "one.png")
    (tmp_path / "metadata.csv").write_text("file_name,copy_of\none.png,nowhere.png\n")
    command = ["evaluate", "copies", str(folder / "index"), "--other", f"asked={tmp_path}"]
    result = CliRunner().invoke(build_app(), command)
    assert isinstance(result.exception, SettingsError)
    assert "nowhere.png" in str(result.exception)
