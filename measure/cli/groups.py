"""`das evaluate groups`: hold estimators against models that were trained without whole groups of works."""

import dataclasses

from measure.cli.options import (
    CacheOption,
    ClipOption,
    DeviceOption,
    DimensionOption,
    DrawsOption,
    JsonOption,
    OutOption,
    SeedOption,
    TimestepsOption,
    TruthOption,
    progress_bars,
    tell,
)
from measure.cli.study import study_of


def groups(
    truth: TruthOption,
    out: OutOption = None,
    cache: CacheOption = None,
    timesteps: TimestepsOption = "10",
    dimension: DimensionOption = 4096,
    noise_draws: DrawsOption = 1,
    clip_dir: ClipOption = None,
    seed: SeedOption = 0,
    device: DeviceOption = "cpu",
    as_json: JsonOption = False,
) -> None:
    """Compare how estimators rank whole groups of works, with models that were trained without each."""
    from measure.group_scores import GroupComparison
    from measure.groups import load_groups
    from measure.scores import Study

    with progress_bars(as_json) as progress:
        study = study_of(
            progress,
            load_groups(truth),
            cache=cache,
            timesteps=timesteps,
            dimension=dimension,
            draws=noise_draws,
            checkpoint=None,
            clip_dir=clip_dir,
            seed=seed,
            device=device,
        )
        control = dataclasses.replace(study.options, untrained=True, clip=None)
        rows = GroupComparison(study, Study(study.truth, control, study.progress)).rows()
    tell(rows, study.truth, out, seed, as_json)
