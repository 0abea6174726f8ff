"""Held-out pictures: what a build takes from them, for a model that has learned its works and for one that hasn't."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDPMPipeline
from PIL import Image

from das.attribution import Attributor
from das.config import BuildConfig, ClipSpec
from das.errors import BuildError
from das.index import AttributionIndex
from das.kernel import USUAL_GAP
from das.models import load_model
from index_build.build import build
from index_build.held_out import FEWEST
from tests.conftest import make_picture

WORKS = 24
STEPS = 160
KNOWN, UNKNOWN = "Ada", "Bert"
"""The model is trained on Ada's works alone; the index calls some of Bert's pictures works, too."""


def write_folder(path: Path, pictures: dict[int, str]) -> Path:
    """Pictures by their number, with the creator of each."""
    path.mkdir(parents=True)
    with (path / "metadata.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["file_name", "creator"])
        for number, creator in pictures.items():
            Image.fromarray(make_picture(number)).save(path / f"{number}.png")
            writer.writerow([f"{number}.png", creator])
    return path


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Works, and held-out pictures of the same two creators."""
    base = tmp_path_factory.mktemp("held-out")
    numbers = iter(range(1000))
    works = {next(numbers): KNOWN for _ in range(WORKS)} | {next(numbers): UNKNOWN for _ in range(WORKS)}
    held_out = {next(numbers): creator for creator in (KNOWN, UNKNOWN) for _ in range(20)}
    return write_folder(base / "works", works), write_folder(base / "held-out", held_out)


@pytest.fixture(scope="module")
def trained(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model, trained on Ada's works until it knows them."""
    torch.manual_seed(0)
    pipeline = DDPMPipeline.from_pretrained(tiny_model)
    x0 = torch.stack([torch.from_numpy(make_picture(n).copy()).permute(2, 0, 1) for n in range(WORKS)])
    x0 = x0.float() / 127.5 - 1
    optimiser = torch.optim.AdamW(pipeline.unet.parameters(), lr=2e-3)
    for _ in range(STEPS):
        noise = torch.randn_like(x0)
        t = torch.randint(0, 1000, (len(x0),))
        predicted = pipeline.unet(pipeline.scheduler.add_noise(x0, noise, t), t).sample
        loss = (predicted - noise).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    path = tmp_path_factory.mktemp("trained") / "model"
    pipeline.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def options(tiny_clip: Path, folders: tuple[Path, Path], trained: Path) -> dict[str, Any]:
    works, held_out = folders
    return {
        "name": "held-out",
        "model": str(trained),
        "works": works,
        "timesteps": (100, 500),
        "dimension": 32,
        "clip": ClipSpec(directory=tiny_clip),
        "references": 100,
        "held_out": held_out,
    }


@pytest.fixture(scope="module")
def index(options: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> AttributionIndex:
    out = tmp_path_factory.mktemp("index") / "index"
    build(BuildConfig(**options), out)
    return AttributionIndex.open(out)


def test_the_creator_whose_works_it_learned_is_told_from_the_other(index: AttributionIndex) -> None:
    record = index.manifest.held_out
    assert record is not None
    assert (record.count, record.works) == (40, 2 * WORKS)
    known, unknown = record.creators
    assert (known.name, known.works, known.held_out) == (KNOWN, WORKS, 20)
    assert known.p_adjusted < 0.01
    assert known.gap > 0.02
    assert unknown.name == UNKNOWN
    assert unknown.p_adjusted > 0.05
    assert record.gap_low < record.gap < record.gap_high
    assert 0 < record.gap < known.gap, "half of the works it hasn't learned"
    assert f"| {KNOWN} | {WORKS} | 20 |" in index.card
    assert "knows the works of 1 better" in index.card


def test_the_gap_decides_the_damping(
    index: AttributionIndex, options: dict[str, Any], tmp_path: Path
) -> None:
    assert index.manifest.held_out is not None
    assert index.manifest.held_out.gap_high < USUAL_GAP
    assert index.manifest.held_out.decides_damping
    without = build(BuildConfig(**options | {"held_out": None, "references": 0}), tmp_path / "index")
    by_rule = AttributionIndex.open(without.path).manifest
    assert by_rule.held_out is None
    for ours, theirs in zip(index.manifest.kernels, by_rule.kernels, strict=True):
        assert ours.effective_dimension is not None
        assert theirs.effective_dimension is not None
        assert ours.effective_dimension < theirs.effective_dimension
    given = build(BuildConfig(**options | {"damping": 0.3, "references": 0}), tmp_path / "damped")
    kernel = AttributionIndex.open(given.path).manifest.kernels[0]
    assert kernel.relative_damping == pytest.approx(0.3)


def test_pictures_like_those_held_out_arent_taken_for_the_models(
    index: AttributionIndex, options: dict[str, Any]
) -> None:
    """Others than the ones that the rule was fitted to; the model's own are fresh, too."""
    attributor = Attributor(index)
    own: Any = load_model(options["model"])
    pictures = own.generate([None] * 60, range(9000, 9060))
    likely = [
        told.in_model["verdict"] == "likely" for told in attributor.attribute_batch(pictures) if told.in_model
    ]
    assert np.mean(likely) > 0.85
    foreign = attributor.attribute_batch([make_picture(number) for number in range(2000, 2060)])
    taken = [told.in_model["verdict"] == "likely" for told in foreign if told.in_model]
    assert len(taken) == 60
    assert np.mean(taken) < 0.2
    assert all(told.in_model and 0 < told.in_model["p_value_held_out"] <= 1 for told in foreign)


def test_the_same_again_is_there_and_others_are_refused(
    index: AttributionIndex, options: dict[str, Any], folders: tuple[Path, Path], tmp_path: Path
) -> None:
    assert build(BuildConfig(**options), index.path).state == "present"
    with pytest.raises(BuildError, match=r"the pictures of --held-out \(none, there"):
        build(BuildConfig(**options | {"held_out": None}), index.path)
    few = write_folder(tmp_path / "few", dict.fromkeys(range(500, 500 + FEWEST - 1), KNOWN))
    with pytest.raises(BuildError, match="29 pictures; 30 held-out ones are the fewest"):
        build(BuildConfig(**options | {"held_out": few}), tmp_path / "index")
    with pytest.raises(BuildError, match="48 of the held-out pictures are works too"):
        build(BuildConfig(**options | {"held_out": folders[0]}), tmp_path / "other")


def test_pictures_that_cant_be_read_dont_count(options: dict[str, Any], tmp_path: Path) -> None:
    held_out = write_folder(tmp_path / "held-out", dict.fromkeys(range(500, 500 + FEWEST), KNOWN))
    (held_out / "500.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    with pytest.raises(BuildError, match="only 29 of the held-out pictures"):
        build(BuildConfig(**options | {"held_out": held_out, "references": 0}), tmp_path / "index")
