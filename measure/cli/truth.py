"""`das evaluate truth`: train the models that estimators are measured against."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer
from rich.console import Console

from das.errors import SettingsError
from das.finite import LARGEST_SEED, finite
from measure.cli.options import JsonOption, numbers, use_one_thread

if TYPE_CHECKING:
    from measure.truth import GroundTruth

WorksOption = Annotated[Path, typer.Option(help="Pictures (count, height, width, channels) in an npz.")]
TruthOutOption = Annotated[Path, typer.Option(help="The ground truth's directory, made or gone on with.")]
WorksKeyOption = Annotated[str, typer.Option(help="Name of the array that works are drawn from.")]
HeldOutKeyOption = Annotated[
    str | None, typer.Option(help="Array of validation queries; left out: spare pictures of the works'.")
]
SizeOption = Annotated[int | None, typer.Option(help="Resize to this side, by averaging areas.")]
CountOption = Annotated[int | None, typer.Option(help="N, how many works; all if left out.")]
ValidationOption = Annotated[int, typer.Option(help="Held-out queries.")]
GeneratedOption = Annotated[int, typer.Option(help="Queries that the full model generates.")]
BatchOption = Annotated[int, typer.Option(help="Pictures in a training step.")]
WidthOption = Annotated[str, typer.Option(help="Channels of the network's levels.")]
RateOption = Annotated[
    float, typer.Option(help="Peak of the learning rate.", min=0.0, max=1.0, callback=finite)
]
LossTimestepsOption = Annotated[int, typer.Option(help="Evenly spaced timesteps of a query's loss.")]
LossDrawsOption = Annotated[int, typer.Option(help="Noises for each of them.")]
SamplingStepsOption = Annotated[int, typer.Option(help="DDIM steps of generated queries.")]
# Asked for when something is to be trained: a finished truth is completed anywhere.
TrainingDeviceOption = Annotated[str, typer.Option(help="cpu, cuda, cuda:N or mps.")]
TruthSeedOption = Annotated[int, typer.Option(help="Of everything that is drawn.", min=0, max=LARGEST_SEED)]
WorkersOption = Annotated[int, typer.Option(help="Models trained at once, each on one thread.")]


def truth(
    out: TruthOutOption,
    works_npz: Annotated[
        Path | None, typer.Option(help="Pictures (count, height, width, channels) in an npz; or --from.")
    ] = None,
    own_runs: Annotated[
        Path | None,
        typer.Option("--from", help="A directory of models, or of their losses, that you trained yourself."),
    ] = None,
    works_key: WorksKeyOption = "images",
    held_out_key: HeldOutKeyOption = None,
    size: SizeOption = None,
    count: CountOption = None,
    validation: ValidationOption = 100,
    generated: GeneratedOption = 100,
    subsets: Annotated[int, typer.Option(help="M, how many subsets.")] = 36,
    share: Annotated[
        float, typer.Option(help="Part of the works in each subset.", min=0.0, max=1.0, callback=finite)
    ] = 0.5,
    seeds: Annotated[int, typer.Option(help="Models for each subset.")] = 2,
    repeated: Annotated[
        int, typer.Option(help="Subsets that get the later seeds too, for the ceiling.")
    ] = 12,
    steps: Annotated[int, typer.Option(help="Training steps of a subset model.")] = 800,
    full_steps: Annotated[
        int | None, typer.Option(help="Of the full model; by default as many for each work as in a subset.")
    ] = None,
    batch: BatchOption = 64,
    width: WidthOption = "16,32,48",
    learning_rate: RateOption = 2e-3,
    loss_timesteps: LossTimestepsOption = 25,
    loss_draws: LossDrawsOption = 2,
    sampling_steps: SamplingStepsOption = 100,
    repeats: Annotated[
        str | None,
        typer.Option(
            help="How many works an epoch shows more than once, as times:works, such as 5:30,20:15."
        ),
    ] = None,
    checkpoints: Annotated[
        int, typer.Option(help="Snapshots of the full model on its way, for TracInCP and GAS.")
    ] = 3,
    base: Annotated[
        Path | None, typer.Option(help="A pipeline to train LoRAs on, in place of whole networks.")
    ] = None,
    rank: Annotated[int | None, typer.Option(help="Of the LoRAs; needs --base.")] = None,
    seed: TruthSeedOption = 0,
    workers: WorkersOption = 1,
    device: TrainingDeviceOption = "cpu",
    as_json: JsonOption = False,
) -> None:
    """Train the full model and the subset models that the other measurements are held against.

    Or take models that were trained elsewhere, with --from; of the other options, those of losses and --device
    count then. An interrupted run goes on when the same command is run again, and loses no finished model. A GPU
    trains many models side by side.
    """
    if (works_npz is None) == (own_runs is None):
        raise SettingsError(
            "Give either --works-npz, to train models on pictures of it, or --from, for models that are there."
        )
    if own_runs is not None:
        _take(own_runs, out, loss_timesteps, loss_draws, seed, device, as_json)
        return
    assert works_npz is not None
    from measure.plan import Plan
    from measure.source import read_source
    from measure.subsets import make_truth
    from measure.training import LossConfig, Recipe

    use_one_thread()
    plan = Plan(
        size=size,
        count=count,
        validation=validation,
        generated=generated,
        subsets=subsets,
        share=share,
        seeds=seeds,
        repeated=repeated,
        checkpoints=checkpoints,
        repeats=_pairs(repeats),
        sampling_steps=sampling_steps,
        seed=seed,
        recipe=Recipe(
            widths=numbers("--width", width),
            steps=steps,
            full_steps=full_steps or round(steps / share),
            batch_size=batch,
            learning_rate=learning_rate,
            rank=rank,
        ),
        losses=LossConfig(loss_timesteps, loss_draws, seed),
    )
    console = Console(stderr=True, highlight=False, markup=False)
    source = read_source(works_npz, works_key, held_out_key)
    made = make_truth(source, out, plan, base=base, workers=workers, device=device, say=console.print)
    _tell(out, made, as_json)


def _take(
    own_runs: Path, out: Path, timesteps: int, draws: int, seed: int, device: str, as_json: bool
) -> None:
    from das.device import check_device
    from measure.own_runs import truth_of_runs
    from measure.training import LossConfig

    use_one_thread()
    check_device(device)
    say = Console(stderr=True, highlight=False, markup=False).print
    _tell(
        out, truth_of_runs(own_runs, out, LossConfig(timesteps, draws, seed), device=device, say=say), as_json
    )


def _tell(out: Path, made: "GroundTruth", as_json: bool) -> None:
    facts = {
        "path": str(out),
        "works": len(made.works),
        "queries": len(made.queries),
        "subsets": len(made.members),
        "models": int((~np.isnan(made.losses).all(2)).sum()),
    }
    if as_json:
        sys.stdout.write(json.dumps(facts) + "\n")
    else:
        Console(highlight=False, markup=False).print(
            f"{out}: {facts['works']} works, {facts['queries']} queries, {facts['subsets']} subsets"
        )


def group_truth(
    works_npz: WorksOption,
    out: TruthOutOption,
    works_key: WorksKeyOption = "images",
    held_out_key: HeldOutKeyOption = None,
    size: SizeOption = None,
    count: CountOption = None,
    validation: ValidationOption = 100,
    generated: GeneratedOption = 100,
    alike: Annotated[int, typer.Option(help="Groups of works that look alike, by k-means on pixels.")] = 16,
    mixed: Annotated[int, typer.Option(help="Groups of works drawn at random, large and small.")] = 8,
    seeds: Annotated[int, typer.Option(help="Models without each group, and with all.")] = 3,
    full_steps: Annotated[int, typer.Option(help="Training steps of a model that lacks nothing.")] = 1600,
    batch: BatchOption = 64,
    width: WidthOption = "16,32,48",
    learning_rate: RateOption = 2e-3,
    loss_timesteps: LossTimestepsOption = 25,
    loss_draws: LossDrawsOption = 2,
    sampling_steps: SamplingStepsOption = 100,
    seed: TruthSeedOption = 0,
    workers: WorkersOption = 1,
    device: TrainingDeviceOption = "cpu",
    as_json: JsonOption = False,
) -> None:
    """Train models without each group of works (a creator's, say), for das evaluate groups.

    An interrupted run goes on when the same command is run again, and loses no finished model. A GPU trains many
    models side by side.
    """
    from measure.groups import GroupPlan, make_groups
    from measure.source import read_source
    from measure.training import LossConfig, Recipe

    use_one_thread()
    plan = GroupPlan(
        size=size,
        count=count,
        validation=validation,
        generated=generated,
        alike=alike,
        mixed=mixed,
        seeds=seeds,
        sampling_steps=sampling_steps,
        seed=seed,
        recipe=Recipe(
            widths=numbers("--width", width),
            steps=full_steps,
            full_steps=full_steps,
            batch_size=batch,
            learning_rate=learning_rate,
        ),
        losses=LossConfig(loss_timesteps, loss_draws, seed),
    )
    console = Console(stderr=True, highlight=False, markup=False)
    source = read_source(works_npz, works_key, held_out_key)
    made = make_groups(source, out, plan, workers=workers, device=device, say=console.print)
    models, seeds_made = made.losses.shape[:2]
    facts = {
        "path": str(out),
        "works": len(made.works),
        "queries": len(made.queries),
        "groups": made.without.shape[1],
        "models": models * seeds_made,
    }
    if as_json:
        sys.stdout.write(json.dumps(facts) + "\n")
    else:
        Console(highlight=False, markup=False).print(
            f"{out}: {facts['works']} works in {facts['groups']} groups, {facts['queries']} queries"
        )


def _pairs(text: str | None) -> tuple[tuple[int, int], ...]:
    """The pairs of numbers of `text`, written 5:30,20:15."""
    try:
        pairs = [part.split(":") for part in text.split(",")] if text else []
        return tuple((int(times), int(works)) for times, works in pairs)
    except ValueError:
        raise SettingsError(f"--repeats is {text!r}; give pairs of times:works such as 5:30,20:15.") from None
