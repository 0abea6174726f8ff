"""The worker's own program: what it sets before anything is imported."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from worker.__main__ import WAIT_POLICY

ROOT = Path(__file__).parents[2]
# Celery's part is left out: what is looked at is over when it would begin.
SCRIPT = """
import sys
import worker.__main__ as program
class Kept:
    def __init__(self, work): pass
    def run(self):
        import torch
        torch.ones(2).sum()
        return 0
program.Keeper = Kept
program.main()
"""


@pytest.mark.parametrize(("given", "policy"), [({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE")])
def test_openmp_s_threads_wait_asleep_unless_it_is_said_otherwise(
    tmp_path: Path, tiny_index: Path, given: dict[str, str], policy: str
) -> None:
    inherited = {name: value for name, value in os.environ.items() if name not in WAIT_POLICY}
    settings = {
        "DAS_DATA_DIR": str(tmp_path),
        "DAS_INDEX_DIR": str(tiny_index),
        "DAS_REDIS_URL": "redis://127.0.0.1:1/0",
    }
    # OpenMP itself says what it took.
    told = {"OMP_DISPLAY_ENV": "TRUE"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={**inherited, **settings, **told, **given, "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"OMP_WAIT_POLICY = '{policy}'" in done.stderr, done.stderr
