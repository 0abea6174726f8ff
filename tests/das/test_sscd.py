"""SSCD beside PDQ, with a tiny TorchScript model in place of its own: built, found, missing, another's."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from das.attribution import Attributor
from das.config import BuildConfig, ClipSpec
from das.copies import WITHOUT_SSCD, CopyFinder
from das.errors import BuildError, ModelError
from das.index import AttributionIndex
from das.sscd import SHORT_SIDE, Sscd, copy_finder
from index_build.build import build
from measure.uploads import synthetic
from tests.das.boxes import boxes
from tests.das.sscd_files import save

WORKS, SIDE = 7, 128


def work(number: int) -> np.ndarray:
    return boxes(SIDE, SIDE, number)


def config_of(folder: Path, model: Path, clip: Path, sscd: Path) -> BuildConfig:
    return BuildConfig(
        name="sscd",
        model=str(model),
        works=folder / "works",
        timesteps=(100, 500),
        dimension=32,
        shard_size=3,
        clip=ClipSpec(directory=clip),
        sscd=sscd,
    )


@pytest.fixture
def folder(tmp_path: Path, tiny_model: Path, tiny_clip: Path) -> Path:
    """An index that was built with SSCD's file `models/sscd.pt`, both there."""
    (tmp_path / "works").mkdir()
    (tmp_path / "models").mkdir()
    for number in range(WORKS):
        Image.fromarray(work(number)).save(tmp_path / "works" / f"{number}.png")
    sscd = save(tmp_path / "models" / "sscd.pt")
    build(config_of(tmp_path, tiny_model, tiny_clip, sscd), tmp_path / "index")
    return tmp_path


def test_the_index_keeps_embeddings_and_sscd_finds_what_pdq_doesn_t(folder: Path) -> None:
    index = AttributionIndex.open(folder / "index")
    sscd = Sscd.load(folder / "models" / "sscd.pt")
    assert index.sscd_embeddings is not None
    assert (index.sscd_embeddings.shape, index.sscd_embeddings.dtype) == ((WORKS, 48), np.float16)
    for number in range(WORKS):
        np.testing.assert_allclose(index.sscd_embeddings[number], sscd.embed(work(number)), atol=1e-3)
    finder, caveats = copy_finder(index)
    assert caveats == ()
    turned = np.ascontiguousarray(work(3)[::-1, ::-1])
    by_pdq, by_both = CopyFinder(index).find(turned), finder.find(turned)
    assert by_pdq is not None
    assert by_both is not None
    assert (by_pdq.verdict, by_pdq.method) == ("none", "pdq")
    assert (by_both.verdict, by_both.method, by_both.matches[0].row) == ("copy", "sscd", 3)
    assert by_both.score == pytest.approx(1, abs=2e-3)
    mirrored = finder.find(np.ascontiguousarray(work(2)[:, ::-1]))
    assert mirrored is not None
    assert (mirrored.matches[0].row, mirrored.matches[0].mirrored) == (2, True)
    assert "By SSCD" in index.card


def test_pictures_without_structure_get_no_verdict_of_sscd_either(folder: Path) -> None:
    finder, _ = copy_finder(AttributionIndex.open(folder / "index"))
    for uploads in synthetic(SIDE, 2, 5):
        if "noise" in uploads.name:
            continue
        for pixels in uploads.pixels:
            found = finder.find(pixels)
            assert found is not None
            assert (found.verdict, found.matches) == ("unclear", ())


def test_a_missing_file_or_another_s_falls_back_to_pdq_and_says_so(folder: Path) -> None:
    index, file = AttributionIndex.open(folder / "index"), folder / "models" / "sscd.pt"
    assert WITHOUT_SSCD not in Attributor(index).attribute(work(1)).caveats
    file.rename(folder / "elsewhere.pt")
    for present in (False, True):
        if present:
            save(file, 2.0)
        answer = Attributor(AttributionIndex.open(folder / "index")).attribute(work(1))
        assert WITHOUT_SSCD in answer.caveats
        assert answer.copy is not None
        assert (answer.copy.verdict, answer.copy.method) == ("copy", "pdq")


def test_the_file_is_found_in_the_model_directory(folder: Path) -> None:
    there = folder / "moved"
    there.mkdir()
    (folder / "models" / "sscd.pt").rename(there / "renamed.pt")
    index = AttributionIndex.open(folder / "index", model_dir=there)
    assert index.sscd_source == str(there / "renamed.pt")
    assert copy_finder(index)[1] == ()


def test_another_file_isn_t_the_same_build(folder: Path, tiny_model: Path, tiny_clip: Path) -> None:
    out = folder / "index"
    other = save(folder / "other.pt", 3.0)
    with pytest.raises(BuildError, match="--sscd"):
        build(config_of(folder, tiny_model, tiny_clip, other), out)
    moved = save(folder / "again.pt")
    moved.write_bytes((folder / "models" / "sscd.pt").read_bytes())
    assert build(config_of(folder, tiny_model, tiny_clip, moved), out).state == "present"


def test_what_isn_t_torchscript_is_told(tmp_path: Path) -> None:
    (tmp_path / "sscd.pt").write_bytes(b"no model")
    with pytest.raises(ModelError, match=r"sscd\.pt can't be used as an SSCD model"):
        Sscd.load(tmp_path / "sscd.pt")


@pytest.mark.parametrize("shape", [(1, 1), (1, 4000), (4000, 3), (300, 900)])
def test_any_shape_is_embedded(shape: tuple[int, int], tmp_path: Path) -> None:
    sscd = Sscd.load(save(tmp_path / "sscd.pt"))
    assert sscd.dimension == 48
    assert SHORT_SIDE == 288
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    embedding = sscd.embed(pixels)
    assert embedding.shape == (48,)
    assert np.isfinite(embedding).all()
