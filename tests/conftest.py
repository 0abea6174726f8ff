"""Fixtures that several packages' tests share: a tiny model, works, CLIP and the index built from them.

They are made once per test run, also under pytest-xdist: the workers share one folder and take turns.
"""

import csv
import json
import os
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import settings
from PIL import Image
from xdist.scheduler import LoadFileScheduling

import tests.lengths  # noqa: F401  (registers the profiles)
from das import durable
from tests.postgres import PostgresServer, binaries
from tests.postgres import running as running_postgres

if TYPE_CHECKING:
    from tests.s3 import S3

settings.load_profile("short")
os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where DAS_TEST_STRICT is set, as in CI, a test that was skipped has failed: something it needs is missing."""
    report = yield
    if os.environ.get("DAS_TEST_STRICT") and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, but DAS_TEST_STRICT is set: {report.longrepr}"
    return report


# These take longest. They begin first, or one process would be left with them at the end.
LONGEST = (
    "tests/test_docs_code.py",
    "tests/worker/test_every_family.py",
    "tests/worker/test_together.py",
    "tests/browser/",
    "tests/index_build/test_storage.py",
    "tests/das/test_lora_forms.py",
    "tests/worker/",
    "tests/app/test_extension.py",
    "tests/app/test_screening_process.py",
    "tests/app/test_wire.py",
    "tests/app/test_serve.py",
    "tests/index_build/",
    "tests/jobs/test_store.py",
    "tests/measure/",
    "tests/demo/",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def place(item: pytest.Item) -> int:
        beginnings = (place for place, name in enumerate(LONGEST) if item.nodeid.startswith(name))
        return next(beginnings, len(LONGEST))

    items.sort(key=place)


class ByFile(LoadFileScheduling):
    """A file's tests share a process, for what they set up; pages of the documentation have nothing in common."""

    def _split_scope(self, nodeid: str) -> str:
        return nodeid if nodeid.startswith("tests/test_docs_code.py") else super()._split_scope(nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByFile | None:
    return ByFile(config, log) if config.getvalue("dist") == "loadfile" else None


def pytest_make_parametrize_id(val: object) -> str | None:
    """Bytes are named by their length; their content would make unreadable names, with the dates of archives."""
    return f"{len(val)}-bytes" if isinstance(val, bytes) else None


WORKS = 40
SIDE = 16
CREATORS = ("Ada Lovelace", "Anna Atkins", "Hokusai")


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all xdist workers of this run have in common."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def tiny_model(shared_folder: Path) -> Path:
    """A DDPMPipeline directory: a UNet2DModel on 16 × 16 RGB with seeded weights, about 60,000 parameters."""
    return _once(shared_folder / "model", make_model)


@pytest.fixture(scope="session")
def tiny_works(shared_folder: Path) -> Path:
    """40 PNG files of 16 × 16 pixels in an imagefolder with metadata.csv; one was trained on three times."""
    return _once(shared_folder / "works", make_works)


@pytest.fixture(scope="session")
def tiny_clip(shared_folder: Path) -> Path:
    """An open_clip model directory, in open_clip's own format, with seeded weights."""
    return _once(shared_folder / "clip", make_clip)


@pytest.fixture(scope="session")
def tiny_index(shared_folder: Path, tiny_model: Path, tiny_works: Path, tiny_clip: Path) -> Path:
    """A finished index of `tiny_works` that answers both methods, made by the builder. Don't change it."""
    from das.config import BuildConfig, ClipSpec
    from index_build.build import build

    config = BuildConfig(
        name="tiny",
        model=str(tiny_model),
        works=tiny_works,
        timesteps=3,
        dimension=128,
        methods=("das-block", "das"),
        probes=("loss",),
        shard_size=16,
        clip=ClipSpec(directory=tiny_clip),
    )
    return _once(shared_folder / "index", lambda path: build(config, path))


@pytest.fixture(scope="session")
def many_works(shared_folder: Path, tiny_model: Path, tiny_works: Path) -> Callable[[str], Path]:
    """An index of 3,000 works mixed of the tiny ones, with two feature sets of a type, by that. Don't change it."""
    from das.config import BuildConfig
    from das.index import AttributionIndex
    from index_build.build import build
    from measure.enlarged import enlarge

    config = BuildConfig(
        name="many",
        model=str(tiny_model),
        works=tiny_works,
        timesteps=2,
        dimension=32,
        probes=("loss", "activation"),
        references=0,
        clip=None,
    )

    def many_works(dtype: str) -> Path:
        few = _once(shared_folder / "few", lambda path: build(config, path))
        return _once(
            shared_folder / f"many-{dtype}",
            lambda path: enlarge(AttributionIndex.open(few), 3000, dtype, path),
        )

    return many_works


@pytest.fixture(scope="session")
def planted_family(shared_folder: Path, tiny_clip: Path) -> Callable[[str], Path]:
    """The folder of a family's tiny pipeline with a planted work, as `tests.das.planted` makes it, by its name."""
    from tests.das.planted import make_family, make_vae

    def planted_family(family: str) -> Path:
        vae = _once(shared_folder / "planted-vae", make_vae)
        return _once(
            shared_folder / f"planted-{family}", lambda path: make_family(path, family, vae, tiny_clip)
        )

    return planted_family


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server, one for each xdist worker: so nobody has to know who needs it last."""
    if binaries() is None:
        pytest.skip("PostgreSQL isn't installed (Debian's `postgresql`)")
    with running_postgres() as server:
        yield server


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator["S3"]:
    """An S3 server that takes any key."""
    from tests.s3 import running

    with running(monkeypatch) as server:
        yield server


@pytest.fixture
def bucket(s3: "S3") -> str:
    """The name of a bucket on it."""
    import fsspec

    fsspec.filesystem("s3").mkdir("bucket")
    return "bucket"


def _once(path: Path, make: Callable[[Path], object]) -> Path:
    """`path` as `make` makes it, made by whichever worker comes first."""
    with durable.lock(path.with_name(path.name + ".turn")):
        done = path.with_name(path.name + ".done")
        if not done.exists():
            make(path)
            done.touch()
    return path


def make_model(path: Path, seed: int = 0, channels: tuple[int, int] = (16, 32)) -> None:
    """Save a small DDPMPipeline with weights from `seed`."""
    import torch
    from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

    torch.manual_seed(seed)
    network = UNet2DModel(
        sample_size=SIDE,
        in_channels=3,
        out_channels=3,
        layers_per_block=1,
        block_out_channels=channels,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=8,
        norm_num_groups=8,
    )
    DDPMPipeline(network, DDPMScheduler(num_train_timesteps=1000)).save_pretrained(path)


def make_picture(number: int) -> np.ndarray:
    """A picture (16, 16, 3) uint8: a smooth pattern of its own with some noise."""
    rng = np.random.default_rng(number)
    y, x = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    waves = [
        np.sin(2 * np.pi * (fx * x + fy * y) + phase)
        for fx, fy, phase in zip(*rng.uniform(0, 2, (2, 3)), rng.uniform(0, 6, 3), strict=True)
    ]
    values = 127.5 + 100 * np.stack(waves, -1) + rng.normal(0, 12, (SIDE, SIDE, 3))
    return values.clip(0, 255).astype(np.uint8)


def make_works(path: Path, count: int = WORKS) -> None:
    """Write an imagefolder of `count` pictures with metadata."""
    path.mkdir(parents=True)
    columns = [
        "file_name",
        "title",
        "creator",
        "rights_holder",
        "licence",
        "source_url",
        "prompt",
        "group",
        "repeats",
    ]
    with (path / "metadata.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, [*columns, "camera"])
        writer.writeheader()
        for number in range(count):
            name = f"work-{number:03d}.png"
            Image.fromarray(make_picture(number)).save(path / name)
            creator = CREATORS[number % len(CREATORS)]
            writer.writerow(
                {
                    "file_name": name,
                    "title": f"Study no. {number}",
                    "creator": creator,
                    "rights_holder": creator,
                    "licence": "CC0-1.0",
                    "source_url": f"https://example.org/{number}",
                    "group": f"group {number % 4}",
                    "repeats": 3 if number == 7 else 1,
                    "camera": "box" if number % 2 else "",
                }
            )


def make_clip(path: Path, seed: int = 0) -> None:
    """Save a small open_clip model with weights from `seed`."""
    import torch
    from open_clip import CLIP
    from safetensors.torch import save_file

    model_cfg = {
        "embed_dim": 24,
        "vision_cfg": {"image_size": SIDE, "layers": 2, "width": 32, "head_width": 16, "patch_size": 4},
        "text_cfg": {"context_length": 8, "vocab_size": 64, "width": 32, "heads": 2, "layers": 1},
    }
    torch.manual_seed(seed)
    model = CLIP(**model_cfg)  # type: ignore[arg-type]
    path.mkdir(parents=True)
    config = {"model_cfg": model_cfg, "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3}}
    (path / "open_clip_config.json").write_text(json.dumps(config))
    save_file(model.state_dict(), path / "open_clip_model.safetensors")
