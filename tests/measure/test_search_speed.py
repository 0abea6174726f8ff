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

WORKS = 100_000
LIMIT_MIB = 32
"""More than the vectors of 100,000 numbers take, less than the 51 MB that one set of features does in float32."""

# Asks the same twice: with the features mapped, under a limit on memory that no file backs, and kept in memory.
PROGRAM = """
import resource, sys
import numpy as np, torch
import das.scoring
from das.index import AttributionIndex
from das.ranking import Ranking
from das.scoring import KernelScorer
from das.tally import tally_of

torch.set_num_threads(1)
torch.ones(256, 256) @ torch.ones(256, 256)

def answer():
    index = AttributionIndex.open(sys.argv[1])
    queries = torch.randn(2, index.manifest.features.dimension, generator=torch.Generator().manual_seed(0))
    kernel = index.manifest.kernels_of("das-block")[0]
    scores = KernelScorer(index, kernel).products(queries, [None, None])
    tallies = [tally_of(index.works, one**2, None, 20) for one in scores]
    answers = [Ranking(index).rank("das-block", one, 20, {}, None, None) for one in tallies]
    return scores, [one.as_result() for one in answers]

def data_bytes():
    with open("/proc/self/status") as stream:
        return next(int(line.split()[1]) * 1024 for line in stream if line.startswith("VmData"))

das.scoring.IN_MEMORY_BYTES = 0
# What libraries set aside when they are first used, threads' stacks among it, is no part of what is measured.
AttributionIndex.open(sys.argv[1]).works.row(0)
if sys.argv[2] == "limited":
    limit = data_bytes() + int(sys.argv[3]) * 2**20
    resource.setrlimit(resource.RLIMIT_DATA, (limit, resource.RLIM_INFINITY))
    mapped, told = answer()
    resource.setrlimit(resource.RLIMIT_DATA, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    das.scoring.IN_MEMORY_BYTES = 2**40
    kept, same = answer()
    print(max(abs(a - b).max() / abs(b).max() for a, b in zip(mapped, kept)))
    print([[work["work_id"] for work in one["works"]] for one in told]
          == [[work["work_id"] for work in one["works"]] for one in same])
else:
    das.scoring.IN_MEMORY_BYTES = 2**40
    limit = data_bytes() + int(sys.argv[3]) * 2**20
    resource.setrlimit(resource.RLIMIT_DATA, (limit, resource.RLIM_INFINITY))
    answer()
"""


@pytest.fixture(scope="module")
def large(tiny_index: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("large") / "index"
    enlarge(AttributionIndex.open(tiny_index), WORKS, "float16", out)
    return out


def asked(large: Path, how: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", PROGRAM, str(large), how, str(LIMIT_MIB)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_an_index_larger_than_the_memory_is_asked_exactly(large: Path) -> None:
    done = asked(large, "limited")
    assert done.returncode == 0, done.stderr
    apart, same = done.stdout.split()
    assert float(apart) < 1e-5
    assert same == "True"


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
    again = CliRunner().invoke(build_app(), words)
    assert "300 works" in again.stdout
