"""Where the demo's parts are, and its index: found, or built from the photographs."""

import hashlib
import json
import shutil
import time
from dataclasses import dataclass
from importlib.resources import files
from itertools import chain
from pathlib import Path

from das import durable
from das.config import PRESETS, BuildConfig, ClipSpec
from das.index import HASHES_NAME
from index_build.progress import Reporter
from jobs.settings import MANIFEST, Settings

ASSETS = Path(str(files("demo"))) / "assets"
PIPELINE = ASSETS / "pipeline"
CLIP = ASSETS / "clip"
SAMPLES = ASSETS / "samples"
REFERENCES = ASSETS / "references"

# Twenty works in a pass; larger passes spread the fixed costs of many small layers.
BATCH_PAIRS = 60

INDEX_NAME = "photographs"
# The modules whose text decides what the works are.
WORKS_SOURCES = ("photographs.py", "crops.py")


@dataclass(frozen=True)
class DemoIndex:
    """The index's directory, and the seconds that building it took; 0 if it was there."""

    path: Path
    build_s: float


def home_of(settings: Settings) -> Path:
    """The demo's own folder in the data directory."""
    return settings.data_dir / "demo"


PRESET = "economical"


def build_config(works: Path, preset: str = PRESET) -> BuildConfig:
    """The options of the demo's index, by a preset of `das build`."""
    return BuildConfig.model_validate(
        {
            "name": INDEX_NAME,
            "model": str(PIPELINE),
            "works": works,
            **PRESETS[preset],
            "batch_size": BATCH_PAIRS,
            "clip": ClipSpec(directory=CLIP),
            "references": REFERENCES,
        }
    )


def demo_index(settings: Settings, reporter: Reporter, preset: str = PRESET) -> DemoIndex:
    """Find the index of this version's model and works, or build it; an interrupted build goes on.

    It lies in a directory named by a digest of all it is made from, so that an upgrade builds another one.
    """
    home = home_of(settings)
    works = home / "works"
    path = home / "indexes" / _inputs_digest(works, preset)
    if (path / MANIFEST).is_file():
        return DemoIndex(path, 0.0)
    from demo.crops import write_works
    from index_build.build import build

    began = time.monotonic()
    # A second demo waits here, and then finds the index built.
    with durable.lock(home / "demo.lock"):
        # Left over from another version, they would be works of this one.
        shutil.rmtree(works, ignore_errors=True)
        reporter.say(f"{write_works(works):,} works cut from the photographs, in {works}")
        build(build_config(works, preset), path, command="das demo", reporter=reporter)
    return DemoIndex(path, time.monotonic() - began)


def _inputs_digest(works: Path, preset: str = PRESET) -> str:
    """First 12 hex digits of a digest over model, CLIP, the works' making and the options."""
    digest = hashlib.sha256()
    folders = [place.rglob("*") for place in (PIPELINE, CLIP, REFERENCES)]
    inputs = [*chain.from_iterable(folders), *(ASSETS.parent / name for name in WORKS_SOURCES)]
    for file in sorted(path for path in inputs if path.is_file()):
        digest.update(f"{file.relative_to(ASSETS.parent).as_posix()}\n".encode())
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    digest.update(json.dumps(build_config(works, preset).compared(), sort_keys=True).encode())
    digest.update(HASHES_NAME.encode())  # what an earlier version built has none
    return digest.hexdigest()[:12]
