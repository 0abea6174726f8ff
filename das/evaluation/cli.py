"""The commands that measure: `das evaluate truth|lds|counterfactual|output-function|screening|index`."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress

from das.errors import SettingsError
from das.evaluation.report import command_line, print_rows, truth_record, write_report

if TYPE_CHECKING:
    import numpy as np

    from das.evaluation.methods import Candidate
    from das.evaluation.study import Study
    from das.evaluation.truth import GroundTruth

JsonOption = Annotated[bool, typer.Option("--json", help="JSON for machines, on standard output.")]
TruthOption = Annotated[
    Path, typer.Option("--truth", help="A ground truth's directory, see das evaluate truth.")
]
OutOption = Annotated[
    Path | None, typer.Option(help="Also write the rows here, with command, seed and versions.")
]
CacheOption = Annotated[Path | None, typer.Option(help="Keep features in this directory between runs.")]
TimestepsOption = Annotated[str, typer.Option(help="How many, evenly spaced; or a list such as 0,100,200.")]
DimensionOption = Annotated[int, typer.Option(help="k, dimensions of the sketched gradients.")]
DrawsOption = Annotated[int, typer.Option(help="Noises per timestep.")]
SeedOption = Annotated[int, typer.Option(help="Of noise, sketch, halvings and resampling.")]
MethodOption = Annotated[
    list[str] | None,
    typer.Option(help="Only rows of this method, or with this label; may be given several times."),
]
CheckpointOption = Annotated[
    list[Path] | None,
    typer.Option(help="Earlier checkpoint for tracincp and gas; may be given several times."),
]
ClipOption = Annotated[Path | None, typer.Option(help="A local open_clip model; without it CLIP is skipped.")]
DeviceOption = Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")]


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    evaluate = typer.Typer(
        help="Measure how good the estimators are, by training again.", no_args_is_help=True
    )
    evaluate.command("truth")(truth)
    evaluate.command("lds")(lds)
    evaluate.command("counterfactual")(counterfactual)
    evaluate.command("output-function")(output_function)
    evaluate.command("screening")(screening)
    evaluate.command("index")(index)
    app.add_typer(evaluate, name="evaluate")


def truth(
    works_npz: Annotated[Path, typer.Option(help="Pictures (count, height, width, channels) in an npz.")],
    out: Annotated[Path, typer.Option(help="The ground truth's directory, made or gone on with.")],
    works_key: Annotated[str, typer.Option(help="Name of the array that works are drawn from.")] = "images",
    held_out_key: Annotated[
        str | None, typer.Option(help="Array of validation queries; left out: spare pictures of the works'.")
    ] = None,
    size: Annotated[int | None, typer.Option(help="Resize to this side, by averaging areas.")] = None,
    count: Annotated[int | None, typer.Option(help="N, how many works; all if left out.")] = None,
    validation: Annotated[int, typer.Option(help="Held-out queries.")] = 100,
    generated: Annotated[int, typer.Option(help="Queries that the full model generates.")] = 100,
    subsets: Annotated[int, typer.Option(help="M, how many subsets.")] = 36,
    share: Annotated[float, typer.Option(help="Part of the works in each subset.")] = 0.5,
    seeds: Annotated[int, typer.Option(help="Models for each subset.")] = 2,
    repeated: Annotated[
        int, typer.Option(help="Subsets that get the later seeds too, for the ceiling.")
    ] = 12,
    steps: Annotated[int, typer.Option(help="Training steps of a subset model.")] = 800,
    full_steps: Annotated[
        int | None, typer.Option(help="Of the full model; by default as many for each work as in a subset.")
    ] = None,
    batch: Annotated[int, typer.Option(help="Pictures in a training step.")] = 64,
    width: Annotated[str, typer.Option(help="Channels of the network's levels.")] = "16,32,48",
    learning_rate: Annotated[float, typer.Option(help="Peak of the learning rate.")] = 2e-3,
    loss_timesteps: Annotated[int, typer.Option(help="Evenly spaced timesteps of a query's loss.")] = 25,
    loss_draws: Annotated[int, typer.Option(help="Noises for each of them.")] = 2,
    sampling_steps: Annotated[int, typer.Option(help="DDIM steps of generated queries.")] = 100,
    checkpoints: Annotated[
        int, typer.Option(help="Snapshots of the full model on its way, for TracInCP and GAS.")
    ] = 3,
    base: Annotated[
        Path | None, typer.Option(help="A pipeline to train LoRAs on, in place of whole networks.")
    ] = None,
    rank: Annotated[int | None, typer.Option(help="Of the LoRAs; needs --base.")] = None,
    seed: Annotated[int, typer.Option(help="Of everything that is drawn.")] = 0,
    workers: Annotated[int, typer.Option(help="Models trained at once, each on one thread.")] = 1,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    as_json: JsonOption = False,
) -> None:
    """Train the full model and the subset models that the other measurements are held against.

    An interrupted run goes on when the same command is run again, and loses no finished model.
    """
    from das.evaluation.subsets import Plan, make_truth, read_source
    from das.evaluation.training import LossConfig, Recipe

    _use_one_thread()
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
    facts = {
        "path": str(out),
        "works": len(made.works),
        "queries": len(made.queries),
        "subsets": len(made.members),
        "models": len(plan.runs()),
    }
    if as_json:
        sys.stdout.write(json.dumps(facts) + "\n")
    else:
        Console(highlight=False, markup=False).print(
            f"{out}: {facts['works']} works, {facts['queries']} queries, {facts['subsets']} subsets"
        )


def lds(
    truth: TruthOption,
    out: OutOption = None,
    cache: CacheOption = None,
    timesteps: TimestepsOption = "10",
    dimension: DimensionOption = 4096,
    noise_draws: DrawsOption = 1,
    method: MethodOption = None,
    checkpoint: CheckpointOption = None,
    clip_dir: ClipOption = None,
    feature_dtype: Annotated[
        str, typer.Option(help="int8, float16 or float32, as an index stores them.")
    ] = "float16",
    splits: Annotated[int, typer.Option(help="Halvings of the subsets that figures are averaged over.")] = 20,
    curves: Annotated[
        bool, typer.Option(help="Also the curves over dimensions and numbers of timesteps.")
    ] = False,
    untrained: Annotated[
        bool, typer.Option(help="A control: features of the network as it was before its training.")
    ] = False,
    seed: SeedOption = 0,
    batch_size: Annotated[int, typer.Option(help="Pairs of image and timestep in one backward pass.")] = 64,
    device: DeviceOption = "cpu",
    as_json: JsonOption = False,
) -> None:
    """Compare the estimators by the linear datamodeling score (LDS): one row for each, times 100."""
    from das.evaluation.curves import curve_rows

    with _progress(as_json) as progress:
        study = _study(
            progress,
            truth,
            cache=cache,
            timesteps=timesteps,
            dimension=dimension,
            draws=noise_draws,
            checkpoint=checkpoint,
            clip_dir=clip_dir,
            seed=seed,
            device=device,
            feature_dtype=feature_dtype,
            splits=splits,
            batch_size=batch_size,
            untrained=untrained,
        )
        rows = study.rows(_chosen(study, method))
        if curves:
            rows += curve_rows(study)
    _tell(rows, study.truth, out, seed, as_json)


def counterfactual(
    truth: TruthOption,
    remove: Annotated[int, typer.Option(help="How many works are removed.")] = 100,
    set_size: Annotated[int, typer.Option(help="Generated queries whose scores are summed.")] = 10,
    sets: Annotated[int, typer.Option(help="Sets of queries; each is one retraining for each method.")] = 3,
    pictures: Annotated[
        Path | None, typer.Option(help="Also draw the first set before and after into this PNG.")
    ] = None,
    out: OutOption = None,
    cache: CacheOption = None,
    timesteps: TimestepsOption = "10",
    dimension: DimensionOption = 4096,
    noise_draws: DrawsOption = 1,
    method: MethodOption = None,
    checkpoint: CheckpointOption = None,
    clip_dir: ClipOption = None,
    seed: SeedOption = 0,
    device: DeviceOption = "cpu",
    as_json: JsonOption = False,
) -> None:
    """Remove the works ranked highest, train again, generate the same seeds: how far do the pictures move?"""
    from das.config import ClipSpec
    from das.evaluation.contact_sheet import contact_sheet
    from das.evaluation.counterfactual import counterfactual as measure
    from das.evaluation.retraining import Retrainer

    kept: list[tuple[str, np.ndarray]] = []

    with _progress(as_json) as progress:
        study = _study(
            progress,
            truth,
            cache=cache,
            timesteps=timesteps,
            dimension=dimension,
            draws=noise_draws,
            checkpoint=checkpoint,
            clip_dir=clip_dir,
            seed=seed,
            device=device,
        )
        rows = measure(
            study,
            _chosen(study, method),
            remove=remove,
            set_size=set_size,
            sets=sets,
            retrainer=Retrainer.of(study.truth),
            clip=None if clip_dir is None else ClipSpec(directory=clip_dir),
            say=progress.console.print,
            keep=lambda label, images: kept.append((label, images)),
        )
    if pictures is not None:
        pictures.parent.mkdir(parents=True, exist_ok=True)
        contact_sheet(kept).save(pictures, format="PNG", optimize=True)
    _tell(rows, study.truth, out, seed, as_json)


def output_function(
    truth: TruthOption,
    models: Annotated[int, typer.Option(help="Models that are trained again.")] = 8,
    remove: Annotated[int, typer.Option(help="Random works that each of them lacks.")] = 100,
    loss_timesteps: Annotated[int, typer.Option(help="Evenly spaced timesteps of loss and prediction.")] = 25,
    loss_draws: Annotated[int, typer.Option(help="Noises for each of them.")] = 2,
    out: OutOption = None,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Correlate how far generations move with the change of their loss and of the prediction on them."""
    from das.evaluation.output_function import output_function as measure
    from das.evaluation.retraining import Retrainer
    from das.evaluation.training import LossConfig
    from das.evaluation.truth import load_truth

    _use_one_thread()
    with _progress(as_json) as progress:
        loaded = load_truth(truth)
        rows = measure(
            Retrainer.of(loaded),
            models=models,
            remove=remove,
            losses=LossConfig(loss_timesteps, loss_draws, seed),
            seed=seed,
            say=progress.console.print,
        )
    _tell(rows, loaded, out, seed, as_json)


