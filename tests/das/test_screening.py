import resource
from pathlib import Path

import numpy as np
import pytest

import das.screening
from das.config import ClipSpec
from das.durable import NO_ROOM
from das.errors import IndexFormatError, ModelError, SettingsError
from das.screening import Embedder, Screen, write_screen
from measure.search import anonymous_bytes
from tests.conftest import make_clip, make_picture


@pytest.fixture(scope="module")
def embedder(tiny_clip: Path) -> Embedder:
    return Embedder.load({"directory": tiny_clip})


def unit_vectors(count: int, dimension: int = 12) -> np.ndarray:
    vectors = np.random.default_rng(0).normal(size=(count, dimension)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_embeddings_have_unit_norm_and_dont_depend_on_the_batch(embedder: Embedder) -> None:
    pictures = [make_picture(number) for number in range(5)]
    together = embedder.embed(pictures)
    assert together.shape == (5, embedder.dimension) == (5, 24)
    assert together.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)
    alone = np.concatenate([embedder.embed([picture]) for picture in pictures])
    np.testing.assert_allclose(alone, together, atol=1e-6)


def test_the_image_tower_alone_gives_what_the_whole_model_gives(embedder: Embedder, tiny_clip: Path) -> None:
    import open_clip
    import torch
    from PIL import Image

    model, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{tiny_clip}")
    picture = make_picture(3)
    with torch.inference_mode():
        whole = model.eval().encode_image(preprocess(Image.fromarray(picture))[None], normalize=True)
    np.testing.assert_allclose(embedder.embed([picture]), whole.numpy(), atol=1e-6)


def test_the_digest_tells_models_apart(embedder: Embedder, tiny_clip: Path, tmp_path: Path) -> None:
    make_clip(tmp_path / "other", seed=1)
    other = Embedder.load(ClipSpec(directory=tmp_path / "other"))
    assert Embedder.load(ClipSpec(directory=tiny_clip)).digest == embedder.digest != other.digest
    embedder.check(embedder.digest, "tiny@000000")
    with pytest.raises(ModelError, match="isn't the one that tiny@000000 was built with"):
        other.check(embedder.digest, "tiny@000000")


def test_models_that_cant_be_loaded_are_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no open_clip_config\.json"):
        Embedder.load(ClipSpec(directory=tmp_path))
    with pytest.raises(ModelError, match=r"ViT-B-32:no_such_tag.*--clip-dir"):
        Embedder.load(ClipSpec(model="ViT-B-32", pretrained="no_such_tag"))
    with pytest.raises(SettingsError, match="MODEL:PRETRAINED"):
        ClipSpec.parse("ViT-B-32")
    assert ClipSpec.parse("ViT-B-32:laion2b_s34b_b79k").describe() == "ViT-B-32:laion2b_s34b_b79k"


@pytest.mark.parametrize(("half_from", "kind"), [(10**9, "flat"), (1, "flat-float16")])
def test_search_is_exhaustive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, half_from: int, kind: str
) -> None:
    monkeypatch.setattr(das.screening, "HALF_PRECISION_FROM", half_from)
    monkeypatch.setattr(das.screening, "_ADD_CHUNK", 64)
    vectors = unit_vectors(200)
    assert write_screen(tmp_path / "screening.faiss", vectors) == kind
    screen = Screen.open(tmp_path)
    assert (len(screen), screen.dimension) == (200, 12)
    query = unit_vectors(201)[200]
    rows, similarities = screen.nearest(query, 7)
    expected = np.argsort(-(vectors @ query))[:7]
    np.testing.assert_array_equal(rows, expected)
    np.testing.assert_allclose(similarities, (vectors @ query)[expected], atol=1e-3)


def test_equal_works_come_in_the_order_of_their_rows(tmp_path: Path) -> None:
    vectors = np.repeat(unit_vectors(3), 4, axis=0)
    write_screen(tmp_path / "screening.faiss", vectors)
    rows, _ = Screen.open(tmp_path).nearest(vectors[5], 4)
    assert rows.tolist() == [4, 5, 6, 7]
    assert len(Screen.open(tmp_path).nearest(vectors[0], 1000)[0]) == 12


def test_a_full_disk_is_an_error_of_the_system(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large") as refused:
            write_screen(tmp_path / "screening.faiss", unit_vectors(2000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert refused.value.errno in NO_ROOM


def test_a_damaged_index_is_named(tmp_path: Path) -> None:
    (tmp_path / "screening.faiss").write_bytes(b"nothing of the kind")
    with pytest.raises(IndexFormatError, match="can't be read as a FAISS index"):
        Screen.open(tmp_path)


@pytest.mark.parametrize("half_from", [10**9, 1])
def test_vectors_are_mapped_and_not_read_into_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, half_from: int
) -> None:
    monkeypatch.setattr(das.screening, "HALF_PRECISION_FROM", half_from)
    path = tmp_path / "screening.faiss"
    write_screen(path, unit_vectors(4000, 512))
    Screen.open(tmp_path).nearest(unit_vectors(1, 512)[0], 5)
    before = anonymous_bytes()
    screen = Screen.open(tmp_path)
    assert screen.nearest(unit_vectors(1, 512)[0], 5)[0][0] == 0
    assert anonymous_bytes() - before < path.stat().st_size / 4
    assert str(path) in Path("/proc/self/maps").read_text()
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(IndexFormatError, match="can't be read as a FAISS index"):
        Screen.open(tmp_path)
