"""Making a ground truth of random subsets: the full model, its queries, and a model for each subset and seed."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch

from das.device import check_device
from das.errors import SettingsError
from das.models import load_model
from measure.adapters import base_network, save_lora
from measure.courses import Course, course_of, noise_of, stream_of
from measure.fleet import train
from measure.plan import Draw, Plan, claim
from measure.runs import Run, Say, Training, train_runs
from measure.source import Source
from measure.training import new_scheduler, sample, save_pipeline, seed_of, start_of
from measure.truth import (
    LORA,
    PIPELINE,
    QUERIES,
    SUBSETS,
    WORKS,
    GroundTruth,
    load_truth,
    read_arrays,
    read_repeats,
    save_truth,
    write_arrays,
)

CHECKPOINTS, GENERATED = "checkpoints", "generated.npz"


def make_truth(
    source: Source,
    out: Path,
    plan: Plan,
    *,
    base: Path | None = None,
    workers: int = 1,
    device: str = "cpu",
    say: Say = lambda text: None,
) -> GroundTruth:
    """Make the ground truth in `out`, or go on with it.

    A finished one can be kept without the pictures that it takes from the source, `works.npz` and `queries.npz`:
    they are drawn again.

    Args:
        base: a DDPMPipeline directory; with it, LoRAs of the recipe's rank are trained on that network, and no whole
            networks.
        workers: processes that train at once, each on one thread; it doesn't change the numbers.
        device: of the training. Another device gives other numbers, and so is part of the plan.
        say: told what has been done, a line at a time.

    Raises:
        SettingsError: the plan can't be followed with these pictures, `out` was begun with another plan, or the
            device isn't there.
    """
    if workers < 1:
        raise SettingsError(f"workers must be at least 1, not {workers}.")
    if (plan.recipe.rank is None) != (base is None):
        raise SettingsError("A LoRA needs both: a base to be trained on, and a rank.")
    if not (out / SUBSETS).is_file():
        check_device(device)
    out.mkdir(parents=True, exist_ok=True)
    facts = {"device": device, "source": source.digest()}
    if base is not None:
        facts["base"] = load_model(str(base)).identity["digest"]
    claim(out, {**plan.describe(), **facts})
    if base is not None and not (out / PIPELINE).is_dir():
        save_pipeline(base_network(base), out / PIPELINE)
    if not (out / WORKS).is_file():
        save_truth(out, works=_drawn_works(source, plan))
    repeats = read_repeats(out, len(_works(out)))
    if not (out / (PIPELINE if base is None else LORA)).is_dir():
        say(_train_full(out, plan, repeats, device))
    if not (out / QUERIES).is_file():
        write_queries(source, out, plan, device)
        say(f"{plan.validation + plan.generated} queries")
    if (out / SUBSETS).is_file():
        return load_truth(out)
    members = plan.members(len(_works(out)))
    runs = {
        (subset, seed): Run(
            f"subset-{subset:04d}-seed-{seed}",
            seed_of(plan.seed, "subset model", seed),
            np.flatnonzero(members[subset]),
        )
        for subset, seed in plan.runs()
    }
    make = partial(_training, out, plan)
    train_runs(out, make, list(runs.values()), workers=workers, device=device, say=say)
    losses = np.full((plan.subsets, plan.seeds, plan.validation + plan.generated), np.nan, np.float32)
    for place, run in runs.items():
        losses[place] = run.losses(out)
    save_truth(out, subsets={"members": members, "losses": losses})
    return load_truth(out)


def _drawn_works(source: Source, plan: Plan) -> dict[str, np.ndarray]:
    works = source.works(plan)
    return works | ({"repeats": plan.repeats_of(len(works["images"]))} if plan.repeats else {})


def training_of(out: Path, plan: Draw, course: Callable[[int, np.ndarray], Course]) -> Training:
    """The training of a directory's works by a plan's recipe."""
    images = torch.from_numpy(_works(out))
    return Training(
        start=partial(start_of, images.shape[1:], plan.recipe, _base(out, plan)),
        images=images,
        course=course,
        noise=lambda seed: noise_of((plan.recipe.batch_size, *images.shape[1:]), seed=seed),
        queries=torch.from_numpy(read_arrays(out / QUERIES, ("images",))["images"]),
        losses=plan.losses,
        weight_decay=plan.recipe.weight_decay,
    )


def _training(out: Path, plan: Plan) -> Training:
    """How subset models are trained: as many steps for a work, with all its repeats, as in any subset."""
    repeats = read_repeats(out, len(_works(out)))

    def course(seed: int, kept: np.ndarray) -> Course:
        stream = stream_of(kept, repeats)
        steps = round(plan.recipe.steps * len(stream) / (plan.share * repeats.sum()))
        return course_of(plan.recipe, stream, seed=seed, steps=steps)

    return training_of(out, plan, course)


def write_queries(source: Source, out: Path, plan: Draw, device: str) -> None:
    """The held-out pictures, then the full model's own."""
    parts, labels, kinds = [], [], []
    if plan.validation:
        held_out = source.validation(plan)
        parts.append(held_out["images"])
        labels.append(held_out["labels"])
        kinds += ["validation"] * plan.validation
    if plan.generated:
        if not (out / GENERATED).is_file():
            write_arrays(out / GENERATED, {"images": _generated(out, plan, device)})
        parts.append(read_arrays(out / GENERATED, ("images",))["images"])
        labels.append(np.full(plan.generated, -1))
        kinds += ["generated"] * plan.generated
    queries = {
        "images": np.concatenate(parts),
        "labels": np.concatenate(labels),
        "kind": np.array(kinds),
    }
    save_truth(out, queries=queries)


def _generated(out: Path, plan: Draw, device: str) -> np.ndarray:
    """Pictures that the full model makes, (n, C, H, W)."""
    lora = None if plan.recipe.rank is None else str(out / LORA)
    network = load_model(str(out / PIPELINE), lora=lora, device=device).network
    shape, seed = (plan.generated, *_works(out).shape[1:]), seed_of(plan.seed, "generated")
    return sample(network, new_scheduler(), shape, seed=seed, steps=plan.sampling_steps).numpy()


def _works(out: Path) -> np.ndarray:
    """The works' pictures, (N, C, H, W)."""
    return read_arrays(out / WORKS, ("images",))["images"]


def _train_full(out: Path, plan: Plan, repeats: np.ndarray, device: str) -> str:
    rank = plan.recipe.rank
    made = out / (PIPELINE if rank is None else LORA)
    images = torch.from_numpy(_works(out))
    steps = plan.recipe.full_steps
    parts = plan.checkpoints + 1
    kept = {steps * part // parts for part in range(1, parts)} - {0, steps}

    def save(network: torch.nn.Module, path: Path) -> None:
        if rank is None:
            save_pipeline(network, path)
        else:
            save_lora(network, path, rank)

    def keep(step: int, network: torch.nn.Module) -> None:
        if step in kept:
            save(network, out / CHECKPOINTS / f"step-{step:06d}")

    seed = seed_of(plan.seed, "full model")
    network = train(
        images,
        plan.recipe,
        seed=seed,
        steps=steps,
        stream=stream_of(np.arange(len(images)), repeats),
        device=device,
        base=_base(out, plan),
        report=keep,
    )
    save(network, made)
    trained = sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
    return f"full model of {trained:,} trained parameters, {steps} steps"


def _base(out: Path, plan: Draw) -> Path | None:
    """The network under the LoRAs, as it was copied."""
    return None if plan.recipe.rank is None else out / PIPELINE
