"""`das evaluate intervals`: its figures and their page, on an index and the same one at more timesteps."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from das.cli import build_app
from das.config import BuildConfig, ClipSpec
from das.errors import SettingsError
from das.models import load_model
from index_build.build import build
from measure.results import pages
from tests.conftest import make_works

OWN = 5


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, tiny_clip: Path) -> Path:
    path = tmp_path_factory.mktemp("intervals")
    make_works(path / "works", 24)
    make_works(path / "others", 23)
    options = {
        "name": "asked",
        "model": str(tiny_model),
        "dimension": 32,
        "probes": ("activation",),
        "clip": ClipSpec(directory=tiny_clip),
    }
    for name, works, timesteps, references in (
        ("index", "works", 4, 100),
        ("many", "works", 20, 0),
        ("plain", "works", 4, 0),
        ("other", "others", 4, 0),
    ):
        config = BuildConfig(**options, works=path / works, timesteps=timesteps, references=references)
        build(config, path / name)
    model: Any = load_model(str(tiny_model))
    (path / "own").mkdir()
    for number, pixels in enumerate(model.generate([None] * OWN, range(900, 900 + OWN))):
        Image.fromarray(pixels).save(path / "own" / f"{number}.png")
    return path


def command(folder: Path, index: str, many: str) -> list[str]:
    return [
        "evaluate", "intervals", str(folder / index), "--many", str(folder / many), "--own", str(folder / "own")
    ]  # fmt: skip


def test_the_figures_and_their_page(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "intervals-tiny.json"
    asked = [*command(folder, "index", "many"), "--out", str(out), "--json"]
    result = CliRunner().invoke(build_app(), asked, catch_exceptions=False)
    assert result.exit_code == 0
    report = json.loads(out.read_text())
    assert json.loads(result.stdout) == report
    rows = {row["what"]: row for row in report["coverage"]}
    assert [row["count"] for row in rows.values()] == [OWN, 20 * OWN, OWN, 3 * OWN]
    for row in rows.values():
        assert 0 <= row["low"] <= row["covered"] <= row["high"] <= 100
        assert row["mean_width"] > 0
    assert sum(row["count"] for row in report["first_place"]) == OWN
    assert set(pages.pages(tmp_path)) == {"intervals.md"}
    pages.write(tmp_path)
    assert "| first 20 works | 100 |" in (tmp_path / "intervals.md").read_text()
    assert pages.out_of_step(tmp_path) == []


def test_an_index_held_against_itself_holds(folder: Path) -> None:
    result = CliRunner().invoke(
        build_app(), [*command(folder, "index", "index"), "--json"], catch_exceptions=False
    )
    report = json.loads(result.stdout)
    assert {row["covered"] for row in report["coverage"]} == {100.0}
    assert all(row["stays_first"] == row["count"] for row in report["first_place"])


@pytest.mark.parametrize(
    ("index", "many", "said"), [("index", "other", "the same works"), ("plain", "many", "has no intervals")]
)
def test_what_cant_be_held_against_one_another_is_said(
    folder: Path, index: str, many: str, said: str
) -> None:
    with pytest.raises(SettingsError, match=said):
        CliRunner().invoke(build_app(), command(folder, index, many), catch_exceptions=False)
