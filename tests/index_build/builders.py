"""A process that loads what a build needs once, and forks a builder for every line it reads.

Each line is JSON: the config, where to build, and when to die: `die_at` is the number of a durable write, before
whose rename the builder is killed by SIGKILL; `die_in` names a step of the publishing to be killed in;
`kill_after_s` is the time after which it is killed from here, wherever it is; `file_limit` is the size in bytes
from which the disk counts as full; `strict` stops at a work that can't be used; `distributed` has build workers
compute, who leave shards at `exchange`, and `lost_s` is when one of them counts as lost. It answers with one line of
JSON.
"""

import json
import os
import resource
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

import open_clip  # noqa: F401 - loaded once, for all builders
import torch
from diffusers import DDPMPipeline, UNet2DModel  # noqa: F401

import index_build.build
import index_build.cluster.coordinator
import index_build.estimate
import index_build.finish
import index_build.gather
from das.config import BuildConfig
from das.errors import DasError


def main() -> None:
    torch.set_num_threads(1)
    for line in sys.stdin:
        order = json.loads(line)
        read_end, write_end = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(read_end)
            _build(order, write_end)
        os.close(write_end)
        if "kill_after_s" in order:
            time.sleep(order["kill_after_s"])
            os.kill(child, signal.SIGKILL)
        with os.fdopen(read_end) as answer:
            said = answer.read()
        _, status = os.waitpid(child, 0)
        died = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        sys.stdout.write(json.dumps({"killed": died} | json.loads(said or "{}")) + "\n")
        sys.stdout.flush()


def _build(order: dict[str, Any], answer: int) -> None:
    writes = 0
    replace, rename, rmtree = Path.replace, Path.rename, shutil.rmtree

    def counting_replace(path: Path, target: Path) -> Path:
        nonlocal writes
        if writes == order.get("die_at"):
            os.kill(os.getpid(), signal.SIGKILL)
        writes += 1
        return replace(path, target)

    def dying_rename(path: Path, target: Path) -> Path:
        if order.get("die_in") == "rename":
            os.kill(os.getpid(), signal.SIGKILL)
        return rename(path, target)

    def dying_rmtree(path: Path, ignore_errors: bool = False) -> None:
        if order.get("die_in") == "rmtree":
            (path / "shard-00000.npz").unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        rmtree(path, ignore_errors=ignore_errors)

    Path.replace, Path.rename = counting_replace, dying_rename  # type: ignore[method-assign, assignment]
    shutil.rmtree = dying_rmtree  # type: ignore[assignment]
    if "file_limit" in order:
        resource.setrlimit(resource.RLIMIT_FSIZE, (order["file_limit"], resource.RLIM_INFINITY))
    if "lost_s" in order:
        index_build.cluster.coordinator.LOST_S = order["lost_s"]
    said: dict[str, Any]
    try:
        result = index_build.build.build(
            BuildConfig(**order["config"]),
            Path(order["out"]),
            strict=order.get("strict", False),
            distributed=order.get("distributed", False),
            exchange=order.get("exchange"),
        )
        said = {"index": result.index_id, "state": result.state, "writes": writes}
    except DasError as error:
        said = {"error": str(error)}
    with os.fdopen(answer, "w") as stream:
        stream.write(json.dumps(said))
    os._exit(0)


if __name__ == "__main__":
    main()
