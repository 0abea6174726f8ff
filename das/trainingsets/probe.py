"""Whether parquets can be opened at all, tried in a process of its own.

A damaged description can end the process that reads it (pyarrow aborts on some, where no exception could be caught),
so it is read once where nothing is lost by that.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from das.errors import WorksError

_TIMEOUT_S = 600
_PROGRAM = """
import json, sys
import pyarrow.parquet as pq
for number, path in enumerate(json.load(sys.stdin)):
    print(number, flush=True)
    try:
        about = pq.ParquetFile(path).metadata
        for group in range(about.num_row_groups):
            for column in range(about.num_columns):
                about.row_group(group).column(column)
    except Exception:
        pass
"""


def check_parquets(paths: Sequence[Path]) -> None:
    """Raise WorksError for the first parquet whose description ends the process that reads it.

    What merely raises an exception is left to whoever reads it.
    """
    asked = json.dumps([str(path) for path in paths])
    command = [sys.executable, "-I", "-c", _PROGRAM]
    try:
        ended = subprocess.run(command, input=asked, capture_output=True, text=True, timeout=_TIMEOUT_S)
    except subprocess.TimeoutExpired as error:
        raise WorksError(
            f"the description of {paths[0]}, or of another parquet beside it, isn't read within {_TIMEOUT_S} s."
        ) from error
    if ended.returncode:
        reached = ended.stdout.split()
        path = paths[int(reached[-1])] if reached else paths[0]
        raise WorksError(f"{path} can't be read as parquet: its description is damaged.")
