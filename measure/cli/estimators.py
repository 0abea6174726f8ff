"""`das evaluate lds|counterfactual|output-function|screening`: hold estimators against a ground truth."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from measure.cli.options import (
    CacheOption,
    CheckpointOption,
    ClipOption,
    DeviceOption,
    DimensionOption,
    DrawsOption,
    JsonOption,
    MethodOption,
    OutOption,
    SeedOption,
    TimestepsOption,
    TruthOption,
    numbers,
    progress_bars,
    tell,
    use_one_thread,
)
from measure.cli.study import chosen_of, study_of

if TYPE_CHECKING:
    import numpy as np

    from measure.truth import GroundTruth


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
    from measure.curves import curve_rows
    from measure.rows import comparison_rows

    with progress_bars(as_json) as progress:
        study = study_of(
            progress,
            _loaded(truth),
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
        rows = comparison_rows(study, chosen_of(study, method))
        if curves:
            rows += curve_rows(study)
    tell(rows, study.truth, out, seed, as_json)


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
    from measure.contact_sheet import contact_sheet
    from measure.counterfactual import counterfactual as measure
    from measure.retraining import Retrainer

    kept: list[tuple[str, np.ndarray]] = []

    with progress_bars(as_json) as progress:
        study = study_of(
            progress,
            _loaded(truth),
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
            chosen_of(study, method),
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
    tell(rows, study.truth, out, seed, as_json)


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
    from measure.output_function import output_function as measure
    from measure.retraining import Retrainer
    from measure.training import LossConfig

    use_one_thread()
    with progress_bars(as_json) as progress:
        loaded = _loaded(truth)
        rows = measure(
            Retrainer.of(loaded),
            models=models,
            remove=remove,
            losses=LossConfig(loss_timesteps, loss_draws, seed),
            seed=seed,
            say=progress.console.print,
        )
    tell(rows, loaded, out, seed, as_json)


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
    from measure.screening import screening as measure

    counts = numbers("--candidates", candidates)
    with progress_bars(as_json) as progress:
        study = study_of(
            progress,
            _loaded(truth),
            cache=cache,
            timesteps=timesteps,
            dimension=dimension,
            draws=noise_draws,
            checkpoint=checkpoint,
            clip_dir=clip_dir,
            seed=seed,
            device=device,
        )
        rows = measure(study, chosen_of(study, method), counts)
    tell(rows, study.truth, out, seed, as_json)


def _loaded(truth: Path) -> "GroundTruth":
    from measure.truth import load_truth

    return load_truth(truth)
