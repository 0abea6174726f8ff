"""The engine that computes: answers as `das` gives them, each job with its own candidates and length."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from das.config import BuildConfig, ClipSpec
from das.errors import SettingsError, WorksError
from das.images import encode_png
from das.index import AttributionIndex
from das.manifest import MANIFEST_NAME, manifest_bytes, read_manifest
from index_build.build import build
from jobs.settings import Settings
from tests.conftest import make_model
from tests.worker.questions import question
from worker.engine import AttributionEngine, usable_cores


@pytest.fixture(scope="module")
def engine(tiny_index: Path, tmp_path_factory: pytest.TempPathFactory) -> AttributionEngine:
    data_dir = tmp_path_factory.mktemp("data")
    return AttributionEngine(
        Settings(_env_file=None, data_dir=data_dir, index_dir=tiny_index, torch_threads=1)
    )


@pytest.fixture
def ids(tiny_index: Path) -> list[str]:
    return AttributionIndex.open(tiny_index).works.column("id")


def test_a_batch_is_answered_as_each_alone(engine: AttributionEngine, ids: list[str]) -> None:
    (index_id,) = engine.describe()["indexes"]
    rng = np.random.default_rng(5)
    pictures = [rng.integers(0, 256, (20, 24, 3), dtype=np.uint8) for _ in range(2)]
    images = [engine.decode(encode_png(picture)) for picture in pictures]
    assert np.array_equal(images[0], pictures[0])
    chosen = [ids[row] for row in (9, 4, 30, 2)]
    jobs = [question(index_id, 3), question(index_id, 5, works=chosen)]
    steps: list[tuple[str, int, int]] = []
    everything, screened = engine.run(jobs, images, lambda *step: steps.append(step))
    assert len(everything["works"]) == 3
    assert everything["candidates"] == {"mode": "all", "count": 40}
    assert screened["candidates"]["count"] == 4
    assert {work["work_id"] for work in screened["works"]} == set(chosen)
    assert [work["rank"] for work in screened["works"]] == [1, 2, 3, 4]
    assert sum(work["share"] for work in screened["works"]) == pytest.approx(1.0)
    assert everything["summary"]
    assert steps[-1][0] == "scored"
    assert [step[1] for step in steps if step[0] == "gradients"][-1] == steps[-2][2]
    for job, image, together in zip(jobs, images, (everything, screened), strict=True):
        (alone,) = engine.run([job], [image], lambda *step: None)
        assert [work["work_id"] for work in alone["works"]] == [work["work_id"] for work in together["works"]]
        scores = [[work["score"] for work in answer["works"]] for answer in (alone, together)]
        assert scores[0] == pytest.approx(scores[1], rel=1e-4)


def test_a_candidate_that_the_index_no_longer_has_is_left_out(
    engine: AttributionEngine, ids: list[str]
) -> None:
    (index_id,) = engine.describe()["indexes"]
    picture = np.zeros((16, 16, 3), np.uint8)
    asked = question(index_id, 5, works=["w_gone", ids[3], ids[8]])
    (result,) = engine.run([asked], [picture], lambda *step: None)
    assert {work["work_id"] for work in result["works"]} == {ids[3], ids[8]}
    assert result["candidates"] == {"mode": "screened", "count": 2}
    assert result["notes"] == ["1 of the candidates is no longer in the index and was left out."]
    with pytest.raises(WorksError, match="none of the 1 candidates is in tiny@"):
        engine.run([question(index_id, 5, works=["w_gone"])], [picture], lambda *step: None)


def test_what_can_be_found_is_told_before_it_is_loaded(
    engine: AttributionEngine, tiny_index: Path, tmp_path: Path
) -> None:
    several = Settings(_env_file=None, data_dir=tmp_path, index_dir=tmp_path / "indexes")
    assert AttributionEngine.found(several) == []
    (tmp_path / "indexes").mkdir()
    (tmp_path / "indexes" / "tiny").symlink_to(tiny_index)
    (tmp_path / "indexes" / "broken").mkdir()
    (tmp_path / "indexes" / "broken" / "manifest.json").write_text("{}")
    assert AttributionEngine.found(several) == engine.describe()["indexes"]
    engine.keep_up()
    assert len(engine.describe()["indexes"]) == 1


def test_threads_are_the_cores_this_process_may_use() -> None:
    assert usable_cores() >= 1


@pytest.fixture(scope="module")
def half_broken(tiny_index: Path, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Two indexes, of which one has a model that isn't there any more."""
    folder = tmp_path_factory.mktemp("indexes")
    (folder / "whole").symlink_to(tiny_index)
    shutil.copytree(tiny_index, folder / "broken")
    manifest = read_manifest(tiny_index)
    elsewhere = manifest.model.model_copy(update={"source": str(folder / "gone"), "relative": None})
    changed = manifest.model_copy(
        update={"model": elsewhere, "name": "broken", "id": manifest.id.replace("tiny", "broken")}
    )
    (folder / "broken" / MANIFEST_NAME).write_bytes(manifest_bytes(changed))
    return Settings(
        _env_file=None, data_dir=folder / "data", index_dir=folder, torch_threads=1, model_load_seconds=60
    )


def test_a_broken_index_is_named_and_the_others_answer(half_broken: Settings) -> None:
    told: list[str] = []
    engine = AttributionEngine(half_broken, told.append)
    known = engine.describe()
    assert [index_id.split("@")[0] for index_id in known["indexes"]] == ["tiny"]
    assert list(known["failed"]) == ["broken"]
    assert "gone" in known["failed"]["broken"]
    assert sorted(name.split("@")[0] for name in told) == ["broken", "tiny"]
    picture = np.zeros((16, 16, 3), np.uint8)
    (answer,) = engine.run([question(known["indexes"][0], 3)], [picture], lambda *step: None)
    assert len(answer["works"]) == 3


def test_where_every_index_is_broken_nothing_is_served(half_broken: Settings) -> None:
    only = half_broken.model_copy(update={"index_dir": half_broken.index_dir / "broken"})
    with pytest.raises(SettingsError, match="gone"):
        AttributionEngine(only)


def test_an_index_of_a_local_pipeline_answers_elsewhere_with_the_model_directory(
    tiny_model: Path, tiny_clip: Path, tiny_works: Path, tmp_path: Path
) -> None:
    """Built on one machine, served on another: pipeline and CLIP lie in another place under other names."""
    home = tmp_path / "home"
    shutil.copytree(tiny_model, home / "pipeline")
    shutil.copytree(tiny_clip, home / "clip")
    config = BuildConfig(
        name="moved",
        model=str(home / "pipeline"),
        works=tiny_works,
        timesteps=1,
        dimension=16,
        probes=("activation",),
        clip=ClipSpec(directory=home / "clip"),
    )
    built = build(config, home / "index")
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    (home / "pipeline").rename(shelf / "a-model")
    (home / "clip").rename(shelf / "a-clip")
    make_model(shelf / "another", seed=3)
    settings = Settings(_env_file=None, data_dir=tmp_path / "data", index_dir=home / "index", torch_threads=1)

    with pytest.raises(
        SettingsError, match=f"the model of {built.index_id} is no longer at {home}/pipeline, and not in"
    ):
        AttributionEngine(settings)

    engine = AttributionEngine(settings.model_copy(update={"model_dir": shelf}))
    pixels = np.full((16, 16, 3), 120, np.uint8)
    (answer,) = engine.run([question(built.index_id, 3)], [pixels], lambda *_: None)
    assert len(answer["works"]) == 3
    assert AttributionIndex.open(home / "index", model_dir=shelf).clip.directory == shelf / "a-clip"
