"""The commands that build and look at indexes: `das build`, `das index info|verify|card|summary`."""

import json
import re
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from das.card import lora_in_words
from das.config import DEFAULT_CLIP, PRESETS, BuildConfig, ClipSpec
from das.device import check_device
from das.errors import SettingsError
from das.index import AttributionIndex
from das.loras import choices
from das.manifest import Manifest
from das.methods import METHODS, PROBES
from das.plurals import counted
from das.verification import verify_index
from index_build.approximate_cli import register_approximate
from index_build.changes_cli import register_changes
from index_build.cluster.cli import register_cluster
from index_build.inspection import CreatorFromOption, WorksFormatOption, register_works
from index_build.progress import ConsoleReporter, JsonReporter
from index_build.storage_cli import register_storage

EXIT_DAMAGED = 1

BY_SWITCH = " and ".join(method.name for method in METHODS if method.normalised is None)
OF_CHECKPOINTS = " and ".join(method.name for method in METHODS if method.of_checkpoints)

JsonOption = Annotated[bool, typer.Option("--json", help="JSON for machines, on standard output.")]
IndexArgument = Annotated[Path, typer.Argument(metavar="DIR", help="The index directory.")]


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    app.command("build")(build_index)
    index = typer.Typer(help="Look at an attribution index, or make a version of it.", no_args_is_help=True)
    index.command("info")(info)
    index.command("verify")(verify)
    index.command("card")(card)
    index.command("summary")(summary)
    register_changes(index)
    register_approximate(index)
    register_storage(index)
    app.add_typer(index, name="index")
    register_works(app)
    register_cluster(app)


