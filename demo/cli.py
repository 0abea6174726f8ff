"""`das demo` and what belongs to it: the whole system on real photographs, its check and its making."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from das.finite import LARGEST_SEED
from measure.cli.options import DeviceOption

if TYPE_CHECKING:
    from demo.home import DemoIndex
    from jobs.settings import Settings

EXIT_FAULTY = 1
DEFAULT_STEPS = 8000
DEFAULT_CLIP_STEPS = 500
DEFAULT_SEED = 20


def register(app: typer.Typer) -> None:
    """Add `das demo`."""
    group = typer.Typer(help="The whole system on real photographs.", invoke_without_command=True)
    group.callback()(demo_command)
    group.command("train")(train_command)
    group.command("truth")(truth_command)
    group.command("samples")(samples_command)
    group.command("tiles")(tiles_command)
    group.command("references")(references_command)
    group.command("works")(works_command)
    group.command("copies")(copies_command)
    group.command("screenshot")(screenshot_command)
    app.add_typer(group, name="demo")


def _known(preset: str) -> str:
    from das.config import PRESETS

    if preset not in PRESETS:
        raise typer.BadParameter(f"there are {' and '.join(PRESETS)}")
    return preset


def demo_command(
    context: typer.Context,
    check: Annotated[
        bool, typer.Option("--check", help="Ask about every sample, check the answers, print one JSON line.")
    ] = False,
    queries: Annotated[
        int, typer.Option(help="With --check: repeat the samples up to so many queries.", min=0)
    ] = 0,
    preset: Annotated[
        str, typer.Option(help="Of the index, as in das build: economical or default.", callback=_known)
    ] = "economical",
    host: Annotated[str | None, typer.Option(help="Address to listen on (DAS_HOST).")] = None,
    port: Annotated[
        int | None, typer.Option(help="Port to listen on, 0 for a free one (DAS_PORT).", min=0, max=65535)
    ] = None,
) -> None:
    """Build the index of the demo's photographs, or find it built, and serve it. Ctrl-C ends all of it."""
    if context.invoked_subcommand is not None:
        return
    from app.cli import with_options
    from demo.home import SAMPLES, demo_index, home_of
    from index_build.progress import ConsoleReporter
    from jobs.settings import get_settings

    settings = get_settings()
    index = demo_index(settings, ConsoleReporter(), preset)
    if check:
        _check(settings, index, queries)
        return
    from app.serve import serve, tell_address
    from jobs.logs import configure_logging, refusals_told

    options = {"data_dir": home_of(settings) / "service", "index_dir": index.path, "samples_dir": SAMPLES}
    settings = with_options(settings, host=host, port=port, **options)
    configure_logging(settings)
    with refusals_told(settings):
        code = serve(settings, tell_address(settings))
    raise typer.Exit(code)


def _check(settings: "Settings", index: "DemoIndex", queries: int) -> None:
    """Print the figures of the check; exit code 1 if anything is wrong."""
    from demo.check import check

    with _bar() as progress:
        task = progress.add_task("asking", total=None)
        figures = check(
            settings, index, queries, lambda done, total: progress.update(task, completed=done, total=total)
        )
    typer.echo(json.dumps(figures, ensure_ascii=False))
    if not figures["ok"]:
        raise typer.Exit(EXIT_FAULTY)


def train_command(
    out: Annotated[Path, typer.Option(help="Where checkpoint, pipeline/ and clip/ go.")] = Path(
        "var/demo-training"
    ),
    steps: Annotated[int, typer.Option(help="Steps of the diffusion model.", min=1)] = DEFAULT_STEPS,
    clip_steps: Annotated[
        int, typer.Option(help="Steps of CLIP; 0 leaves it out.", min=0)
    ] = DEFAULT_CLIP_STEPS,
    seed: Annotated[
        int, typer.Option(help="Seed of weights, order and noise.", min=0, max=LARGEST_SEED)
    ] = DEFAULT_SEED,
) -> None:
    """Train the demo's models from the photographs, as the ones in the package were; goes on where it was."""
    from demo.clip import train_clip
    from demo.course import TrainConfig
    from demo.train import Trainer, train

    with _bar() as progress:
        diffusion = progress.add_task("diffusion", total=steps)

        def told(trainer: Trainer) -> None:
            progress.update(
                diffusion, completed=trainer.step, description=f"diffusion, loss {trainer.loss:.4f}"
            )

        train(TrainConfig(steps=steps, seed=seed), out, told)
        if clip_steps:
            task = progress.add_task("CLIP", total=clip_steps)
            train_clip(
                out / "clip",
                clip_steps,
                seed,
                lambda step, loss: progress.update(
                    task, completed=step, description=f"CLIP, loss {loss:.4f}"
                ),
            )
    typer.echo(str(out))


