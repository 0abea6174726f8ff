import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import index_build.pictures
from das.attribution import Attributor
from das.config import BuildConfig, ClipSpec
from das.errors import BuildError, SettingsError
from das.index import AttributionIndex
from das.kernel import effective_dimension_target
from das.works import file_digest
from index_build.build import build
from index_build.inputs import read_digested_works
from index_build.pictures import Picture, PictureReader
from index_build.progress import QuietReporter
from measure.adapters import add_new_lora, base_network, save_lora
from tests.conftest import make_clip, make_model, make_picture, make_works


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, tiny_clip: Path) -> dict[str, Any]:
    works = tmp_path_factory.mktemp("few") / "works"
    make_works(works, 10)
    return {
        "name": "few",
        "model": str(tiny_model),
        "works": works,
        "timesteps": (100, 500),
        "dimension": 48,
        "methods": ("das-block", "das"),
        "shard_size": 4,
        "clip": ClipSpec(directory=tiny_clip),
    }


@pytest.fixture(scope="module")
def reference(options: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> AttributionIndex:
    out = tmp_path_factory.mktemp("reference") / "index"
    build(BuildConfig(**options), out)
    return AttributionIndex.open(out)


def rebuilt(options: dict[str, Any], out: Path, **changes: Any) -> AttributionIndex:
    build(BuildConfig(**(options | changes)), out)
    return AttributionIndex.open(out)


def gram(index: AttributionIndex, probe: str = "loss") -> np.ndarray:
    """`f̄_iᵀH⁻¹f̄_j` of all works, (N, N): what the index says of them, whatever the basis."""
    whitened = np.asarray(index.features(probe), np.float64)
    return whitened @ whitened.T


def test_numbers_dont_depend_on_batches_and_shards(
    options: dict[str, Any], reference: AttributionIndex, tmp_path: Path
) -> None:
    other = rebuilt(options, tmp_path / "index", batch_size=3, shard_size=7)
    assert other.manifest.features.shard_rows == (7, 3)
    assert other.manifest.works.digest == reference.manifest.works.digest
    for probe in ("loss", "mean"):
        np.testing.assert_allclose(gram(other, probe), gram(reference, probe), atol=2e-3)
    np.testing.assert_allclose(other.leverage("mean", "mean"), reference.leverage("mean", "mean"), rtol=1e-3)
    np.testing.assert_allclose(other.embeddings, reference.embeddings, atol=1e-6)


def test_a_methods_damping_doesnt_depend_on_the_others_of_its_index(
    options: dict[str, Any], tmp_path: Path
) -> None:
    """TRAK and a plain das-block read the same features, but kernels of their own."""
    plain = {"normalise": False, "probes": ("loss",)}
    alone = rebuilt(options, tmp_path / "alone", methods=("trak",), **plain)
    together = rebuilt(options, tmp_path / "together", methods=("das-block", "trak"), **plain)
    assert together.manifest.kernels_of("trak") == alone.manifest.kernels_of("trak")


def test_numbers_dont_depend_on_the_order_of_works(
    options: dict[str, Any], reference: AttributionIndex, tmp_path: Path
) -> None:
    works = tmp_path / "works"
    works.mkdir()
    rows = []
    for number in range(10):
        shutil.copy(options["works"] / f"work-{number:03d}.png", works / f"{9 - number}.png")
        rows.append({"file_name": f"{9 - number}.png", "repeats": 3 if number == 7 else 1})
    (works / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    other = rebuilt(options, tmp_path / "index", works=works)
    np.testing.assert_allclose(gram(other)[::-1, ::-1], gram(reference), atol=2e-3)
    assert other.works.column("id")[::-1] == reference.works.column("id")


def test_repeats_count_like_copies(options: dict[str, Any], tmp_path: Path) -> None:
    """A work trained on three times gives the kernel that three copies of it give, at the same λ."""
    reference = rebuilt(options, tmp_path / "reference", damping=0.1)
    works = tmp_path / "works"
    shutil.copytree(options["works"], works)
    (works / "metadata.csv").unlink()
    for copy in ("x.png", "y.png"):
        shutil.copy(works / "work-007.png", works / copy)
    other = rebuilt(options, tmp_path / "index", works=works, damping=0.1)
    assert other.works.column("id")[7] + "-3" == other.works.column("id")[11]
    assert other.manifest.works.trained == reference.manifest.works.trained == 12
    for probe, form in (("loss", "block"), ("mean", "mean")):
        kernel = reference.factor(probe, form) @ reference.factor(probe, form).T
        copies = other.factor(probe, form) @ other.factor(probe, form).T
        np.testing.assert_allclose(copies, kernel, atol=1e-6 * np.abs(kernel).max())
    np.testing.assert_allclose(gram(other)[:10, :10], gram(reference), atol=2e-3)
    assert other.content_repeats().tolist() == [3 if row in (7, 10, 11) else 1 for row in range(12)]
    assert reference.content_repeats().tolist() == reference.repeats.tolist()
    picture = make_picture(7)
    asked = [Attributor(index).scores([picture], method="das")[0] for index in (reference, other)]
    np.testing.assert_allclose(asked[1][[7, 10, 11]].sum(), asked[0][7], rtol=1e-2)
    np.testing.assert_allclose(asked[1][:7], asked[0][:7], rtol=1e-2, atol=1e-3 * asked[0].max())


def test_works_with_the_same_bytes_and_other_prompts_are_not_the_same(
    options: dict[str, Any], tmp_path: Path
) -> None:
    """Copies with prompts of their own are other examples; the damping counts contents, not entries."""
    works = tmp_path / "works"
    works.mkdir()
    rows = ["file_name,prompt"]
    for name, picture, prompt in (("a", 1, "x"), ("b", 1, "x"), ("c", 1, "y"), ("d", 2, "x"), ("e", 1, "")):
        Image.fromarray(make_picture(picture)).save(works / f"{name}.png")
        rows.append(f"{name}.png,{prompt}")
    (works / "metadata.csv").write_text("\n".join(rows))
    index = rebuilt(options, tmp_path / "index", works=works)
    assert index.content_repeats().tolist() == [2, 2, 1, 1, 1]
    timesteps = len(index.manifest.config.resolve_timesteps(1000))
    for record in index.manifest.kernels:
        target = effective_dimension_target(
            record.form,
            4,
            timesteps,
            index.manifest.config.dimension,
            activation="activation" in record.features,
        )
        assert record.effective_dimension == pytest.approx(target, rel=0.02)


def test_the_damping_is_recorded(options: dict[str, Any], tmp_path: Path) -> None:
    index = rebuilt(options, tmp_path / "index", damping=0.2, methods=("das",))
    (record,) = index.manifest.kernels
    assert (record.method, record.features, record.form) == ("das", "mean", "mean")
    assert record.relative_damping == pytest.approx(0.2)
    factor = index.factor("mean", "mean")
    kernel = factor @ factor.T - record.damping * np.eye(48)
    assert np.trace(kernel) == pytest.approx(record.trace)
    assert record.damping == pytest.approx(0.2 * record.trace / 12)
    eigenvalues = np.linalg.eigvalsh(kernel)
    assert record.effective_dimension == pytest.approx((eigenvalues / (eigenvalues + record.damping)).sum())


def test_a_finished_index_is_found(
    options: dict[str, Any], reference: AttributionIndex, tmp_path: Path
) -> None:
    again = build(BuildConfig(**options | {"batch_size": 5}), reference.path)
    assert (again.state, again.index_id, again.works) == ("present", reference.id, 10)
    moved = Path(shutil.copytree(options["model"], tmp_path / "moved"))
    (moved / "README.md").write_text("the same weights elsewhere, with one more file")
    assert build(BuildConfig(**options | {"model": str(moved)}), reference.path).state == "present"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"name": "other"}, "--name (other, there few)"),
        ({"attributed": "conv"}, "--attributed (conv, there auto)"),
        ({"timesteps": 2}, "--timesteps (2, there 100, 500)"),
        ({"noise_draws": 2}, "--noise-draws (2, there 1)"),
        ({"seed": 1}, "--seed (1, there 0)"),
        ({"dimension": 47}, "--dimension (47, there 48)"),
        ({"methods": ("das-block",)}, "--method (das-block, there das-block, das)"),
        ({"probes": ("square",)}, "--probe (square, there loss, activation)"),
        ({"damping": 0.5}, "--damping (0.5, there none)"),
        ({"feature_dtype": "float32"}, "--feature-dtype (float32, there float16)"),
        ({"shard_size": 5}, "--shard-size (5, there 4)"),
        ({"seed": 1, "dimension": 47}, "--seed (1, there 0); --dimension (47, there 48)"),
    ],
)
def test_a_finished_index_with_other_options_is_refused(
    options: dict[str, Any], reference: AttributionIndex, change: dict[str, Any], named: str
) -> None:
    with pytest.raises(BuildError) as refusal:
        build(BuildConfig(**options | change), reference.path)
    assert f"other options: {named}. " in str(refusal.value)