def build_index(
    model: Annotated[
        str,
        typer.Option(help="The diffusion model: a pipeline's directory or hub id, or a .safetensors file."),
    ],
    works: Annotated[
        Path,
        typer.Option(
            help="Folder of images, a training set of another tool, or a parquet (docs/training-sets.md)."
        ),
    ],
    out: Annotated[Path, typer.Option(help="The index directory to make.")],
    config: Annotated[
        str | None,
        typer.Option(help="The pipeline with the configuration of a --model that is a single file."),
    ] = None,
    network: Annotated[
        str | None,
        typer.Option(
            help="A network in the place of the model's own: its directory, or a training run's folder (unet,"
            " unet_ema, transformer, checkpoint-N)."
        ),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            help="Size of the model's pictures, such as 512 or 768x512 (width by height). Default: as its"
            " configuration says."
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the index; the folder's name if left out.")
    ] = None,
    preset: Annotated[
        str,
        typer.Option(
            help="default, or economical: three forward passes, none backward, and a quarter of the size, a little"
            " less exact."
        ),
    ] = "default",
    timesteps: Annotated[
        str | None,
        typer.Option(help="How many, evenly spaced; or a list such as 0,100,200. Default: the preset's, 10."),
    ] = None,
    noise_draws: Annotated[int, typer.Option(help="Noises per timestep.")] = 1,
    dimension: Annotated[
        int | None, typer.Option(help="k, dimensions of the sketched gradients. Default: 1024.", min=1)
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            help="Estimators to be asked, each with its own --method: "
            f"{', '.join(method.name for method in METHODS)}; or an extension's."
        ),
    ] = None,
    probe: Annotated[
        list[str] | None,
        typer.Option(
            help=f"Probes of das-block: {', '.join(PROBES)}, or an extension's. Default: the preset's, loss and"
            " activation; economical activation alone."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of noise and sketch.")] = 0,
    attributed: Annotated[
        str,
        typer.Option(
            help="auto (the LoRAs where there are some, else all), all, up-blocks, lora, lora2 (the second of several"
            " alone), or a regular expression."
        ),
    ] = "auto",
    normalise: Annotated[
        bool, typer.Option(help=f"Normalise each timestep's gradient in {BY_SWITCH} (Eq. 17).")
    ] = True,
    prompt_dropout: Annotated[
        float,
        typer.Option(help="Part of the timesteps without prompts, as in training with guidance dropout."),
    ] = 0.0,
    lora: Annotated[
        list[str] | None,
        typer.Option(
            help="A LoRA on the model: file, directory or hub id, with its weight behind a colon if that isn't 1:"
            " A.safetensors:0.8. May be repeated."
        ),
    ] = None,
    checkpoint: Annotated[
        list[str] | None,
        typer.Option(help=f"An earlier checkpoint of the model, for {OF_CHECKPOINTS}; may be repeated."),
    ] = None,
    damping: Annotated[float | None, typer.Option(help="λ in units of tr(K)/N; by rule if left out.")] = None,
    feature_dtype: Annotated[
        str | None,
        typer.Option(help="int8, float16 or float32. Default: the preset's, float16; economical int8."),
    ] = None,
    clip: Annotated[
        str, typer.Option(help="open_clip model that screens, MODEL:PRETRAINED.")
    ] = DEFAULT_CLIP.describe(),
    clip_dir: Annotated[Path | None, typer.Option(help="A local open_clip model instead of --clip.")] = None,
    screening: Annotated[
        bool,
        typer.Option(
            "--screening/--no-screening",
            help="Keep what CLIP says of the works; without, nothing is downloaded and answers have no look-alikes.",
        ),
    ] = True,
    sscd: Annotated[
        Path | None,
        typer.Option(
            help="SSCD's TorchScript file, to tell copies of works by it beside PDQ; wanted for questions too.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    references: Annotated[
        str,
        typer.Option(
            help="How many pictures the model is let make, to tell its own from others; or a folder of pictures that"
            " it made, which is better: as its users make them. 0: none."
        ),
    ] = "100",
    held_out: Annotated[
        Path | None,
        typer.Option(
            help="Folder of pictures of the works' kind that the model was not trained on: for λ, for telling its own"
            " pictures from such, and for whether it knows a creator's works."
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:N or mps.", callback=check_device)] = "cpu",
    batch_size: Annotated[int, typer.Option(help="Pairs of image and timestep in one backward pass.")] = 32,
    shard_size: Annotated[
        int, typer.Option(help="Works per shard: what an interrupted build loses at most.")
    ] = 1024,
    strict: Annotated[bool, typer.Option(help="Stop at the first work that can't be used.")] = False,
    follow_links: Annotated[
        bool,
        typer.Option(
            "--follow-links",
            help="Read also works outside the folder that links in it lead to, as in a hub's cache.",
        ),
    ] = False,
    works_format: WorksFormatOption = "auto",
    creator_from: CreatorFromOption = None,
    distributed: Annotated[
        bool,
        typer.Option(
            "--distributed",
            help="Let the machines that run `das build-worker` compute the features. They need the same broker"
            " (DAS_REDIS_URL) and, under the same paths, works, model and --out.",
        ),
    ] = False,
    exchange: Annotated[
        str | None,
        typer.Option(
            help="With --distributed: where they leave what they computed, such as s3://bucket/builds, instead of"
            " beside --out, which they needn't reach then."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Build an attribution index of a diffusion model and the works it was trained on.

    An interrupted build goes on when the same command is run again. If the index is there already, that is said.
    """
    from index_build.build import build

    options = _config(
        **_preset(preset, timesteps, dimension, probe, feature_dtype),
        name=name or _slug(out.resolve().name),
        model=model,
        config=config,
        network=network,
        size=None if size is None else _size_of(size),
        works=works,
        attributed=attributed,
        noise_draws=noise_draws,
        seed=seed,
        methods=tuple(method or [METHODS[0].name]),
        normalise=normalise,
        prompt_dropout=prompt_dropout,
        lora=_loras(lora or []),
        sscd=sscd,
        references=_references(references),
        held_out=held_out,
        checkpoints=tuple(checkpoint or ()),
        damping=damping,
        shard_size=shard_size,
        batch_size=batch_size,
        clip=_clip_spec(clip, clip_dir, screening=screening),
    )
    reporter = JsonReporter() if as_json else ConsoleReporter()
    command = shlex.join(["das", *sys.argv[1:]])
    result = build(
        options,
        out,
        device=device,
        strict=strict,
        follow_links=follow_links,
        works_format=works_format,
        creator_from=creator_from,
        command=command,
        reporter=reporter,
        distributed=distributed,
        exchange=exchange,
    )
    if as_json:
        _print_json(
            {
                "index": result.index_id,
                "path": str(result.path),
                "state": result.state,
                "works": result.works,
                "seconds": AttributionIndex.open(result.path).manifest.build.seconds,
                **result.report,
            }
        )
    elif result.state == "built":
        Console().print(f"{result.path}: {result.index_id}, {counted(result.works, 'work')}", highlight=False)


def info(directory: IndexArgument, as_json: JsonOption = False) -> None:
    """Say what an index holds and what it was built from."""
    index = AttributionIndex.open(directory)
    manifest = index.manifest
    if as_json:
        _print_json(
            {"id": index.id, **manifest.model_dump(mode="json", exclude={"files"}), "bytes": _size(index)}
        )
        return
    table = Table(show_header=False, box=None)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    rows = {
        "index": index.id,
        "works": f"{len(index):,} of {manifest.works.source_rows:,}",
        "model": f"{manifest.model.source} ({manifest.model.digest[:12]})",
        **{f"LoRA {record.adapter}": lora_in_words(record) for record in manifest.model.loras},
        "parameters": f"{manifest.model.attributed_parameters:,}",
        "methods": ", ".join(index.methods),
        "features": ", ".join(manifest.features.sets),
        "timesteps": ", ".join(map(str, manifest.timesteps)),
        "dimension": f"{manifest.features.dimension:,}, {manifest.features.dtype}",
        "search": "exact" if manifest.approximate is None else manifest.approximate.describe(),
        "screening": _clip(manifest),
        "copies": _copies(manifest),
        "size": f"{_size(index) / 1e6:,.1f} MB",
        "built": f"{manifest.build.created_at} on {manifest.build.device}",
        **_last_change(manifest),
        "quality": "not measured" if manifest.quality is None else manifest.quality.describe(),
    }
    for label, value in rows.items():
        table.add_row(label, value)
    for kernel in manifest.kernels:
        damping = ""
        if kernel.effective_dimension is not None:
            damping = (
                f": λ {kernel.relative_damping:.3g} of tr K/N,"
                f" effective dimension {kernel.effective_dimension:,.0f}"
            )
        table.add_row(f"kernel {kernel.method}", f"{kernel.features}, {kernel.form}{damping}")
    Console(highlight=False, markup=False).print(table)


def verify(directory: IndexArgument, as_json: JsonOption = False) -> None:
    """Compare every file of an index with its digest. Exit code 1 if one differs, is missing or is extra."""
    if not directory.is_dir():
        raise SettingsError(f"{directory} isn't a directory; name an attribution index.")
    with Progress(console=Console(stderr=True), transient=True, disable=as_json) as progress:
        task = progress.add_task("verifying", total=None)
        found = verify_index(
            directory, lambda done, total: progress.update(task, completed=done, total=total)
        )
    if as_json:
        damages = [{"file": d.file, "kind": d.kind, "message": d.message} for d in found.damages]
        _print_json({"ok": found.ok, "files": found.files, "bytes": found.bytes, "damages": damages})
    else:
        console = Console(highlight=False, markup=False, soft_wrap=True)
        for damage in found.damages:
            console.print(f"{damage.file}: {damage.message}")
        if found.ok:
            console.print(
                f"{directory}: {found.files} files, {found.bytes / 1e6:,.1f} MB, all as they were built"
            )
    if not found.ok:
        raise typer.Exit(EXIT_DAMAGED)


def card(directory: IndexArgument, as_json: JsonOption = False) -> None:
    """Print an index's card: what it was built from and how good it is."""
    index = AttributionIndex.open(directory)
    if as_json:
        _print_json({"id": index.id, "card": index.card})
    else:
        sys.stdout.write(index.card)


def summary(directory: IndexArgument) -> None:
    """Draft the EU's public summary of training content (Art. 53(1)(d) AI Act) from an index, as Markdown.

    What an index can't know is left open, and says so.
    """
    from das.rights.summary import summary_of

    index = AttributionIndex.open(directory)
    typer.echo(summary_of(index.manifest, index.works))


def _config(**options: Any) -> BuildConfig:
    try:
        return BuildConfig(**options)
    except ValidationError as error:
        first = error.errors()[0]
        said = first["msg"].removeprefix("Value error, ")
        if not first["loc"]:
            raise SettingsError(f"these options don't go together: {said}.") from error
        option = "--" + str(first["loc"][0]).replace("_", "-")
        plain = {"--methods": "--method", "--probes": "--probe"}.get(option, option)
        raise SettingsError(f"{plain} is {first['input']!r}: {said}.") from error


def _preset(
    name: str,
    timesteps: str | None,
    dimension: int | None,
    probes: list[str] | None,
    feature_dtype: str | None,
) -> dict[str, Any]:
    """The preset's choices, except those that were made."""
    if name not in PRESETS:
        raise SettingsError(f"there is no preset {name!r}; there are {', '.join(PRESETS)}.")
    chosen = {
        "timesteps": None if timesteps is None else _timesteps(timesteps),
        "dimension": dimension,
        "probes": tuple(probes) if probes else None,
        "feature_dtype": feature_dtype,
    }
    return PRESETS[name] | {option: value for option, value in chosen.items() if value is not None}


def _timesteps(text: str) -> int | tuple[int, ...]:
    try:
        numbers = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise SettingsError(f"--timesteps is {text!r}; give a number, or a list such as 0,100,200.") from None
    return numbers if "," in text else numbers[0]


def _clip_spec(clip: str, directory: Path | None, *, screening: bool) -> ClipSpec | None:
    if not screening:
        if directory is not None:
            raise SettingsError("--clip-dir names what --no-screening leaves out; give one of them.")
        return None
    return ClipSpec(directory=directory) if directory else ClipSpec.parse(clip)


def _size_of(text: str) -> tuple[int, int]:
    """Height and width of `512` or `768x512`, which has the width first as people say it."""
    match = re.fullmatch(r"(\d{1,5})(?:[x×](\d{1,5}))?", text.strip().lower())
    if match is None:
        raise SettingsError(f"--size is {text!r}; give pixels, such as 512, or 768x512 for width by height.")
    width = int(match[1])
    return int(match[2] or width), width


def _references(text: str) -> int | Path:
    if text.isdecimal():
        return int(text)
    if not Path(text).is_dir():
        raise SettingsError(
            f"--references is {text!r}; give a number of pictures, 0, or a folder of the model's own."
        )
    return Path(text)


def _loras(given: list[str]) -> tuple[str, ...]:
    """The LoRAs as given, if each can be read as one; raises SettingsError."""
    choices(given)
    return tuple(given)


def _slug(text: str) -> str:
    kept = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in text.lower())
    return kept.strip("-")[:63] or "index"


def _copies(manifest: Manifest) -> str:
    if manifest.copies is None:
        return "not told, the works weren't hashed"
    return "told by PDQ" if manifest.copies.sscd is None else "told by PDQ and SSCD"


def _last_change(manifest: Manifest) -> dict[str, str]:
    """How a version was made of another index; nothing of one that was built."""
    if not manifest.changes:
        return {}
    last = manifest.changes[-1]
    return {
        "version": f"of {last.parent}, {counted(last.works, 'work')} {last.kind};"
        f" {counted(len(manifest.changes), 'change')} since the build, {counted(manifest.removed, 'work')} left out"
    }


def _clip(manifest: Manifest) -> str:
    record = manifest.screening
    if record is None:
        return "none, look-alikes aren't told"
    return f"{record.directory or f'{record.model}:{record.pretrained}'}, {record.dimension} dimensions"


def _size(index: AttributionIndex) -> int:
    return sum(record.bytes for record in index.manifest.files.values())


def _print_json(body: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(body, ensure_ascii=False) + "\n")