def truth_command(
    out: Annotated[Path, typer.Option(help="The ground truth's directory, made or gone on with.")],
    steps: Annotated[int, typer.Option(help="Steps of the model that lacks nothing.", min=1)] = DEFAULT_STEPS,
    seeds: Annotated[int, typer.Option(help="Models of each kind.", min=1)] = 3,
    lacking: Annotated[int, typer.Option(help="Parts that each model lacks.", min=1, max=13)] = 1,
    models: Annotated[
        int, typer.Option(help="Where each lacks several: how many models of each seed.", min=2)
    ] = 24,
    workers: Annotated[int, typer.Option(help="Models trained at once on a CPU.", min=1)] = 1,
    device: DeviceOption = "cpu",
) -> None:
    """Train the demo's model again without each photograph and planted work; goes on where it was.

    What comes out is a ground truth for das evaluate groups.
    """
    from demo.truth import make_demo_truth

    console = Console(stderr=True, highlight=False, markup=False)
    made = make_demo_truth(
        out,
        steps=steps,
        seeds=seeds,
        lacking=lacking,
        models=models,
        workers=workers,
        device=device,
        say=console.print,
    )
    typer.echo(f"{out}: {made.without.shape[1]} parts, {len(made.queries)} queries")


def samples_command(
    out: Annotated[Path, typer.Option(help="Where the pictures and samples.json go.")],
    pipeline: Annotated[Path | None, typer.Option(help="Pipeline to draw from; default: the demo's.")] = None,
    count: Annotated[int | None, typer.Option(help="How many to draw before some are kept.", min=1)] = None,
) -> None:
    """Draw sample generations and keep some by the demo's rule, as the ones in the package were."""
    from demo.home import PIPELINE
    from demo.samples import DRAWN, write_samples

    drawn = count or DRAWN
    with _bar() as progress:
        task = progress.add_task("drawing", total=drawn)
        kept = write_samples(
            pipeline or PIPELINE, out, drawn, lambda done, _: progress.update(task, completed=done)
        )
    copies = sum(sample.reproduction for sample in kept)
    typer.echo(
        f"{len(kept)} of {drawn} samples kept in {out}, {copies} of them reproductions of planted works"
    )


def tiles_command(
    samples: Annotated[
        Path | None, typer.Option(help="Folder of the pictures and samples.json; default: the demo's.")
    ] = None,
    effects: Annotated[
        Path | None, typer.Option(help="effects.json of `das demo truth`; default: the demo's.")
    ] = None,
) -> None:
    """Write into samples.json what each sample shows, by retraining and CLIP, in the order for the page."""
    from collections import Counter

    from demo.effects import EFFECTS, read_effects
    from demo.home import SAMPLES
    from demo.tiles import write_tiles

    tiles = write_tiles(read_effects(effects or EFFECTS), samples or SAMPLES)
    for word, count in Counter(one.word for one in tiles).most_common():
        typer.echo(f"{count:3d}  {word}")


def references_command(
    out: Annotated[Path, typer.Option(help="Where the pictures go.")],
    pipeline: Annotated[Path | None, typer.Option(help="Pipeline to draw from; default: the demo's.")] = None,
    count: Annotated[int | None, typer.Option(help="How many to draw.", min=1)] = None,
    first_seed: Annotated[
        int | None, typer.Option(help="Seed of the first; the next have the next.", min=0, max=LARGEST_SEED)
    ] = None,
) -> None:
    """Draw the model's own pictures that others are held against, as the ones in the package were."""
    from demo.home import PIPELINE
    from demo.samples import FIRST_REFERENCE, REFERENCES, write_references

    drawn = count or REFERENCES
    with _bar() as progress:
        task = progress.add_task("drawing", total=drawn)
        write_references(
            pipeline or PIPELINE,
            out,
            drawn,
            FIRST_REFERENCE if first_seed is None else first_seed,
            lambda done, _: progress.update(task, completed=done),
        )
    typer.echo(f"{drawn} pictures in {out}")


def works_command(
    out: Annotated[Path, typer.Option(help="The folder to write.")],
) -> None:
    """Write the demo's training works: crops of the photographs and metadata.csv, for `das build --works`."""
    from demo.crops import write_works

    typer.echo(f"{write_works(out)} works in {out}")


def copies_command(
    out: Annotated[Path, typer.Option(help="The folder to write.")],
) -> None:
    """Write copies of the demo's works and pictures that are merely alike, for `das evaluate copies --other`."""
    from demo.copied import write_asked

    for name, count in write_asked(out).items():
        typer.echo(f"{count} pictures in {out / name}")


def screenshot_command(
    out: Annotated[Path, typer.Option(help="The folder for the PNG files.")] = Path("docs"),
) -> None:
    """Take the README's pictures of the page, light and dark, with Chromium."""
    from demo.home import demo_index
    from demo.screenshot import take_screenshots
    from index_build.progress import ConsoleReporter
    from jobs.settings import get_settings

    settings = get_settings()
    for file in take_screenshots(settings, demo_index(settings, ConsoleReporter()), out):
        typer.echo(str(file))


def _bar() -> Progress:
    columns = (
        TextColumn("{task.description:<24}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("elapsed"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=Console(stderr=True))
