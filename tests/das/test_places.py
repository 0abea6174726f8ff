"""Models that moved: found by name or by their files, in the order that das.places states."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from das.attribution import Attributor
from das.errors import ModelError
from das.index import AttributionIndex
from das.places import find, fingerprint, is_lora
from das.sources import is_pipeline
from tests.conftest import make_model

Folder = Callable[[str], Path]


@pytest.fixture
def pipeline(tmp_path: Path) -> Folder:
    """Makes a directory that passes for a pipeline; equal contents have equal fingerprints."""

    def make(name: str, content: str = "one") -> Path:
        path = tmp_path / name
        path.mkdir(parents=True)
        (path / "model_index.json").write_text(content)
        return path

    return make


def test_the_order_in_which_places_are_tried(tmp_path: Path, pipeline: Folder) -> None:
    models = tmp_path / "models"
    recorded = fingerprint(str(pipeline("original/sd")))
    source, together = str(tmp_path / "original/sd"), tmp_path / "beside/sd"

    def found() -> str | None:
        where = find(source, recorded, is_pipeline, models, together)
        return where and str(Path(where).relative_to(tmp_path))

    assert found() == "original/sd"
    (tmp_path / "original").rename(tmp_path / "away")
    assert found() is None
    pipeline("models/other", "two")  # type: ignore[call-arg]
    assert found() == "models/other"  # the only one: whoever loads it compares the weights
    pipeline("beside/sd")
    assert found() == "beside/sd"
    pipeline("models/renamed")
    assert found() == "models/renamed"
    pipeline("models/sd", "saved in another format")  # type: ignore[call-arg]
    assert found() == "models/renamed"
    shutil.rmtree(models / "renamed")
    assert found() == "beside/sd"
    shutil.rmtree(tmp_path / "beside")
    assert found() == "models/sd"
    shutil.rmtree(models / "other")
    pipeline("original/sd")
    assert found() == "models/sd"


def test_the_model_directory_may_be_the_model_and_hub_ids_go_by_name(
    tmp_path: Path, pipeline: Folder
) -> None:
    path = pipeline("anything")
    assert find("/gone/sd", fingerprint(str(path)), is_pipeline, path) == str(path)
    assert find("owner/sd", "id:owner/sd", is_pipeline, None) == "owner/sd"
    assert find("owner/sd", "id:owner/sd", is_pipeline, tmp_path) == "owner/sd"
    assert find("owner/sd", "id:owner/sd", is_pipeline, tmp_path / "missing") == "owner/sd"
    named = pipeline("sd")
    assert find("owner/sd", "id:owner/sd", is_pipeline, tmp_path) == str(named)


def test_a_lora_is_found_by_its_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.safetensors").write_text(name)
    recorded = fingerprint(str(tmp_path / "b.safetensors"))
    assert find("/gone/style.safetensors", recorded, is_lora, tmp_path) == str(tmp_path / "b.safetensors")


def test_an_index_answers_with_its_renamed_model_and_clip(
    tiny_index: Path, tiny_model: Path, tiny_clip: Path, tmp_path: Path
) -> None:
    """As in a container: nothing lies where it was, several models are there, and the right one is found."""
    make_model(tmp_path / "models" / "another", seed=9)
    shutil.copytree(tiny_model, tmp_path / "models" / "mine")
    shutil.copytree(tiny_clip, tmp_path / "models" / "clip-of-mine")
    moved = AttributionIndex.open(tiny_index, model_dir=tmp_path / "models")
    gone = moved.manifest.model_copy(
        update={
            "model": moved.manifest.model.model_copy(update={"source": "/gone/model", "relative": "../gone"}),
            "screening": moved.manifest.screening.model_copy(
                update={"directory": "/gone/clip", "relative": "../gone"}
            ),
        }
    )
    index = AttributionIndex(tiny_index, gone, moved.works, tmp_path / "models")
    assert index.model_source.model == str(tmp_path / "models/mine")
    assert index.clip.directory == tmp_path / "models/clip-of-mine"
    picture = np.full((16, 16, 3), 90, np.uint8)
    there = Attributor(AttributionIndex.open(tiny_index)).attribute(picture)
    assert Attributor(index).attribute(picture).works == there.works

    lost = AttributionIndex(tiny_index, gone, moved.works, tmp_path / "empty")
    with pytest.raises(
        ModelError, match=rf"the model of {lost.id} is no longer at /gone/model, and not in DAS_MODEL"
    ):
        Attributor(lost)
    with pytest.raises(ModelError, match=r"the CLIP model of .* Let --model or DAS_MODEL_DIR name it"):
        _ = lost.clip