def test_a_finished_index_of_other_inputs_is_refused(
    options: dict[str, Any], reference: AttributionIndex, tmp_path: Path
) -> None:
    make_model(tmp_path / "model", seed=1)
    make_clip(tmp_path / "clip", seed=1)
    works = Path(shutil.copytree(options["works"], tmp_path / "works"))
    Image.fromarray(make_picture(77)).save(works / "work-003.png")
    retitled = Path(shutil.copytree(options["works"], tmp_path / "retitled"))
    text = (retitled / "metadata.csv").read_text()
    (retitled / "metadata.csv").write_text(text.replace("Study no. 3", "Nocturne"))
    for change, named in (
        ({"model": str(tmp_path / "model")}, "the weights of --model"),
        ({"clip": ClipSpec(directory=tmp_path / "clip")}, "the CLIP model"),
        ({"works": works}, "the works of --works"),
        ({"works": retitled}, "the works of --works"),
    ):
        with pytest.raises(BuildError, match=f"other options: {named}"):
            build(BuildConfig(**options | change), reference.path)
    assert reference.verify().ok


def test_unreadable_works_are_left_out_and_reported(options: dict[str, Any], tmp_path: Path) -> None:
    works = Path(shutil.copytree(options["works"], tmp_path / "works"))
    (works / "work-002.png").write_bytes((works / "work-002.png").read_bytes()[:100])
    (works / "work-005.png").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    (works / "empty.png").touch()
    os.mkfifo(works / "pipe.png")
    metadata = (works / "metadata.csv").read_text()
    first = metadata.splitlines()[1]
    long = first.replace(first.split(",")[1], "t" * 5000)
    (works / "metadata.csv").write_text(metadata.replace(first, long) + "gone.png,,,,,,,,,\n")
    changes = options | {"works": works}
    with pytest.raises(BuildError, match=r"(gone|pipe)\.png: .*--strict"):
        build(BuildConfig(**changes), tmp_path / "strict", strict=True)
    result = build(BuildConfig(**changes), tmp_path / "index")
    index = AttributionIndex.open(tmp_path / "index")
    assert result.works == len(index) == 8
    assert index.works.column("file") == [f"work-{number:03d}.png" for number in (0, 1, 3, 4, 6, 7, 8, 9)]
    assert index.repeats.tolist() == [1, 1, 1, 1, 1, 3, 1, 1]
    report = json.loads((tmp_path / "index/build-report.json").read_text())
    assert report == result.report
    assert {entry["file"]: entry["code"] for entry in report["unreadable"]} == {
        "empty.png": "empty",
        "work-002.png": "truncated",
        "work-005.png": "svg",
    }
    assert {entry["file"]: entry["code"] for entry in report["left_out"]} == {
        "gone.png": "missing-file",
        "pipe.png": "not-a-file",
    }
    assert {entry["file"]: entry["code"] for entry in report["metadata"]} == {
        "empty.png": "no-metadata",
        "work-000.png": "value-cut",
    }
    assert "3 more couldn't be used" in index.card
    assert index.manifest.build.unreadable == 3
    assert index.manifest.features.shard_rows == (2, 3, 3)
    for row, name in enumerate(index.works.column("file")):
        assert index.thumbnail(row)[:4] == b"RIFF", name


