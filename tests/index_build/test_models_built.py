"""Each way of naming a model, from the command that builds to the worker that answers; and builds without CLIP."""

import json
import shutil
import socket
import time
from pathlib import Path

import pytest
import torch
import typer
from diffusers import DiffusionPipeline
from huggingface_hub import constants
from typer.testing import CliRunner

from app.catalogue import ServedIndex
from app.screening import Screener
from das.attribution import Attributor
from das.errors import DasError, SettingsError
from das.index import AttributionIndex
from das.query import register as register_query
from index_build.cli import register
from jobs.settings import Settings
from tests.conftest import make_works
from tests.das import families, single_files
from worker.engine import AttributionEngine, import_ahead

runner = CliRunner()


@pytest.fixture(scope="module")
def app() -> typer.Typer:
    cli = typer.Typer()
    register(cli)
    register_query(cli)
    return cli


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline `sd`, the same with other weights in each way that a model may be named, and `works`."""
    folder = tmp_path_factory.mktemp("models")
    families.make_stable_diffusion(folder / "sd")
    make_works(folder / "works", 5)
    pipeline = DiffusionPipeline.from_pretrained(folder / "sd")
    with torch.no_grad():
        pipeline.unet.conv_in.weight.add_(0.5)
    pipeline.save_pretrained(folder / "half", variant="fp16")
    single_files.write(pipeline, folder / "tuned.safetensors")
    for number in (9, 100):
        pipeline.unet.save_pretrained(folder / "run" / f"checkpoint-{number}" / "unet")
    return folder


def command(folder: Path, out: Path, *options: str) -> list[str]:
    always = ["--timesteps", "2", "--dimension", "32", "--probe", "loss"]
    always += ["--references", "0", "--no-screening", "--json"]
    return ["build", "--works", str(folder / "works"), "--out", str(out), *always, *options]


def test_every_way_of_naming_a_model_is_built_served_and_asked(app, models, tmp_path):
    sd, single = str(models / "sd"), str(models / "tuned.safetensors")
    ways = {
        "half": ["--model", str(models / "half")],
        "single": ["--model", single, "--config", sd],
        "network": ["--model", sd, "--network", str(models / "run")],
        "size": ["--model", single, "--config", sd, "--size", "64x32"],
        "checkpoint": [
            "--model",
            sd,
            "--method",
            "tracincp",
            "--checkpoint",
            str(models / "run"),
            "--checkpoint",
            single,
        ],
    }
    for name, options in ways.items():
        done = runner.invoke(app, command(models, tmp_path / "indexes" / name, *options))
        assert done.exit_code == 0, f"{name}: {done.output} {done.exception!r}"
        again = runner.invoke(app, command(models, tmp_path / "indexes" / name, *options))
        assert json.loads(again.stdout.splitlines()[-1])["state"] == "present", again.output
    opened = {name: AttributionIndex.open(tmp_path / "indexes" / name) for name in ways}
    digests = {name: index.manifest.model.digest for name, index in opened.items()}
    assert digests["half"] == digests["single"] == digests["network"]
    assert len({*digests.values()}) == 3
    assert opened["network"].model_source.network == str(models / "run" / "checkpoint-100" / "unet")
    assert opened["size"].manifest.model.sample_shape == (4, 8, 16)
    tuned = [record.digest for record in opened["checkpoint"].manifest.checkpoints]
    assert tuned == [digests["single"], digests["single"]]
    assert "tuned.safetensors is a checkpoint of Stable Diffusion 1 or 2" in opened["single"].card
    settings = Settings(
        _env_file=None, index_dir=tmp_path / "indexes", data_dir=tmp_path / "data", torch_threads=1
    )
    import_ahead(settings)
    engine = AttributionEngine(settings)
    assert engine.describe()["failed"] == {}
    assert engine.describe()["indexes"] == sorted(index.id for index in opened.values())
    other = runner.invoke(app, command(models, tmp_path / "indexes" / "single", "--model", sd))
    assert "with other options: the weights of --model" in str(other.exception)


def test_a_model_that_moved_is_found_by_its_name_and_another_is_refused(app, models, tmp_path):
    for name in ("sd", "tuned.safetensors"):
        copy = shutil.copytree if (models / name).is_dir() else shutil.copy
        copy(models / name, tmp_path / name)
    options = ["--model", str(tmp_path / "tuned.safetensors"), "--config", str(tmp_path / "sd")]
    done = runner.invoke(app, command(models, tmp_path / "index", *options))
    assert done.exit_code == 0, done.output
    (tmp_path / "kept").mkdir()
    for name in ("sd", "tuned.safetensors"):
        (tmp_path / name).rename(tmp_path / "kept" / name)
    with pytest.raises(DasError, match=r"the model of index@.* is no longer at"):
        _ = AttributionIndex.open(tmp_path / "index").model_source
    moved = AttributionIndex.open(tmp_path / "index", model_dir=tmp_path / "kept")
    assert moved.model_source.model == str(tmp_path / "kept" / "tuned.safetensors")
    assert Attributor(moved).attribute(models / "works" / "work-000.png", top_k=1).works[0].rank == 1


@pytest.mark.parametrize("text", ["0", "abc", "512x", "9999", "-5"])
def test_a_size_that_is_none_is_refused(app, models, tmp_path, text):
    done = runner.invoke(app, command(models, tmp_path / "x", "--model", str(models / "sd"), "--size", text))
    assert isinstance(done.exception, SettingsError), done.output
    assert "--size is" in str(done.exception)


def test_an_index_without_screening_answers_from_all_works_and_says_that_it_lacks_lookalikes(
    app, models, tmp_path
):
    picture = str(models / "works" / "work-001.png")
    done = runner.invoke(app, command(models, tmp_path / "index", "--model", str(models / "sd")))
    assert done.exit_code == 0, done.output
    index = AttributionIndex.open(tmp_path / "index")
    assert index.manifest.screening is None
    assert not {"screening.faiss", "embeddings.npy"} & set(index.manifest.files)
    assert index.verify().ok
    assert "- **Screening**: none; look-alikes aren't told" in index.card
    assert (
        "none, look-alikes aren't told"
        in runner.invoke(app, ["index", "info", str(tmp_path / "index")]).stdout
    )
    told = json.loads(
        runner.invoke(app, ["query", picture, "--index", str(tmp_path / "index"), "--json"]).stdout
    )
    assert told["candidates"] == {"mode": "all", "count": 5}
    assert any("was built without screening" in note for note in told["notes"])
    few = runner.invoke(app, ["query", picture, "--index", str(tmp_path / "index"), "--candidates", "3"])
    assert isinstance(few.exception, SettingsError)
    assert "--candidates 3 can't be chosen" in str(few.exception)
    screener = Screener([ServedIndex(tmp_path / "index", index)])
    screener.start()
    assert screener.status(index.id) == "none"
    assert screener.pid is None
    assert "was built without screening" in str(screener.failure(index.id))
    screener.close()


def test_what_needs_clip_can_t_be_asked_of_a_build_without(app, models, tmp_path):
    model = ["--model", str(models / "sd")]
    for options, message in [
        (["--method", "das", "--method", "clip-dot"], "clip-dot compares what CLIP says"),
        (["--clip-dir", str(tmp_path)], "--clip-dir names what --no-screening leaves out"),
    ]:
        done = runner.invoke(app, command(models, tmp_path / "x", *model, *options))
        assert message in str(done.exception)


def test_a_clip_that_would_have_to_be_downloaded_is_told_before_anything_else(
    app, models, tmp_path, monkeypatch
):
    from das import hub

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    build = [
        one
        for one in command(models, tmp_path / "x", "--model", str(models / "sd"))
        if one != "--no-screening"
    ]
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{nobody.getsockname()[1]}")
        began = time.monotonic()
        done = runner.invoke(app, build)
        assert time.monotonic() - began < 10
        assert "isn't on this machine and would have to be downloaded (605 MB, once)" in str(done.exception)
        assert "there is no network to 127.0.0.1" in str(done.exception)
        assert "--clip-dir, or build with --no-screening" in str(done.exception)
        assert not (tmp_path / "x").exists()
        nobody.listen()
        assert hub.unreachable() is None
        from das.clip_download import check_clip
        from das.config import DEFAULT_CLIP, ClipSpec

        assert "is downloaded first (605 MB, once)" in str(check_clip(DEFAULT_CLIP))
        with pytest.raises(
            DasError, match="open_clip has no weights 'x' of a model 'ViT-B-32'; of this model it has"
        ):
            check_clip(ClipSpec(model="ViT-B-32", pretrained="x"))
        snapshot = tmp_path / "cache" / "models--laion--CLIP-ViT-B-32-laion2B-s34B-b79K" / "snapshots" / "0"
        snapshot.mkdir(parents=True)
        assert check_clip(DEFAULT_CLIP) is None
