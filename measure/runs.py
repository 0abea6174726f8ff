"""Models that are trained for a ground truth: what they have in common, and what is kept of each.

What is kept is written as a model is finished, whole or not at all. A run that was killed loses the models that were
being trained at that moment, and goes on when the same command is run again.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from itertools import groupby
from multiprocessing import get_context, parent_process
from pathlib import Path
from threading import Thread

import numpy as np
import torch
from torch import Tensor, nn

from das.errors import DasError
from measure.courses import Course, Noise
from measure.fleet import Fleet, Start
from measure.training import LossConfig, predictions_on, save_pipeline, seed_of, shared_noises, simple_losses
from measure.truth import read_arrays, write_arrays

RUNS = "runs"
SIDE_BY_SIDE = 24
"""Networks that a GPU trains at once: enough that another one would make all of them slower."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Training:
    """What the models of a ground truth have in common.

    Attributes:
        start: makes a network, and says what of it is trained.
        images: (N, C, H, W), the works.
        course: of a seed and the rows (n,) of the works that are kept.
        noise: of a seed.
        queries: (Q, C, H, W), pictures that every model's losses are taken of.
    """

    start: Start
    images: Tensor
    course: Callable[[int, np.ndarray], Course]
    noise: Callable[[int], Noise]
    queries: Tensor
    losses: LossConfig
    weight_decay: float
    largest_gradient: float | None = None

    def fleet(self, size: int, device: str) -> Fleet:
        """Room to train `size` models side by side."""
        return Fleet(
            self.start,
            self.images,
            size=size,
            device=device,
            weight_decay=self.weight_decay,
            largest_gradient=self.largest_gradient,
        )


@dataclass(frozen=True)
class Run:
    """One model.

    Attributes:
        kept: rows (n,) of the works that it is trained on.
        pipeline: where it is saved; None: its weights aren't kept.
    """

    name: str
    seed: int
    kept: np.ndarray
    pipeline: Path | None = None

    def path(self, out: Path) -> Path:
        """Where its losses are kept."""
        return out / RUNS / f"{self.name}.npz"

    def losses(self, out: Path) -> np.ndarray:
        """Its loss on each query, (Q,)."""
        return read_arrays(self.path(out), ("losses",))["losses"]

    def predictions(self, out: Path) -> np.ndarray:
        """What it predicts on the queries, (P, Q, C, H, W) float16, where that was kept."""
        return read_arrays(self.path(out), ("predictions",))["predictions"]


def train_runs(
    out: Path,
    make: Callable[[], Training],
    runs: Sequence[Run],
    *,
    predictions: bool = False,
    workers: int = 1,
    device: str = "cpu",
    say: Say = lambda text: None,
) -> None:
    """Train the models of which nothing is kept yet, and keep their losses.

    Args:
        make: the training; on a CPU it is called in every process, and so has to be picklable.
        predictions: also keep what they predict on the queries.
        workers: processes that train at once on a CPU, each on one thread. A GPU trains `SIDE_BY_SIDE` in one.

    Raises:
        DasError: a model diverged.
    """
    waiting = [run for run in runs if not run.path(out).is_file()]
    say(f"{len(waiting)} of {len(runs)} models to train")
    if not waiting:
        return
    lines = (
        _in_waves(out, make(), waiting, predictions, device)
        if device.startswith("cuda")
        else _in_processes(out, make, waiting, predictions, workers, device)
    )
    for done, line in enumerate(lines, 1):
        say(f"{done}/{len(waiting)} {line}")


def keep(out: Path, run: Run, network: nn.Module, training: Training, *, predictions: bool = False) -> str:
    """Keep a trained model's losses, and what it predicts; a line about it.

    Raises:
        DasError: the losses aren't finite.
    """
    predicted = predictions_on(network, training.queries, training.losses)
    noises = shared_noises(training.queries.shape[1:], training.losses)
    losses = simple_losses(predicted, noises).numpy()
    if not np.isfinite(losses).all():
        raise DasError(f"The model {run.name} diverged. Use a smaller learning rate, in a new directory.")
    if run.pipeline is not None and not run.pipeline.is_dir():
        save_pipeline(network, run.pipeline)
    kept = {"losses": losses}
    if predictions:
        kept["predictions"] = predicted.half().cpu().numpy()
    write_arrays(run.path(out), kept, compressed=not predictions)
    return f"{run.name}: mean loss {losses.mean():.4f}"


def _in_waves(
    out: Path, training: Training, runs: list[Run], predictions: bool, device: str
) -> Iterator[str]:
    """Side by side on a GPU, those of one seed together, the longest courses first."""
    fleet = training.fleet(min(SIDE_BY_SIDE, len(runs)), device)
    by_seed = sorted(runs, key=lambda run: (run.seed, -len(run.kept)))
    for seed, group in groupby(by_seed, key=lambda run: run.seed):
        of_seed = list(group)
        for first in range(0, len(of_seed), len(fleet)):
            wave = of_seed[first : first + len(fleet)]
            courses = [training.course(seed, run.kept) for run in wave]
            networks = fleet.train(seed_of(seed, "weights"), courses, training.noise(seed))
            for run, network in zip(wave, networks, strict=True):
                yield keep(out, run, network, training, predictions=predictions)


def _in_processes(
    out: Path,
    make: Callable[[], Training],
    runs: list[Run],
    predictions: bool,
    workers: int,
    device: str,
) -> Iterator[str]:
    """One after another in each process; the first failure ends the others."""
    if workers == 1:
        for run in runs:
            yield _train_one(out, make, run, predictions, device)
        return
    # A forked child would inherit torch's thread pools in an unknown state.
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_become_worker)
    with pool:
        pending: set[Future[str]] = {
            pool.submit(_train_one, out, make, run, predictions, device) for run in runs
        }
        try:
            while pending:
                ended, pending = wait(pending, return_when=FIRST_COMPLETED)
                for future in ended:
                    yield future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _train_one(out: Path, make: Callable[[], Training], run: Run, predictions: bool, device: str) -> str:
    training = make()
    course = training.course(run.seed, run.kept)
    [network] = training.fleet(1, device).train(
        seed_of(run.seed, "weights"), [course], training.noise(run.seed)
    )
    return keep(out, run, network, training, predictions=predictions)


def _become_worker() -> None:
    """One thread, and an end with the parent: a pool's processes outlive a parent that was killed."""
    torch.set_num_threads(1)
    parent = parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)

    Thread(target=follow, daemon=True).start()
