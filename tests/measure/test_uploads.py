"""`das evaluate uploads`: its sets, its figures, and the page that is made of them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from das.arrivals import ARRIVALS
from das.cli import build_app
from das.config import BuildConfig, ClipSpec
from das.errors import SettingsError
from das.models import load_model
from index_build.build import build
from measure.results import pages
from measure.uploads import synthetic, wilson
from tests.conftest import make_works

OWN = 6


@pytest.fixture(scope="module")
def app() -> typer.Typer:
    return build_app()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, tiny_clip: Path) -> Path:
    """An index with references, a folder of the model's own pictures and one of others."""
    path = tmp_path_factory.mktemp("uploads")
    make_works(path / "works", 30)
    make_works(path / "other", 5)
    config = BuildConfig(
        name="asked",
        model=str(tiny_model),
        works=path / "works",
        timesteps=(100, 500),
        dimension=32,
        clip=ClipSpec(directory=tiny_clip),
        references=100,
    )
    build(config, path / "index")
    model: Any = load_model(str(tiny_model))
    (path / "own").mkdir()
    for number, pixels in enumerate(model.generate([None] * OWN, range(900, 900 + OWN))):
        Image.fromarray(pixels).save(path / "own" / f"{number}.png")
    return path


def test_the_figures_and_their_page(app: typer.Typer, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "uploads-tiny.json"
    command = ["evaluate", "uploads", str(folder / "index"), "--own", str(folder / "own")]
    command += ["--other", f"works={folder / 'other'}", "--out", str(out), "--json"]
    result = CliRunner().invoke(app, command, catch_exceptions=False)
    assert result.exit_code == 0
    report = json.loads(out.read_text())
    assert json.loads(result.stdout) == report
    rows = {(row["set"], row["arrival"]): row for row in report["origin"]}
    assert [arrival for name, arrival in rows if name == "own"] == ["as made", *ARRIVALS]
    assert {name for name, _ in rows} == {"own", "works", "noise", "grey noise", "flat colours", "gradients"}
    for row in rows.values():
        assert row["likely"] + row["unsure"] + row["unlikely"] == row["count"]
        assert row["names_a_creator"] <= row["likely"]
        assert 0 <= row["low"] <= row["error"] <= row["high"] <= 100
    # A model of a few steps' training makes pictures that differ with the processor's rounding.
    likely = rows["own", "as made"]["likely"]
    assert likely >= OWN - 1
    assert rows["noise", "as made"]["count"] == 100
    assert [row["arrival"] for row in report["robustness"]] == list(ARRIVALS)
    for row in report["robustness"]:
        for name, least in (("correlation", -1), ("overlap", 0), ("same_first", 0), ("shares_moved", 0)):
            assert least <= row[f"{name}_low"] <= row[name] <= row[f"{name}_high"] <= 1.0001
    page = pages.pages(tmp_path)["uploads.md"]
    assert "## tiny" in page
    assert f"| **the model's own** | as made | {OWN} | {likely} | {OWN - likely} | 0 |" in page


def test_an_index_without_references_is_told(app: typer.Typer, tiny_index: Path, folder: Path) -> None:
    command = ["evaluate", "uploads", str(tiny_index), "--own", str(folder / "own")]
    with pytest.raises(SettingsError, match="without --references"):
        CliRunner().invoke(app, command, catch_exceptions=False)


def test_a_set_without_a_name_is_told(app: typer.Typer, folder: Path) -> None:
    command = ["evaluate", "uploads", str(folder / "index"), "--own", str(folder / "own"), "--other", "works"]
    with pytest.raises(SettingsError, match="NAME=FOLDER"):
        CliRunner().invoke(app, command, catch_exceptions=False)


@pytest.mark.parametrize("arrival", ARRIVALS)
@pytest.mark.parametrize("size", [(32, 32), (7, 40), (3, 3), (200, 120)])
def test_a_picture_that_arrives_is_still_one(arrival: str, size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.uint8)
    found = ARRIVALS[arrival](pixels)
    assert found.dtype == np.uint8
    assert found.shape[2] == 3
    assert min(found.shape[:2]) >= 1
    assert found.shape != pixels.shape or (found != pixels).any()


def test_the_synthetic_pictures_are_what_they_are_called() -> None:
    sets = {uploads.name: np.stack(uploads.pixels) for uploads in synthetic(16, 3, 20)}
    assert all(values.shape == (20, 16, 16, 3) for values in sets.values())
    assert sets["flat colours"].reshape(20, -1, 3).std(1).max() == 0
    assert sets["noise"].std() > 70
    assert np.abs(np.diff(sets["gradients"].astype(int), axis=2)).max() < 30
    again = {uploads.name: np.stack(uploads.pixels) for uploads in synthetic(16, 3, 20)}
    assert all((again[name] == values).all() for name, values in sets.items())


@pytest.mark.parametrize(("hits", "count", "low", "high"), [(0, 50, 0.0, 0.0713), (25, 50, 0.366, 0.634)])
def test_the_interval_of_a_part(hits: int, count: int, low: float, high: float) -> None:
    """Against values of the interval without continuity correction, as R's prop.test gives them."""
    assert wilson(hits, count) == pytest.approx((low, high), abs=2e-3)
