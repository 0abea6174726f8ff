"""The study that the commands measure: its options, its progress, and the rows that were asked for."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.progress import Progress

from das.errors import SettingsError
from measure.cli.options import numbers, use_one_thread

if TYPE_CHECKING:
    from measure.methods import Variant
    from measure.scores import AnyTruth, Study


def study_of(
    progress: Progress,
    truth: "AnyTruth",
    *,
    timesteps: str,
    checkpoint: list[Path] | None,
    clip_dir: Path | None,
    **options: Any,
) -> "Study[AnyTruth]":
    from das.config import ClipSpec
    from measure.scores import Options, Study
    from measure.training import TRAIN_TIMESTEPS

    use_one_thread()
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

    return Study(truth, chosen, report)


def chosen_of(study: "Study[AnyTruth]", wanted: list[str] | None) -> "list[Variant]":
    found = study.variants()
    if not wanted:
        return list(found)
    unknown = sorted(set(wanted) - {one.method for one in found} - {one.label for one in found})
    if unknown:
        raise SettingsError(
            f"--method names {', '.join(unknown)}; there are {', '.join(one.label for one in found)}."
        )
    return [one for one in found if one.method in wanted or one.label in wanted]