def screening(
    truth: TruthOption,
    candidates: Annotated[str, typer.Option(help="Numbers of look-alikes, such as 100,1000.")] = "100,1000",
    out: OutOption = None,
    cache: CacheOption = None,
    timesteps: TimestepsOption = "10",
    dimension: DimensionOption = 4096,
    noise_draws: DrawsOption = 1,
    method: MethodOption = None,
    checkpoint: CheckpointOption = None,
    clip_dir: ClipOption = None,
    seed: SeedOption = 0,
    device: DeviceOption = "cpu",
    as_json: JsonOption = False,
) -> None:
    """What scoring only the look-alikes loses: recall of the top 20, and LDS; by CLIP, or by pixels without one."""
    from das.evaluation.screening import screening as measure

    counts = numbers("--candidates", candidates)
    with _progress(as_json) as progress:
        study = _study(
            progress,
            truth,
            cache=cache,
            timesteps=timesteps,
            dimension=dimension,
            draws=noise_draws,
            checkpoint=checkpoint,
            clip_dir=clip_dir,
            seed=seed,
            device=device,
        )
        rows = measure(study, _chosen(study, method), counts)
    _tell(rows, study.truth, out, seed, as_json)


def index(
    directory: Annotated[Path, typer.Argument(metavar="INDEX", help="The index directory.")],
    truth: TruthOption,
    works: Annotated[
        Path | None, typer.Option(help="Where the index's works are now, if they were moved.")
    ] = None,
    device: DeviceOption = "cpu",
    as_json: JsonOption = False,
) -> None:
    """Measure an index's own ranking (LDS) against a ground truth of its model, and write it into its card."""
    from das.evaluation.index_quality import measure, record_quality
    from das.evaluation.truth import load_truth
    from das.index import AttributionIndex

    _use_one_thread()
    with _progress(as_json) as progress:
        task = progress.add_task("works", total=None)
        opened = AttributionIndex.open(directory)
        quality = measure(
            opened,
            load_truth(truth),
            works=works,
            device=device,
            command=command_line(),
            progress=lambda stage, done, total: progress.update(
                task, description=stage, completed=done, total=total
            ),
        )
        record_quality(opened, quality)
    if as_json:
        sys.stdout.write(json.dumps({"index": opened.id, **quality.model_dump(mode="json")}) + "\n")
    else:
        Console(highlight=False, markup=False, soft_wrap=True).print(f"{opened.id}: {quality.describe()}")