def test_strict_stops_at_an_unreadable_work(options: dict[str, Any], tmp_path: Path) -> None:
    works = Path(shutil.copytree(options["works"], tmp_path / "works"))
    (works / "work-005.png").write_bytes(b"nothing")
    with pytest.raises(BuildError, match=r"work-005\.png can't be used .*--strict is on"):
        build(BuildConfig(**options | {"works": works}), tmp_path / "index", strict=True)
    assert not (tmp_path / "index").exists()


def test_works_that_are_all_unreadable_are_no_index(options: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "works").mkdir()
    (tmp_path / "works/a.png").write_bytes(b"nothing")
    with pytest.raises(BuildError, match="none of the 1 works can be read"):
        build(BuildConfig(**options | {"works": tmp_path / "works"}), tmp_path / "index")


def test_a_disk_that_is_too_small_is_said_before_anything_is_written(
    options: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(BuildError, match=r"needs about [\d.,]+ TB of disk .* too little"):
        build(BuildConfig(**options | {"dimension": 2_000_000}), tmp_path / "index")
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_gives_no_numbers_is_refused(options: dict[str, Any], tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    model = Path(shutil.copytree(options["model"], tmp_path / "model"))
    weights = next(model.glob("unet/*.safetensors"))
    tensors = load_file(weights)
    tensors["conv_out.bias"][0] = float("nan")
    save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(BuildError, match=r"gradient for .*work-000\.png isn't finite"):
        build(BuildConfig(**options | {"model": str(model)}), tmp_path / "index")


def test_what_lies_at_out_is_never_overwritten(options: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters/dear.txt").write_text("Dear Ada")
    with pytest.raises(BuildError, match="exists and isn't an attribution index"):
        build(BuildConfig(**options), tmp_path / "letters")
    (tmp_path / "index.building").mkdir()
    (tmp_path / "index.building/mine.txt").write_text("mine")
    with pytest.raises(BuildError, match="isn't an unfinished build"):
        build(BuildConfig(**options), tmp_path / "index")
    (tmp_path / "empty").mkdir()
    assert build(BuildConfig(**options), tmp_path / "empty").state == "built"


def test_timesteps_are_spread_over_the_schedule_or_listed(options: dict[str, Any]) -> None:
    def resolve(timesteps: Any) -> tuple[int, ...]:
        return BuildConfig(**options | {"timesteps": timesteps}).resolve_timesteps(1000)

    assert resolve(10) == tuple(range(0, 1000, 100))
    assert resolve(3) == (0, 333, 666)
    assert resolve((7, 5)) == (7, 5)
    with pytest.raises(SettingsError, match="timestep 1000 lies outside"):
        resolve((0, 1000))
    with pytest.raises(SettingsError, match="only 1000"):
        resolve(1001)


def test_pictures_come_in_order_and_in_full_batches(options: dict[str, Any]) -> None:
    works = read_digested_works(options["works"], QuietReporter())
    (options["works"] / "work-004.png").touch()
    reader = PictureReader(works)
    batches = [[picture.row for picture in batch] for batch, _ in reader.batches(range(1, 9), 3)]
    assert batches == [[1, 2, 3], [4, 5, 6], [7, 8]]
    pictures, refused = next(reader.batches(range(2), 5))
    assert refused == []
    assert isinstance(pictures[1], Picture)
    np.testing.assert_array_equal(pictures[1].pixels, make_picture(1))
    reader.close()


def test_a_work_that_changes_during_the_build_is_noticed(options: dict[str, Any], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(options["works"], tmp_path / "works"))
    works = read_digested_works(folder, QuietReporter())
    Image.fromarray(make_picture(50)).save(folder / "work-001.png")
    reader = PictureReader(works)
    with pytest.raises(BuildError, match=r"work-001\.png changed while"):
        list(reader.batches(range(3), 3))
    reader.close()


def test_large_works_are_welcome_and_bombs_are_not() -> None:
    limits = index_build.pictures.WORK_LIMITS
    assert limits.max_pixels == 400_000_000
    assert limits.min_side == 1


@pytest.mark.parametrize("probes", [("activation",), ("loss", "activation")])
def test_activations_alone_of_a_lora_are_warned_of(
    options: dict[str, Any], probes: tuple[str, ...], tmp_path: Path
) -> None:
    class Heard(QuietReporter):
        def __init__(self) -> None:
            self.warnings: list[str] = []

        def warn(self, message: str) -> None:
            self.warnings.append(message)

    network = base_network(Path(options["model"]))
    add_new_lora(network, 2)
    save_lora(network, tmp_path / "lora", 2)
    changes = {"methods": ("das-block",), "probes": probes, "lora": str(tmp_path / "lora")}
    heard = Heard()
    build(BuildConfig(**(options | changes)), tmp_path / "index", reporter=heard)
    told = [message for message in heard.warnings if "the whole network's, not the LoRA's" in message]
    assert len(told) == (1 if probes == ("activation",) else 0)
    manifest = AttributionIndex.open(tmp_path / "index").manifest
    assert (manifest.model.attributed_parameters == 0) is (probes == ("activation",))
    # By this a picture's metadata are compared with the LoRA; the pipeline, a folder, has no such hash.
    (file,) = manifest.weight_files
    assert (file.role, file.name) == ("lora", "adapter_model.safetensors")
    assert file.sha256 == file_digest(tmp_path / "lora" / file.name)
