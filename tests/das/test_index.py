import json
import shutil
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from das.card import card_of
from das.errors import IndexFormatError
from das.index import AttributionIndex, Features
from das.manifest import canonical_json, list_files, manifest_bytes, read_manifest
from das.works import Works, file_digest


@pytest.fixture
def index_copy(tiny_index: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_index, tmp_path / "copy"))


def test_an_index_opens_without_torch(tiny_index: Path) -> None:
    program = (
        "import sys; from das.index import AttributionIndex; index = AttributionIndex.open(sys.argv[1]);"
        "index.features('loss').take([1]); index.factor('loss', 'block'); index.works.row(0); index.thumbnail(0);"
        "print([name for name in ('torch', 'faiss', 'open_clip', 'diffusers') if name in sys.modules], index.id)"
    )
    command = [sys.executable, "-c", program, str(tiny_index)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert output.split() == ["[]", AttributionIndex.open(tiny_index).id]


def test_what_an_index_holds(tiny_index: Path, tiny_works: Path) -> None:
    index = AttributionIndex.open(tiny_index)
    assert index.id == f"tiny@{index.manifest.content_digest[:6]}"
    assert len(index) == len(index.works) == 40
    assert index.methods == ("das-block", "das")
    assert index.manifest.timesteps == (0, 333, 666)
    assert index.manifest.features.shard_rows == (16, 16, 8)
    for probe in ("loss", "mean"):
        features = index.features(probe)
        assert (features.shape, features.dtype) == ((40, 128), np.float16)
        factor = index.factor(probe, "block")
        np.testing.assert_array_equal(factor, np.tril(factor))
    assert index.factor("mean", "mean").dtype == np.float64
    assert index.repeats.tolist() == [3 if row == 7 else 1 for row in range(40)]
    assert np.average(index.residual_weights, weights=index.repeats) == pytest.approx(1)
    np.testing.assert_allclose(np.linalg.norm(index.embeddings, axis=1), 1, atol=1e-6)
    work = index.works.row(7)
    assert (work["file"], work["title"], work["camera"]) == ("work-007.png", "Study no. 7", "box")
    assert work["digest"] == file_digest(tiny_works / "work-007.png")
    assert index.works.row_of(work["id"]) == 7
    for row in (0, 17, 39):
        with (
            Image.open(BytesIO(index.thumbnail(row))) as thumbnail,
            Image.open(index_work(index, row, tiny_works)) as work_image,
        ):
            assert thumbnail.size == (16, 16)
            difference = np.asarray(thumbnail.convert("RGB"), float) - np.asarray(work_image, float)
            assert np.abs(difference).mean() < 25
    assert "40, trained on 42 times" in index.card
    assert "Not measured" in index.card


def test_a_name_of_several_lines_is_one_line_of_the_card(tiny_index: Path) -> None:
    index = AttributionIndex.open(tiny_index)
    table = index.works.table
    names = pa.array([f"New\nLine {row % 2}\u2028## Kernels" for row in range(len(table))])
    table = table.set_column(table.column_names.index("creator"), "creator", names)
    lines = card_of(index.manifest, Works(table)).split("\n")
    assert [line for line in lines if "Line" in line] == [
        "- New Line 0 ## Kernels: 20",
        "- New Line 1 ## Kernels: 20",
    ]
    assert lines.count("## Kernels") == 1


def index_work(index: AttributionIndex, row: int, works: Path) -> Path:
    return works / str(index.works.row(row)["file"])


def test_the_stored_leverage_is_that_of_the_stored_features(tiny_index: Path) -> None:
    index = AttributionIndex.open(tiny_index)
    whitened = np.asarray(index.features("loss"), np.float64)
    np.testing.assert_allclose(index.leverage("loss", "block"), (whitened**2).sum(1), rtol=1e-3)


def test_features_of_several_shards_read_like_one_array() -> None:
    whole = np.arange(30, dtype=np.float16).reshape(10, 3)
    features = Features([whole[:4], whole[4:5], whole[5:]])
    assert features.shape == (10, 3)
    np.testing.assert_array_equal(np.asarray(features), whole)
    rows = np.array([9, 0, 4, 5, 3, 0])
    np.testing.assert_array_equal(features.take(rows), whole[rows])
    assert [(first, len(shard)) for first, shard in features.shards()] == [(0, 4), (4, 1), (5, 5)]


def test_verify_finds_one_flipped_byte_in_every_file(index_copy: Path) -> None:
    index = AttributionIndex.open(index_copy)
    names = list_files(index_copy)
    assert {"manifest.json", "card.md", "build-report.json", "works.parquet", "kernel.safetensors"} < set(
        names
    )
    assert index.verify().ok
    assert index.verify().files == len(names)
    for name in names:
        path = index_copy / name
        original = path.read_bytes()
        for place in {0, len(original) // 2, len(original) - 1}:
            damaged = bytearray(original)
            damaged[place] ^= 1
            path.write_bytes(damaged)
            found = index.verify()
            assert [damage.file for damage in found.damages] == [name], (name, place)
            assert not found.ok
        path.write_bytes(original)
    assert index.verify().ok


def test_every_flipped_byte_of_the_manifest_is_found(index_copy: Path) -> None:
    path = index_copy / "manifest.json"
    original = path.read_bytes()
    for place in range(0, len(original), 7):
        damaged = bytearray(original)
        damaged[place] ^= 1 << (place % 8)
        path.write_bytes(damaged)
        with pytest.raises(IndexFormatError):
            read_manifest(index_copy)


def test_verify_finds_missing_and_extra_files(index_copy: Path) -> None:
    index = AttributionIndex.open(index_copy)
    (index_copy / "card.md").unlink()
    (index_copy / "features/loss/shard-00009.npy").write_bytes(b"")
    assert {(damage.file, damage.kind) for damage in index.verify().damages} == {
        ("card.md", "missing"),
        ("features/loss/shard-00009.npy", "extra"),
    }


def test_verify_reports_progress_in_bytes(tiny_index: Path) -> None:
    index = AttributionIndex.open(tiny_index)
    seen: list[tuple[int, int]] = []
    found = index.verify(lambda done, total: seen.append((done, total)))
    assert seen[-1] == (found.bytes, found.bytes)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_opening_checks_sizes_and_presence(index_copy: Path) -> None:
    features = index_copy / "features/mean/shard-00001.npy"
    whole = features.read_bytes()
    features.write_bytes(whole[:-2])
    with pytest.raises(IndexFormatError, match=r"shard-00001\.npy has \d+ bytes instead of"):
        AttributionIndex.open(index_copy)
    features.unlink()
    with pytest.raises(IndexFormatError, match=r"lacks features/mean/shard-00001\.npy"):
        AttributionIndex.open(index_copy)


def test_opening_checks_the_schema(index_copy: Path) -> None:
    path = index_copy / "features/mean/shard-00001.npy"
    array = np.load(path)
    with path.open("wb") as stream:
        np.save(stream, array.view(np.int16))
    with pytest.raises(IndexFormatError, match="int16 instead of"):
        AttributionIndex.open(index_copy)


def test_an_edited_or_foreign_manifest_is_refused(index_copy: Path) -> None:
    path = index_copy / "manifest.json"
    original = path.read_bytes()
    body = json.loads(original)
    path.write_text(json.dumps(body))
    with pytest.raises(IndexFormatError, match="doesn't match its own digest"):
        AttributionIndex.open(index_copy)
    path.write_bytes(canonical_json({**body, "schema_version": 99}))
    with pytest.raises(IndexFormatError, match="schema version 99"):
        AttributionIndex.open(index_copy)
    path.write_bytes(b"[]")
    with pytest.raises(IndexFormatError, match="damaged"):
        AttributionIndex.open(index_copy)


def test_what_isnt_an_index_is_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(IndexFormatError, match=r"it has no manifest\.json"):
        AttributionIndex.open(tmp_path / "nothing")
    (tmp_path / "photos.building").mkdir()
    with pytest.raises(IndexFormatError, match="run the build again"):
        AttributionIndex.open(tmp_path / "photos")


def test_the_model_is_found_beside_a_moved_index(tiny_index: Path, tiny_model: Path, tiny_clip: Path) -> None:
    index = AttributionIndex.open(tiny_index)
    assert Path(index.model_source.model) == tiny_model.resolve()
    moved = index.manifest.model_copy(
        update={
            "model": index.manifest.model.model_copy(update={"source": "/gone/model"}),
            "screening": index.manifest.screening.model_copy(update={"directory": "/gone/clip"}),
        }
    )
    elsewhere = AttributionIndex(tiny_index, moved, index.works)
    assert Path(elsewhere.model_source.model).samefile(tiny_model)
    clip = elsewhere.clip.directory
    assert clip is not None
    assert clip.samefile(tiny_clip)


def test_an_index_that_was_replaced_under_an_open_one_is_told(index_copy: Path) -> None:
    """The other one is whole: every digest is right, and still it isn't the index that answers."""
    opened = AttributionIndex.open(index_copy)
    assert opened.verify().ok
    manifest = opened.manifest
    other = manifest.model_copy(update={"name": "other"})
    (index_copy / "manifest.json").write_bytes(manifest_bytes(other))
    assert AttributionIndex.open(index_copy).verify().ok
    (damage,) = opened.verify().damages
    assert (damage.file, damage.kind) == ("manifest.json", "digest")
    assert damage.message == "it was replaced since the index was opened"
