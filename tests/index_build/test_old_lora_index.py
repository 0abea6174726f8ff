"""Indexes that were built when a model could have one LoRA, which their manifests call `lora`."""

import hashlib
import json
from pathlib import Path

import pytest
from test_build_loras import base, config, save_lora, works  # noqa: F401 - fixtures

from das.attribution import Attributor
from das.errors import IndexFormatError
from das.index import AttributionIndex
from das.loras import LoraChoice
from das.manifest import canonical_json
from index_build.build import build

NEWER = ("loras", "config", "network", "remarks")
"""What a model's record has had since."""


def make_old(index: Path) -> None:
    """Write the manifest as it was then: `lora` a path, its fingerprint only behind the model's."""
    body = json.loads((index / "manifest.json").read_text())
    del body["digest"]
    model = body["model"]
    (lora,) = model["loras"]
    for name in NEWER:
        del model[name]
    assert model["fingerprint"].endswith(f" {lora['fingerprint']}")
    model["lora"] = lora["source"]
    (body["config"]["lora"],) = body["config"]["lora"]
    body.pop("weight_files", None)
    digest = hashlib.sha256(canonical_json(body)).hexdigest()
    (index / "manifest.json").write_bytes(canonical_json({**body, "digest": digest}))


@pytest.fixture(scope="module")
def old(base, works, tiny_clip, tmp_path_factory) -> tuple[Path, Path, list[float]]:  # noqa: F811
    """An index with an old manifest, its LoRA, and what the index answered before it had it."""
    folder = tmp_path_factory.mktemp("old")
    lora = save_lora(folder / "style.safetensors", 0)
    build(config(base, works, tiny_clip, str(lora)), folder / "index")
    answer = Attributor(AttributionIndex.open(folder / "index")).attribute(
        works / "2_cat" / "0.png", prompt="a cat"
    )
    make_old(folder / "index")
    return folder / "index", lora, [work.score for work in answer.works]


def test_it_opens_with_its_lora_and_answers_the_same(old, works):  # noqa: F811
    directory, lora, before = old
    index = AttributionIndex.open(directory)
    assert index.verify().ok
    assert index.loras == (LoraChoice(str(lora)),)
    (record,) = index.manifest.model.loras
    assert (record.weight, record.adapter, record.kinds) == (1.0, "default", {})
    assert str(lora) in str(index.manifest.config.lora)
    answer = Attributor(index).attribute(works / "2_cat" / "0.png", prompt="a cat")
    assert [work.score for work in answer.works] == pytest.approx(before, rel=1e-6)


def test_its_lora_is_found_where_models_are_kept_by_what_is_in_it(old, works, tmp_path, base):  # noqa: F811
    directory, lora, _ = old
    kept = tmp_path / "models"
    kept.mkdir()
    (kept / "renamed.safetensors").write_bytes(lora.read_bytes())
    save_lora(kept / "another.safetensors", 3)
    (kept / "pipeline-renamed").symlink_to(base)
    index = AttributionIndex.open(directory, model_dir=kept)
    assert index.loras == (LoraChoice(str(kept / "renamed.safetensors")),)
    assert Path(index.model_source.model) == kept / "pipeline-renamed"


@pytest.mark.parametrize("lora", [5, ["a", "b"], {"source": "a"}])
def test_a_lora_of_another_type_is_refused_in_a_sentence(old, tmp_path, lora):
    body = json.loads((old[0] / "manifest.json").read_text())
    del body["digest"]
    body["model"]["lora"] = lora
    digest = hashlib.sha256(canonical_json(body)).hexdigest()
    (tmp_path / "manifest.json").write_bytes(canonical_json({**body, "digest": digest}))
    with pytest.raises(IndexFormatError, match="doesn't follow its schema"):
        AttributionIndex.open(tmp_path)