def _study(
    progress: Progress,
    truth: Path,
    *,
    timesteps: str,
    checkpoint: list[Path] | None,
    clip_dir: Path | None,
    **options: Any,
) -> "Study":
    from das.config import ClipSpec
    from das.evaluation.study import Options, Study
    from das.evaluation.training import TRAIN_TIMESTEPS
    from das.evaluation.truth import load_truth

    _use_one_thread()
    wanted = numbers("--timesteps", timesteps)
    if "," not in timesteps:
        if not 1 <= wanted[0] <= TRAIN_TIMESTEPS:
            raise SettingsError(f"--timesteps is {timesteps}; give 1 to {TRAIN_TIMESTEPS}, or a list.")
        wanted = tuple(i * TRAIN_TIMESTEPS // wanted[0] for i in range(wanted[0]))
    chosen = Options(
        timesteps=wanted,
        checkpoints=tuple(checkpoint or ()),
        clip=None if clip_dir is None else ClipSpec(directory=clip_dir),
        **options,
    )
    task = progress.add_task("features", total=None)

    def report(stage: str, done: int, total: int) -> None:
        progress.update(task, description=stage, completed=done, total=total)

    return Study(load_truth(truth), chosen, report)


def _chosen(study: "Study", wanted: list[str] | None) -> "list[Candidate]":
    found = study.candidates()
    if not wanted:
        return list(found)
    unknown = sorted(set(wanted) - {one.method for one in found} - {one.label for one in found})
    if unknown:
        raise SettingsError(
            f"--method names {', '.join(unknown)}; there are {', '.join(one.label for one in found)}."
        )
    return [one for one in found if one.method in wanted or one.label in wanted]


def _progress(as_json: bool) -> Progress:
    return Progress(console=Console(stderr=True, highlight=False), transient=True, disable=as_json)


def _use_one_thread() -> None:
    """Small matrices and models don't gain from more, and on a shared machine they lose."""
    import torch

    torch.set_num_threads(1)


def _tell(
    rows: list[dict[str, Any]], truth: "GroundTruth", out: Path | None, seed: int, as_json: bool
) -> None:
    if out is not None:
        write_report(out, rows, seed, truth_record(truth))
    print_rows(rows, as_json)


def numbers(option: str, text: str) -> tuple[int, ...]:
    """The whole numbers of `text`, written 16,32,48."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise SettingsError(f"{option} is {text!r}; give whole numbers such as 16,32,48.") from None
