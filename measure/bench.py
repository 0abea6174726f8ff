"""`das bench`: how fast the engine is, as a ratio to a named baseline in the same run, and a service under load."""

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import track

from das.device import check_device
from das.durable import write_bytes
from das.finite import LARGEST_SEED, finite
from measure.approximate_cli import approximate
from measure.questions_cli import query, search
from measure.services_cli import services

if TYPE_CHECKING:
    from torch import Tensor

    from das.gradients import FeatureExtractor
    from das.models import DiffusionModel

EXIT_FAULTY = 1

bench = typer.Typer(
    help="Measure speed: the engine against a plain baseline, a service under load.", no_args_is_help=True
)


@bench.callback()
def root() -> None:
    """Measure speed: the engine against a plain baseline, a service under load."""


@bench.command()
def features(
    model: Annotated[str, typer.Option(help="Pipeline directory or hub id.")],
    images: Annotated[int, typer.Option(help="Images in each round.", min=1)] = 16,
    timesteps: Annotated[int, typer.Option(help="Timesteps of each image.", min=1)] = 10,
    dimension: Annotated[int, typer.Option(help="Sketch dimension k.", min=1)] = 2048,
    probes: Annotated[list[str] | None, typer.Option("--probe", help="Probe; may be given again.")] = None,
    batch_size: Annotated[int, typer.Option(help="(image, timestep) pairs in one pass.", min=1)] = 32,
    rounds: Annotated[int, typer.Option(help="Rounds; the medians count.", min=1)] = 7,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:N or mps.", callback=check_device)] = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON line on stdout.")] = False,
) -> None:
    """Time the features of a build against a plain batched forward and backward pass over the same pairs.

    The floor is `loss.backward()` with ordinary parameter gradients, same images, timesteps, noise and batches. The
    two alternate, round by round; `ratio_to_floor` is the median of the rounds' ratios.
    """
    result = _features(
        model,
        tuple(probes or ["loss"]),
        images=images,
        timesteps=timesteps,
        dimension=dimension,
        batch_size=batch_size,
        rounds=rounds,
        device=device,
        quiet=as_json,
    )
    if as_json:
        typer.echo(json.dumps(result))
    else:
        Console().print(
            f"{result['features_ms_per_pair']} ms for the features of one (image, timestep) pair, "
            f"{result['floor_ms_per_pair']} ms for a plain forward and backward pass: "
            f"ratio {result['ratio_to_floor']} ({result['ratio_low']} to {result['ratio_high']})."
        )


