"""`das bench search`: a large index made of a small one is a whole index, and is asked within bounded memory."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from das.cli import build_app
from das.index import AttributionIndex
from measure.enlarged import enlarge
from measure.results.questions import questions_section, search_section

ROOT = Path(__file__).parents[2]
WORKS = 150_000
LIMIT_MIB = 32
"""Of what no file backs, beyond a loaded service: less than half of what one set of its features takes in float32.
An answer over all works has their scores, 8 bytes each, and what ranking makes of them."""

# Asks the same twice: with the features mapped, under a limit on memory that no file backs, and kept in memory.
PROGRAM = """
import resource, sys
from types import SimpleNamespace
import numpy as np
import das.scoring
from das.attribution import Attributor
from das.index import AttributionIndex
from tests.rankings import assert_same_ranking

def attributor():
    return Attributor(AttributionIndex.open(sys.argv[1]), threads=1)

def answer(one):
    found = one.attribute(np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8))
    assert found.candidates.count == len(one.index) and found.copy is not None
    return found

def data_bytes():
    with open("/proc/self/status") as stream:
        return next(int(line.split()[1]) * 1024 for line in stream if line.startswith("VmData"))

def limit(mib):
    resource.setrlimit(resource.RLIMIT_DATA, (data_bytes() + mib * 2**20, resource.RLIM_INFINITY))

das.scoring.IN_MEMORY_BYTES = 0
loaded = attributor()
# What libraries set aside when they are first used is no part of what is measured: one answer about three works.
loaded.attribute(np.zeros((16, 16, 3), np.uint8), candidates=[0, 1, 2])
if sys.argv[2] == "limited":
    limit(int(sys.argv[3]))
    mapped = answer(loaded)
    resource.setrlimit(resource.RLIMIT_DATA, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    das.scoring.IN_MEMORY_BYTES = 2**40
    kept = answer(attributor())
    assert_same_ranking(mapped.works, kept.works, 1e-5)
    groups = [
        [SimpleNamespace(work_id=group.name, score=group.share) for group in one.groups["creator"]]
        for one in (mapped, kept)
    ]
    assert_same_ranking(*groups, 1e-5)
    print(len(groups[0]))
else:
    das.scoring.IN_MEMORY_BYTES = 2**40
    fresh = attributor()
    limit(int(sys.argv[3]))
    answer(fresh)
"""


@pytest.fixture(scope="module")
def large(tiny_index: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("large") / "index"
    enlarge(AttributionIndex.open(tiny_index), WORKS, "float16", out)
    return out


def asked(large: Path, how: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", PROGRAM, str(large), how, str(LIMIT_MIB)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_an_index_larger_than_the_memory_is_asked_exactly(large: Path) -> None:
    done = asked(large, "limited")
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 100


def test_keeping_its_features_takes_more_than_that_memory(large: Path) -> None:
    done = asked(large, "kept")
    assert done.returncode != 0
    assert "alloc" in done.stderr.casefold() or "MemoryError" in done.stderr


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_the_works_are_mixtures_of_real_ones(tiny_index: Path, tmp_path: Path, dtype: str) -> None:
    like = AttributionIndex.open(tiny_index)
    enlarge(like, 500, dtype, tmp_path / "index")
    index = AttributionIndex.open(tmp_path / "index")
    assert index.verify().ok
    assert len(index) == 500
    real = np.asarray(like.features("loss"), np.float64)
    mixed = np.asarray(index.features("loss"), np.float64)
    # In the space that the 40 real works span, and together of about the leverage that they have.
    basis = np.linalg.qr(real.T)[0]
    outside = np.linalg.norm(mixed - mixed @ basis @ basis.T) / np.linalg.norm(mixed)
    assert outside < (0.02 if dtype == "int8" else 1e-3)
    assert 0.8 < np.square(mixed).sum() / np.square(real).sum() < 1.3
    assert len({*index.works.column("id")}) == 500


def test_figures_are_told_for_machines_and_people(tiny_index: Path, tmp_path: Path) -> None:
    words = ["bench", "search", "--index", str(tiny_index), "--folder", str(tmp_path), "--works", "300"]
    words += ["--answers", "1"]
    done = CliRunner().invoke(build_app(), [*words, "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert (told["works"], told["dimension"], told["sets"]) == (300, 128, 2)
    assert told["feature_bytes"] == 2 * (19 * 128 + 300 * 128 * 2)
    assert len(told["later"]) == 1
    assert told["first"]["wall_ms"] > told["first"]["scoring_ms"] > 0
    assert f"| **{told['after_gradients_ms']:.0f} ms** |" in search_section([told])
    assert search_section([]) == ""
    again = CliRunner().invoke(build_app(), words)
    assert "300 works" in again.stdout


def test_questions_are_timed_alone_and_together(tiny_index: Path, tmp_path: Path) -> None:
    out = tmp_path / "questions.json"
    words = ["bench", "query", "--index", str(tiny_index), "--rounds", "2", "--out", str(out)]
    done = CliRunner().invoke(build_app(), [*words, "--together", "1", "--together", "3"])
    assert done.exit_code == 0, done.output
    assert "3 together: " in done.stdout
    told = json.loads(out.read_text())
    one, three = told["rows"]
    assert (told["works"], one["together"], three["together"]) == (40, 1, 3)
    assert (one["ratio"], one["ratio_low"], one["ratio_high"]) == (1.0, 1.0, 1.0)
    assert 0 < three["ratio_low"] <= three["ratio"] <= three["ratio_high"]
    assert one["wall_ms"] > one["gradients_ms"] > 0
    page = questions_section([told])
    assert f"| 3 | {three['wall_ms']:.0f} ms | {three['ratio']:.2f} (" in page
    assert questions_section([]) == ""
