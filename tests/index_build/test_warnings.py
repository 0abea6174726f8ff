"""What a build warns of, and what it doesn't: too little memory, a sketch that is too small for a kernel."""

from pathlib import Path
from typing import Any

import psutil
import pytest

from das.config import BuildConfig, ClipSpec
from das.index import AttributionIndex
from index_build.build import build
from index_build.estimate import memory_needed
from index_build.progress import QuietReporter
from tests.conftest import make_works

WORKS = 10
# So small that every direction of the works counts: the effective dimension is then nearly their number.
LITTLE_DAMPING = 1e-6


class Heard(QuietReporter):
    """Keeps the warnings."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, message: str) -> None:
        self.warnings.append(message)


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, tiny_clip: Path) -> dict[str, Any]:
    works = tmp_path_factory.mktemp("few") / "works"
    make_works(works, WORKS)
    return {
        "name": "few",
        "model": str(tiny_model),
        "works": works,
        "timesteps": (100,),
        "probes": ("loss",),
        "clip": ClipSpec(directory=tiny_clip),
    }


@pytest.mark.parametrize(
    ("method", "dimension", "warned"), [("das", 36, True), ("das", 44, False), ("das-block", 16, False)]
)
def test_a_sketch_is_too_small_from_a_quarter_of_it_on_and_never_for_the_block_kernel(
    options: dict[str, Any], method: str, dimension: int, warned: bool, tmp_path: Path
) -> None:
    heard = Heard()
    changes = {"methods": (method,), "dimension": dimension, "damping": LITTLE_DAMPING}
    build(BuildConfig(**(options | changes)), tmp_path / "index", reporter=heard)
    kernel = AttributionIndex.open(tmp_path / "index").manifest.kernels[0]
    # 36 and 44 stand on both sides of four times this number.
    assert 9 < (kernel.effective_dimension or 0) < 11
    told = [message for message in heard.warnings if "sketch is small" in message]
    assert len(told) == warned
    if warned:
        assert f"for the mean kernel of {kernel.features}" in told[0]
        assert f"is {kernel.effective_dimension:,.0f} of {dimension}" in told[0]
        assert "raise --dimension or --damping" in told[0]


@pytest.mark.parametrize("times", [0.2, 5.0])
def test_a_build_that_needs_more_memory_than_is_free_says_so(
    options: dict[str, Any], times: float, tmp_path: Path
) -> None:
    """A shard as large as memory is planned for; only as much of it is taken as there are works."""
    free = psutil.virtual_memory().available
    per_work = 16 * (4 + 16)
    config = BuildConfig(**(options | {"dimension": 16, "shard_size": int(times * free / per_work)}))
    assert (memory_needed(config, 1, 1) > free) == (times > 1)
    heard = Heard()
    build(config, tmp_path / "index", reporter=heard)
    told = [message for message in heard.warnings if "of memory are free" in message]
    assert len(told) == (times > 1)
    if told:
        said = float(told[0].removeprefix("only ").split()[0])
        assert said == pytest.approx(free / 1e9, rel=0.5)
        assert "--shard-size, --batch-size or --dimension" in told[0]