@bench.command()
def service(
    url: Annotated[str, typer.Option(help="Where the service listens, on this machine.")],
    clients: Annotated[int, typer.Option(help="People who poll.")] = 100,
    uploaders: Annotated[int, typer.Option(help="People who upload picture after picture.")] = 10,
    seconds: Annotated[float, typer.Option(help="How long.", min=0.1, max=86_400.0, callback=finite)] = 60.0,
    polls: Annotated[
        float, typer.Option(help="Polls of each client in a second.", min=0.01, max=1_000.0, callback=finite)
    ] = 2.0,
    api_pid: Annotated[int | None, typer.Option(help="Process of the API, to tell its memory.")] = None,
    worker_pid: Annotated[int | None, typer.Option(help="Process of the worker, likewise.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Also write the figures here, with command and versions.")
    ] = None,
    seed: Annotated[
        int, typer.Option(help="Of the pictures, and of who looks at what.", min=0, max=LARGEST_SEED)
    ] = 0,
    streamers: Annotated[
        int, typer.Option(help="People who follow the events of one question after another.")
    ] = 0,
    key: Annotated[
        str | None,
        typer.Option(envvar="DAS_API_KEY", help="Sent by everybody, where the service asks for keys."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON line on stdout.")] = False,
) -> None:
    """Put a running service under load over HTTP, and tell how long its answers took.

    Clients poll questions, every other one with the ETag of what it saw last, and look at the list once in a while;
    uploaders wait only when they are told to. Any other answer than success, or 429 or 503 with Retry-After, is a
    fault, as is a stream that ends before its question does; the exit code is then 1.
    """
    import asyncio

    from measure.load.clients import Load, Run
    from measure.load.connection import Address
    from measure.load.figures import Memory
    from measure.report import command_line, versions

    processes = {name: pid for name, pid in (("api", api_pid), ("worker", worker_pid)) if pid is not None}
    run = Run(
        Load(clients, uploaders, seconds, polls, seed, streamers, key), Address.of(url), Memory(processes)
    )
    figures = {"command": command_line(), "versions": versions(), **asyncio.run(run.figures())}
    if out is not None:
        write_bytes(out, (json.dumps(figures, indent=1, ensure_ascii=False) + "\n").encode())
    if as_json:
        typer.echo(json.dumps(figures))
    else:
        console = Console(highlight=False, markup=False, soft_wrap=True)
        for kind, told in figures["requests"].items():
            console.print(
                f"{kind}: {told['count']} ({told['per_s']} a second), p50 {told['p50_ms']} ms,"
                f" p99 {told['p99_ms']} ms, {told['statuses']}"
            )
        console.print(f"questions: {figures['questions']}; faults: {figures['faults'] or 'none'}")
    if figures["faults"]:
        raise typer.Exit(EXIT_FAULTY)


@bench.command()
def throughput(
    url: Annotated[str, typer.Option(help="Where the service listens, on this machine.")],
    clients: Annotated[int, typer.Option(help="How many ask at once, against one.")] = 8,
    seconds: Annotated[
        float,
        typer.Option(help="How long each of both asks in a round.", min=0.1, max=86_400.0, callback=finite),
    ] = 15.0,
    rounds: Annotated[int, typer.Option(help="Of both in turn; the median of their ratios counts.")] = 3,
    bulk: Annotated[int, typer.Option(help="Pictures of batches, beside which one client asks then.")] = 0,
    bulk_seconds: Annotated[
        float,
        typer.Option(
            help="After which what is left of them is cancelled.", min=0.1, max=86_400.0, callback=finite
        ),
    ] = 300.0,
    out: Annotated[Path | None, typer.Option(help="Also write the figures here.")] = None,
    seed: Annotated[int, typer.Option(help="Of the pictures.", min=0, max=LARGEST_SEED)] = 0,
    key: Annotated[
        str | None,
        typer.Option(envvar="DAS_API_KEY", help="Sent by everybody, where the service asks for keys."),
    ] = None,
    note: Annotated[str | None, typer.Option(help="What to say of this run on the page of results.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON line on stdout.")] = False,
) -> None:
    """Compare what a running service answers for several clients at once with what it answers for one.

    Everybody asks again as soon as the answer is there. With --bulk one client then asks beside pictures of batches;
    the service has to have room for them (DAS_BATCH_ITEMS_LIMIT, of which one owner gets half).
    """
    import asyncio

    from measure.load.connection import Address
    from measure.load.throughput import Throughput, Trial, lines
    from measure.report import command_line, machine, noted, tell_report, versions

    trial = Trial(clients, seconds, rounds, bulk, bulk_seconds, seed, key)
    facts = {"command": command_line(), **noted(note), "versions": versions(), "machine": machine()}
    figures = {**facts, **asyncio.run(Throughput(trial, Address.of(url)).figures())}
    tell_report(figures, lines(figures), out, as_json)


@bench.command()
def build(
    folder: Annotated[Path, typer.Option(help="Where the model, its works and the index are put.")],
    family: Annotated[
        str, typer.Option(help="stable-diffusion or stable-diffusion-xl.")
    ] = "stable-diffusion",
    works: Annotated[int, typer.Option(help="Random pictures.", min=2)] = 12,
    size: Annotated[int, typer.Option(help="Side of a picture, a multiple of 64.", min=64)] = 256,
    rank: Annotated[int, typer.Option(help="Of the LoRA on the attention matrices.", min=1)] = 128,
    timesteps: Annotated[int, typer.Option(help="Timesteps of each picture.", min=1)] = 3,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:N or mps.", callback=check_device)] = "cpu",
    out: Annotated[Path | None, typer.Option(help="Also write the figures here.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON line on stdout.")] = False,
) -> None:
    """Build an index of a model of a published size, with random weights and a LoRA: its time and memory.

    The model is written into FOLDER (2 GB for stable-diffusion, 7 GB for stable-diffusion-xl) and used again.
    """
    from measure.full_size import measure_build
    from measure.report import command_line, tell_report

    found = measure_build(
        family, folder, works=works, size=size, rank=rank, timesteps=timesteps, device=device
    )
    figures = {"command": command_line(), **found}
    tell_report(
        figures,
        [
            f"{figures['parameters']:,} parameters, {figures['attributed']:,} attributed:"
            f" {figures['s_per_work']} s a work, {figures['peak_memory_bytes'] / 1e9:.1f} GB of memory at most"
        ],
        out,
        as_json,
    )


@bench.command()
def changes(
    model: Annotated[str, typer.Option(help="Pipeline directory or hub id.")],
    folder: Annotated[Path, typer.Option(help="An empty folder for works and indexes.")],
    works: Annotated[int, typer.Option(help="Random pictures that the index is built of.", min=10)] = 300,
    part: Annotated[
        float,
        typer.Option(help="How many go, and come, as a part of them.", min=0.0, max=1.0, callback=finite),
    ] = 0.01,
    size: Annotated[int, typer.Option(help="Side of a picture.", min=8)] = 32,
    preset: Annotated[str, typer.Option(help="Of the build.")] = "default",
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:N or mps.", callback=check_device)] = "cpu",
    out: Annotated[Path | None, typer.Option(help="Also write the figures here.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON line on stdout.")] = False,
) -> None:
    """Time removing works from an index and adding some, against building it.

    Each is its command in a process of its own, with the start of Python and the loading of the model.
    """
    from measure.changing import measure_changes
    from measure.report import command_line, tell_report

    found = measure_changes(model, folder, works=works, part=part, size=size, preset=preset, device=device)
    figures = {"command": command_line(), **found}
    tell_report(
        figures,
        [
            f"{figures['changed']:,} of {figures['works']:,} works: removed in {figures['remove']['wall_s']} s, added"
            f" in {figures['add']['wall_s']} s, where building takes {figures['build']['wall_s']} s:"
            f" {figures['remove_to_build']:.1%} and {figures['add_to_build']:.1%}."
        ],
        out,
        as_json,
    )


@bench.command()
def peers(
    models: Annotated[
        list[str], typer.Option("--model", help="Pipeline of pixels, or hub id; may be given again.")
    ],
    images: Annotated[
        list[int] | None, typer.Option(help="Random pictures of each model, in their order; 4 if not given.")
    ] = None,
    timesteps: Annotated[int, typer.Option(help="Timesteps of each picture.", min=1)] = 2,
    dimension: Annotated[int, typer.Option(help="Dimension k of sketches and projections.", min=1)] = 2048,
    batch_size: Annotated[int, typer.Option(help="(picture, timestep) pairs in one pass.", min=1)] = 4,
    rounds: Annotated[int, typer.Option(help="Rounds; the medians count.", min=1)] = 3,
    contenders: Annotated[
        list[str] | None, typer.Option("--contender", help="Only these; may be given again.")
    ] = None,
    memory: Annotated[
        float,
        typer.Option(help="Gigabytes that a contender may allocate.", min=1, max=100_000, callback=finite),
    ] = 10,
    limit: Annotated[int, typer.Option(help="Seconds of CPU time that a contender may take.", min=1)] = 600,
    out: Annotated[Path | None, typer.Option(help="Also write the figures here.")] = None,
    note: Annotated[str | None, typer.Option(help="What to say of this run on the page of results.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON line on stdout.")] = False,
) -> None:
    """Time per-example gradients side by side: das, a loop, `vmap(grad)`, traker, dattri and kronfluence.

    Same network, pictures, timesteps and noise, on the CPU; round by round, each contender in a process of its own
    after a plain training pass over the same pairs, whose CPU time is the ratio's unit. The libraries are
    optional: `pip install das-attribution[peers]`; one that isn't there, or fails, is told with its reason.
    """
    from measure.peers.contenders import CONTENDERS
    from measure.peers.side_by_side import side_by_side
    from measure.report import command_line, noted

    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    figures: dict[str, Any] = {}
    for found in side_by_side(
        models,
        names=contenders or list(CONTENDERS),
        images=images or [4] * len(models),
        timesteps=timesteps,
        dimension=dimension,
        batch_size=batch_size,
        rounds=rounds,
        memory=memory,
        limit_s=limit,
        progress=lambda round_, model, name: console.print(f"round {round_ + 1}: {Path(model).name}, {name}"),
    ):
        figures = {"command": command_line(), **noted(note), **found}
        if out is not None:
            write_bytes(out, (json.dumps(figures, indent=1) + "\n").encode())
    if as_json:
        typer.echo(json.dumps(figures))
        return
    told = Console(highlight=False, markup=False, soft_wrap=True)
    for network in figures["networks"]:
        for name, one in network["contenders"].items():
            if "failed" in one:
                told.print(f"{name}: {one['failed']}")
            else:
                told.print(
                    f"{name}: {one['ratio']} of a plain pass ({one['ratio_low']} to {one['ratio_high']}),"
                    f" {one['cpu_s_per_pair']} s of CPU time a pair, {one['memory_bytes'] / 1e9:.1f} GB at most"
                )


@bench.command("all")
def everything(
    model: Annotated[str, typer.Option(help="Pipeline directory or hub id.")],
    index: Annotated[Path, typer.Option(help="A real index, as for `search`.")],
    folder: Annotated[Path, typer.Option(help="An empty folder for models, works and indexes: up to 20 GB.")],
    out: Annotated[Path, typer.Option(help="Folder that the figures are written to, a file for each.")],
    only: Annotated[
        list[str] | None, typer.Option(help="features, changes, search or build; may be given again.")
    ] = None,
    works: Annotated[int, typer.Option(help="Works of the large index of `search`.", min=2)] = 1_000_000,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:N or mps.", callback=check_device)] = "cpu",
) -> None:
    """Take the figures of a machine one after the other, as on one with a GPU: features, changes, search, build.

    Each is written when it is there. One that fails is told and the others go on; the exit code is then 1.
    """
    from das.errors import DasError, SettingsError

    def all_features() -> None:
        rows = [
            _features(model, probes, device=device, quiet=True)
            for probes in (("loss",), ("activation",), ("loss", "activation"))
        ]
        write_bytes(out / "features.json", (json.dumps(rows, indent=1) + "\n").encode())

    benches: dict[str, Callable[[], None]] = {
        "features": all_features,
        "changes": lambda: changes(model, folder / "changes", device=device, out=out / "changes.json"),
        "search": lambda: search(
            index, folder / "search", works=works, device=device, out=out / "search.json"
        ),
        "build": lambda: build(folder / "build", device=device, out=out / "full-size-stable-diffusion.json"),
    }
    if unknown := set(only or ()) - benches.keys():
        raise SettingsError(f"--only {min(unknown)}: there are {', '.join(benches)}.")
    console, failed = Console(stderr=True, highlight=False, markup=False, soft_wrap=True), False
    for name in only or benches:
        console.print(f"{name} …")
        try:
            benches[name]()
        except (DasError, RuntimeError, MemoryError) as error:
            # torch's errors of a device, such as that its memory is full, are RuntimeErrors.
            console.print(f"{name} failed: {error}")
            failed = True
    if failed:
        raise typer.Exit(EXIT_FAULTY)


@bench.command()
def growth(
    results: Annotated[Path, typer.Option(help="Folder with the measured costs.")] = Path("docs/results"),
) -> None:
    """What an index of 10 thousand to 2 billion works takes, on paper, from the costs that were measured.

    Time, disk, memory and money, as the tables of docs/operations.md.
    """
    from measure.growth import growth as tables

    typer.echo(tables(results), nl=False)


def _features(
    model: str,
    probes: tuple[str, ...],
    *,
    images: int = 16,
    timesteps: int = 10,
    dimension: int = 2048,
    batch_size: int = 32,
    rounds: int = 7,
    device: str,
    quiet: bool,
) -> dict[str, Any]:
    """What `das bench features` tells."""
    import torch

    from das.gradients import FeatureConfig, FeatureExtractor
    from das.models import load_model

    loaded = load_model(model, device=device)
    spaced = tuple(i * loaded.schedule.num_train_timesteps // timesteps for i in range(timesteps))
    config = FeatureConfig(dimension, probes, spaced)
    extractor = FeatureExtractor(loaded, config, batch_size=batch_size)
    x0 = torch.rand(images, *loaded.sample_shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    x0 = x0.to(loaded.device)

    def wait() -> None:
        if loaded.device.type == "cuda":
            torch.cuda.synchronize(loaded.device)

    def seconds(work: Callable[[], object]) -> float:
        wait()
        start = time.perf_counter()
        work()
        wait()
        return time.perf_counter() - start

    plain, ours = [], []
    for round_ in track(
        range(rounds + 1), "Timing", console=Console(stderr=True), disable=quiet, transient=True
    ):
        floor_s = seconds(lambda: _floor(loaded, extractor, x0))
        features_s = seconds(lambda: extractor.features(x0))
        if round_:  # the first round warms caches and allocators up
            plain.append(floor_s)
            ours.append(features_s)
    pairs = images * timesteps
    ratios = sorted(a / b for a, b in zip(ours, plain, strict=True))
    return {
        "ratio_to_floor": round(statistics.median(ratios), 3),
        "ratio_low": round(ratios[0], 3),
        "ratio_high": round(ratios[-1], 3),
        "features_ms_per_pair": round(statistics.median(ours) / pairs * 1e3, 3),
        "floor_ms_per_pair": round(statistics.median(plain) / pairs * 1e3, 3),
        "pairs": pairs,
        "rounds": rounds,
        "batch_size": batch_size,
        "dimension": dimension,
        "probes": list(config.probes),
        "parameters": sum(p.numel() for p in extractor.parameters.values()),
        "threads": torch.get_num_threads(),
        "device": device,
        "torch": torch.__version__,
    }


def _floor(model: "DiffusionModel", extractor: "FeatureExtractor", x0: "Tensor") -> None:
    """A plain training pass over the same pairs: batched forward, mean loss, backward to all parameters."""
    import torch

    steps = torch.tensor(extractor.config.timesteps, device=model.device)
    noise = extractor.noise[:, 0]
    for start in range(0, len(x0) * len(steps), extractor.batch_size):
        index = torch.arange(
            start, min(start + extractor.batch_size, len(x0) * len(steps)), device=model.device
        )
        image, step = index // len(steps), index % len(steps)
        x, t, eps = x0[image], steps[step], noise[step]
        residual = model.predict(model.schedule.add_noise(x, eps, t), t, {}) - model.schedule.target(
            x, eps, t
        )
        residual.square().mean().backward()
    model.network.zero_grad(set_to_none=True)


def register(app: typer.Typer) -> None:
    """Add `das bench`."""
    for command in (search, query, approximate, services):
        bench.command()(command)
    app.add_typer(bench, name="bench")
