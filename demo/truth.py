"""What the demo's model really owes to its photographs: trained again without each of them.

The works fall into 14 parts: the crops of each of the eleven photographs less the planted ones, and the three planted
crops. Every model lacks one part, or three in a design in which all parts are lacking equally often, and sees the
rest as often as the full model does. Asked are the committed samples, and crops that are no works.
"""

import json
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from demo.course import LARGEST_GRADIENT, NOISY_WEIGHTS_FROM, DemoCourse, TrainConfig
from demo.crops import all_crops, crops_between, planted_rows, stream
from demo.effects import EFFECTS, write_effects
from demo.home import PIPELINE, SAMPLES
from demo.photographs import PHOTOGRAPHS
from demo.samples import read_samples
from demo.train import crops_tensor, model_space, new_network
from measure import truth as files
from measure.courses import Course
from measure.groups import GroupTruth, leave_out, load_groups
from measure.plan import claim
from measure.runs import Say, Training
from measure.training import LossConfig

CROPS_ASKED = 6  # of each photograph
LOSSES = LossConfig(timesteps=20, draws=1)
FIRST_SEED = 20


def part_names() -> tuple[str, ...]:
    """The 14 parts by the numbers that `parts_of_works` gives: photographs, then planted works."""
    crops = all_crops()
    planted = [crops[row].file_name for row in planted_rows()]
    return (*[photograph.name for photograph in PHOTOGRAPHS], *planted)


def parts_of_works() -> np.ndarray:
    """The part of each work, (N,) int64."""
    names = part_names()
    return np.array(
        [names.index(crop.file_name if crop.repeats > 1 else crop.photograph.name) for crop in all_crops()]
    )


def make_demo_truth(
    out: Path,
    *,
    steps: int,
    seeds: int,
    lacking: int = 1,
    models: int = 24,
    workers: int = 1,
    device: str = "cpu",
    say: Say = lambda text: None,
) -> GroupTruth:
    """Make the demo's ground truth in `out`, or go on with it.

    Args:
        steps: of the full model; the others take fewer, by what they lack.
        lacking: parts that each model lacks: 1, a model for each part; or more, of `models` in a balanced design.
        device: of the training. Another device gives other numbers, and so is part of the plan.
    """
    out.mkdir(parents=True, exist_ok=True)
    sets = design(len(part_names()), lacking, models)
    plan = {
        "demo": 1,
        "steps": steps,
        "seeds": seeds,
        "lacking": lacking,
        "models": len(sets),
        "device": device,
    }
    claim(out, plan)
    _write_works(out)
    numbers = range(FIRST_SEED, FIRST_SEED + seeds)
    make = partial(training, steps)
    leave_out(
        out,
        make,
        parts_of_works(),
        sets,
        numbers,
        attributed=out / files.PIPELINE,
        workers=workers,
        device=device,
        say=say,
    )
    made = load_groups(out)
    if seeds > 1:
        write_effects(out / EFFECTS.name, made, plan, queries()[2])
    return made


def design(parts: int, lacking: int, models: int) -> list[np.ndarray]:
    """Which parts each model lacks: none, then each part alone, or `models` sets of several.

    Sets are taken from random orders of all parts laid end to end, so that no part is lacking more than once more
    often than another.
    """
    if lacking == 1:
        return [np.array([], np.int64), *np.arange(parts)[:, None]]
    random = np.random.default_rng(FIRST_SEED)
    sets: list[np.ndarray] = [np.array([], np.int64)]
    left: list[int] = []
    while len(sets) <= models:
        if len(left) < lacking:
            # Those that are left over come last in the next order, so that no set names a part twice.
            left += sorted(random.permutation(parts).tolist(), key=left.__contains__)
        sets.append(np.array(left[:lacking]))
        left = left[lacking:]
    return sets


def queries() -> tuple[torch.Tensor, np.ndarray, list[str]]:
    """The pictures asked about (Q, 3, 32, 32) in [-1, 1], their kinds, and a name for each."""
    samples = read_samples(SAMPLES)
    crops = crops_between(CROPS_ASKED)
    pixels = [np.asarray(Image.open(SAMPLES / sample.file).convert("RGB")) for sample in samples]
    names = [sample.file for sample in samples] + [crop.file_name for crop in crops]
    kinds = np.array(["generated"] * len(samples) + ["validation"] * len(crops))
    return model_space(np.stack(pixels + [crop.pixels for crop in crops])), kinds, names


def _write_works(out: Path) -> None:
    """The works with their parts, and the queries."""
    crops = all_crops()
    if not (out / files.WORKS).is_file():
        arrays = {
            "images": crops_tensor().numpy(),
            "labels": np.zeros(len(crops), np.int64),
            "repeats": np.array([crop.repeats for crop in crops]),
            "groups": parts_of_works(),
        }
        files.save_truth(out, works=arrays)
    if not (out / files.QUERIES).is_file():
        images, kinds, names = queries()
        asked = {
            "images": images.numpy(),
            "labels": np.full(len(kinds), -1),
            "kind": kinds,
            "name": np.array(names),
        }
        files.save_truth(out, queries=asked)


def training(steps: int) -> Training:
    """The recipe of the committed weights, shortened by what a model lacks."""
    full = stream()
    committed = json.loads((PIPELINE / "train.json").read_text(encoding="utf-8"))["steps"]
    # The change of the loss's weights comes as early in the training as it did in the committed one.
    noisy_part = NOISY_WEIGHTS_FROM / committed
    images, _, _ = queries()

    def course(seed: int, kept: np.ndarray) -> Course:
        epoch = full[np.isin(full, kept)]
        config = TrainConfig(steps=max(1, round(steps * len(epoch) / len(full))), seed=seed)
        taken = DemoCourse(config, torch.from_numpy(epoch), round(noisy_part * config.steps))
        needed = config.steps * config.batch_size
        epochs = [taken.epoch(number) for number in range(-(-needed // len(epoch)))]
        times, noisy = all_times(seed)[: config.steps], taken.noisy_weights_from
        return Course(
            rows=torch.cat(epochs)[:needed].unflatten(0, (config.steps, -1)),
            times=times,
            rates=torch.tensor([config.rate(step) for step in range(config.steps)], dtype=torch.float64),
            weights=torch.cat([taken.weights(0, times[:noisy]), taken.weights(noisy, times[noisy:])]),
            decays=torch.tensor(
                [config.decay(step + 1) for step in range(config.steps)], dtype=torch.float64
            ),
        )

    @cache
    def all_times(seed: int) -> torch.Tensor:
        """Of every step of the full model: the others take the first of them."""
        taken = DemoCourse(TrainConfig(seed=seed), torch.from_numpy(full))
        return torch.stack([taken.times(step) for step in range(steps)])

    def start() -> tuple[torch.nn.Module, list[torch.nn.Parameter]]:
        network = new_network()
        return network, list(network.parameters())

    return Training(
        start=start,
        images=crops_tensor(),
        course=course,
        noise=lambda seed: DemoCourse(TrainConfig(seed=seed), torch.from_numpy(full)).noise,
        queries=images,
        losses=LOSSES,
        weight_decay=TrainConfig().weight_decay,
        largest_gradient=LARGEST_GRADIENT,
    )
