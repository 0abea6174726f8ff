"""Reference generations: made by the model or read from a folder, told beforehand, resumed, compared, refused."""

import csv
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from das.attribution import Attributor
from das.config import BuildConfig, ClipSpec
from das.errors import BuildError, ModelError
from das.index import REFERENCES_NAME, AttributionIndex
from das.models import load_model
from das.models.ddpm import DDPMModel
from das.models.latent import LatentModel
from das.references import AS_MADE, FEWEST
from index_build.build import build
from index_build.progress import QuietReporter
from index_build.references import GENERATED, REFERENCE_ARRIVALS
from index_build.workspace import Workspace
from tests.conftest import make_works
from tests.das import families


class Listening(QuietReporter):
    """Keeps what a build says."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.warned: list[str] = []

    def say(self, message: str) -> None:
        self.said.append(message)

    def warn(self, message: str) -> None:
        self.warned.append(message)


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, tiny_clip: Path) -> dict[str, Any]:
    works = tmp_path_factory.mktemp("few") / "works"
    make_works(works, 12)
    return {
        "name": "referenced",
        "model": str(tiny_model),
        "works": works,
        "timesteps": (100, 500),
        "dimension": 32,
        "methods": ("das-block", "das"),
        "clip": ClipSpec(directory=tiny_clip),
        "references": FEWEST,
    }


@pytest.fixture(scope="module")
def generated(options: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Listening]:
    """An index whose references the model made."""
    out, reporter = tmp_path_factory.mktemp("generated") / "index", Listening()
    build(BuildConfig(**options), out, reporter=reporter)
    return out, reporter


@pytest.fixture(scope="module")
def folder(options: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of the model's own, and one file that is none."""
    path = tmp_path_factory.mktemp("own")
    model: Any = load_model(options["model"])
    for number, pixels in enumerate(model.generate([None] * 101, range(101))):
        Image.fromarray(pixels).save(path / f"{number:03d}.png")
    (path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    return path


def test_the_number_and_its_cost_are_told_before_it_begins(generated: tuple[Path, Listening]) -> None:
    said = [line for line in generated[1].said if "reference generations" in line]
    assert len(said) == 1
    assert said[0].startswith("100 reference generations")
    assert "about" in said[0]
    assert "--references 0" in said[0]


def test_what_the_index_says_of_them(generated: tuple[Path, Listening]) -> None:
    index = AttributionIndex.open(generated[0])
    record, references = index.manifest.references, index.references
    assert record is not None
    assert references is not None
    assert (record.count, record.source, record.digest) == (FEWEST, GENERATED, None)
    assert record.arrivals == {AS_MADE: FEWEST} | dict.fromkeys(REFERENCE_ARRIVALS, 50)
    assert {name: len(rows) for name, rows in references.statistics.items()} == record.arrivals
    assert set(references.top_shares) == {"das-block", "das"}
    assert "held against 100 of the model's own" in index.card
    assert index.verify().ok


def test_an_answer_says_whether_the_model_made_the_picture(
    generated: tuple[Path, Listening], options: dict[str, Any]
) -> None:
    attributor = Attributor(AttributionIndex.open(generated[0]))
    model: Any = load_model(options["model"])
    own = attributor.attribute_batch(model.generate([None] * 100, range(5000, 5100)))
    likely = [answer.in_model["verdict"] == "likely" for answer in own if answer.in_model]
    assert len(likely) == 100
    assert np.mean(likely) > 0.9
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    answer = attributor.attribute(noise)
    assert answer.in_model is not None
    assert answer.in_model["verdict"] != "likely"
    assert answer.summary.startswith("No creator is named")
    screened = attributor.attribute(noise, candidates=[0, 1, 2])
    assert screened.certainty is not None
    assert screened.certainty["percentile"] is None


def test_without_references_nothing_is_known(tiny_index: Path) -> None:
    index = AttributionIndex.open(tiny_index)
    assert index.references is None
    assert "Can't be told" in index.card
    answer = Attributor(index).attribute(np.zeros((8, 8, 3), np.uint8))
    assert answer.in_model is None
    assert answer.certainty is None
    assert answer.caveats == ()


def test_a_folder_of_them_is_read(
    folder: Path, options: dict[str, Any], tmp_path: Path, generated: tuple[Path, Listening]
) -> None:
    reporter = Listening()
    config = BuildConfig(**options | {"references": folder})
    out = tmp_path / "index"
    build(config, out, reporter=reporter)
    record = AttributionIndex.open(out).manifest.references
    assert record is not None
    assert (record.count, record.source) == (101, str(folder.resolve()))
    assert any("1 of the references can't be read" in line for line in reporter.warned)
    assert build(config, out).state == "present"
    Image.new("RGB", (16, 16), "red").save(folder / "zz.png")
    try:
        with pytest.raises(BuildError, match="--references"):
            build(config, out)
    finally:
        (folder / "zz.png").unlink()
    with pytest.raises(BuildError, match=r"--references \(100, there"):
        build(BuildConfig(**options), out)
    with pytest.raises(BuildError, match=r"--references \(none, there 100\)"):
        build(BuildConfig(**options | {"references": 0}), generated[0])


def test_a_folder_of_too_few_is_refused(folder: Path, options: dict[str, Any], tmp_path: Path) -> None:
    few = tmp_path / "few"
    few.mkdir()
    for number in range(5):
        shutil.copy(folder / f"{number:03d}.png", few)
    with pytest.raises(BuildError, match="5 pictures that can be read; 100 are the fewest"):
        build(BuildConfig(**options | {"references": few}), tmp_path / "index")


@pytest.mark.parametrize("number", [-1, 1, FEWEST - 1])
def test_too_few_to_tell_are_refused(number: int, options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="100 are the fewest"):
        BuildConfig(**options | {"references": number})


def test_an_interrupted_build_finds_what_was_made(
    generated: tuple[Path, Listening],
    options: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first is stopped at the thirtieth picture; the second makes the others, and ends with the same bytes."""
    made: list[int] = []
    generate = DDPMModel.generate

    def stopping(model: Any, prompts: Any, seeds: list[int]) -> list[np.ndarray]:
        if len(made) + len(seeds) > 30 and not any(seed < 0 for seed in made):
            made.append(-1)
            raise KeyboardInterrupt
        made.extend(seeds)
        return generate(model, prompts, seeds)

    monkeypatch.setattr(DDPMModel, "generate", stopping)
    out = tmp_path / "index"
    with pytest.raises(KeyboardInterrupt):
        build(BuildConfig(**options), out)
    assert any(Workspace(out).references.iterdir())
    build(BuildConfig(**options), out)
    assert len(made) == FEWEST + 1, "none was made twice"
    assert (out / REFERENCES_NAME).read_bytes() == (generated[0] / REFERENCES_NAME).read_bytes()
    assert not Workspace(out).references.exists()
    assert AttributionIndex.open(out).id == AttributionIndex.open(generated[0]).id


FAMILIES = {
    "stable-diffusion": families.make_stable_diffusion,
    "stable-diffusion-xl": families.make_sdxl,
    "stable-diffusion-3": families.make_sd3,
    "flux": families.make_flux,
}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_makes_pictures_of_its_prompts(family: str, tmp_path: Path) -> None:
    FAMILIES[family](tmp_path / family)
    model: Any = load_model(str(tmp_path / family))
    first, other, again = model.generate(["a cat", "a dog", "a cat"], [1, 1, 1])
    assert first.shape == (*model.picture_size, 3)
    assert first.dtype == np.uint8
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_references_are_asked_for_with_the_works_prompts(
    tiny_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    families.make_stable_diffusion(tmp_path / "model")
    works = tmp_path / "works"
    works.mkdir()
    pictures, prompts = families.photographs(6)
    with (works / "metadata.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["file_name", "prompt"])
        for number, (pixels, prompt) in enumerate(zip(pictures, prompts, strict=True)):
            Image.fromarray(pixels).save(works / f"{number}.png")
            writer.writerow([f"{number}.png", prompt])
    asked: list[str | None] = []
    config = BuildConfig(
        name="prompted",
        model=str(tmp_path / "model"),
        works=works,
        timesteps=(100,),
        dimension=32,
        clip=ClipSpec(directory=tiny_clip),
        references=FEWEST,
    )

    def listening(model: Any, prompts: list[str | None], seeds: list[int]) -> list[np.ndarray]:
        """Gives photographs: a hundred pictures would take minutes, and what is asked for is what matters here."""
        asked.extend(prompts)
        return [pictures[seed % len(pictures)] for seed in seeds]

    monkeypatch.setattr(LatentModel, "generate", listening)
    build(config, tmp_path / "index")
    attributor = Attributor(AttributionIndex.open(tmp_path / "index"))
    told = attributor.attribute(pictures[0], prompt=prompts[0])
    assert told.in_model == attributor.attribute(pictures[0]).in_model, (
        "whatever the upload says of its prompt"
    )
    assert set(asked) == set(prompts)
    assert len(asked) == FEWEST


def test_a_family_that_cant_make_any_is_told(
    options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(DDPMModel, "generate")
    with pytest.raises(ModelError, match="--references 0"):
        build(BuildConfig(**options), tmp_path / "index")
