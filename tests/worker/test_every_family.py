"""Every model family the whole way: tuned on photographs, asked about what it made of a prompt, planted work first.

The questions are pictures that the diffusers pipeline itself generated. Two works have the same prompt, and the two
LoRAs differ only in which of them was planted.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from das.errors import ModelError
from das.index import AttributionIndex
from index_build.build import build
from jobs.models import ClaimedJob, JsonObject
from jobs.settings import Settings
from tests.das import families, planted
from tests.worker.questions import question
from worker.engine import AttributionEngine

LIKENESS = 0.8
"""A generated picture is recognisably a work if its RMS distance to it is below this part of that to any other."""


@pytest.fixture(params=families.FAMILIES)
def folder(request: pytest.FixtureRequest, planted_family: Callable[[str], Path]) -> Path:
    """What `planted.make_family` wrote for one family."""
    return planted_family(request.param)


@pytest.fixture
def engine(folder: Path, tmp_path: Path) -> AttributionEngine:
    """An engine with the indexes of both LoRAs of a family."""
    (tmp_path / "indexes").mkdir()
    for variant in planted.VARIANTS:
        (tmp_path / "indexes" / variant).symlink_to(folder / variant / "index")
    return AttributionEngine(
        Settings(_env_file=None, index_dir=tmp_path / "indexes", data_dir=tmp_path / "data", torch_threads=1)
    )


def generated(folder: Path, variant: str) -> list[np.ndarray]:
    """What the pipeline made of the pair's prompt."""
    return [np.asarray(Image.open(folder / variant / f"{seed}.png")) for seed in range(planted.SAMPLES)]


def index_of(folder: Path, variant: str) -> AttributionIndex:
    return AttributionIndex.open(folder / variant / "index")


def answer(engine: AttributionEngine, job: ClaimedJob, picture: np.ndarray) -> JsonObject:
    (result,) = engine.run([job], [picture], lambda *step: None)
    return result


def test_the_pipeline_makes_what_was_planted(folder: Path) -> None:
    for variant in planted.VARIANTS:
        for picture in generated(folder, variant):
            distances = planted.distances(picture)
            own = distances[planted.row_of(variant)]
            assert own < LIKENESS * np.delete(distances, planted.row_of(variant)).min()


def test_what_was_planted_decides_the_answer(folder: Path, engine: AttributionEngine) -> None:
    """Same prompt, seeds and works: the answer follows the LoRA.

    This holds the whole way together. It doesn't tell influence from similarity: the index is told how often a work
    was trained on, the picture looks like the work, and an index of the LoRA before its training would name the same
    work. What does tell them apart is `das evaluate` with its retrained models.
    """
    for variant in planted.VARIANTS:
        index = index_of(folder, variant)
        for picture in generated(folder, variant):
            result = answer(engine, question(index.id, 3, prompt=planted.PROMPT), picture)
            assert index.works.row_of(result["works"][0]["work_id"]) == planted.row_of(variant)
            assert result["works"][0]["share"] > 0.5


def test_a_picture_of_another_work_is_answered_with_that_work(
    folder: Path, engine: AttributionEngine
) -> None:
    """The planted work, trained on `OFTEN` times as often, may still come before it, but with less of a share."""
    pictures, prompts = planted.works()
    index = index_of(folder, "first")
    row = planted.row_of("first")
    own = answer(engine, question(index.id, 1, prompt=planted.PROMPT), generated(folder, "first")[0])[
        "works"
    ][0]
    for other in range(len(planted.OTHERS)):
        asked = answer(engine, question(index.id, len(pictures), prompt=prompts[other]), pictures[other])
        shares = {index.works.row_of(work["work_id"]): work["share"] for work in asked["works"]}
        assert shares.pop(row) < own["share"]
        assert max(shares, key=shares.__getitem__) == other


def test_a_prompt_reaches_the_network_and_every_method_answers(
    folder: Path, engine: AttributionEngine
) -> None:
    index, (picture, _) = index_of(folder, "first"), generated(folder, "first")
    assert index.manifest.model.conditional
    told = [
        np.array(
            [work["score"] for work in answer(engine, question(index.id, 8, prompt=prompt), picture)["works"]]
        )
        for prompt in (planted.PROMPT, None)
    ]
    assert not np.allclose(*told, rtol=1e-3)
    for method, seed in (("trak", None), ("journey-trak", None), ("journey-trak", 7)):
        job = question(index.id, 3, prompt=planted.PROMPT, method=method, seed=seed)
        assert len(answer(engine, job, picture)["works"]) == 3


def test_an_index_belongs_to_its_lora(folder: Path, tiny_clip: Path, tmp_path: Path) -> None:
    config = planted.build_config(folder, index_of(folder, "first").manifest.name, "first", tiny_clip)
    assert build(config, folder / "first" / "index").state == "present"
    shutil.copytree(folder / "first" / "works", tmp_path / "works")
    missing = {"lora": str(tmp_path / "lora"), "works": tmp_path / "works"}
    with pytest.raises(ModelError, match="lora"):
        build(config.model_copy(update=missing), tmp_path / "another")
