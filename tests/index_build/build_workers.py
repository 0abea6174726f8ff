"""A process that loads what a build worker needs once, and forks one for every line; it answers with the pid."""

import os
import signal
import sys

import open_clip  # noqa: F401 - loaded once, for all workers
import torch
from diffusers import DDPMPipeline, UNet2DModel  # noqa: F401

from index_build.cluster.shard_worker import run
from jobs.settings import Settings


def main() -> None:
    torch.set_num_threads(1)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for _ in sys.stdin:
        child = os.fork()
        if child == 0:
            null = os.open(os.devnull, os.O_RDWR)
            os.dup2(null, 0)
            os.dup2(null, 1)
            os._exit(run(Settings(), "cpu"))
        sys.stdout.write(f"{child}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
