"""What the commands that measure share: options, progress, and how rows are told."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress

from das.device import check_device
from das.errors import SettingsError
from das.finite import LARGEST_SEED
from measure.report import print_rows, truth_record, write_report

if TYPE_CHECKING:
    from measure.truth import Subject

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
SeedOption = Annotated[
    int, typer.Option(help="Of noise, sketch, halvings and resampling.", min=0, max=LARGEST_SEED)
]
MethodOption = Annotated[
    list[str] | None,
    typer.Option(help="Only rows of this method, or with this label; may be given several times."),
]
CheckpointOption = Annotated[
    list[Path] | None,
    typer.Option(help="Earlier checkpoint for tracincp and gas; may be given several times."),
]
ClipOption = Annotated[Path | None, typer.Option(help="A local open_clip model; without it CLIP is skipped.")]
DeviceOption = Annotated[str, typer.Option(help="cpu, cuda, cuda:N or mps.", callback=check_device)]


def progress_bars(as_json: bool) -> Progress:
    return Progress(console=Console(stderr=True, highlight=False), transient=True, disable=as_json)


def use_one_thread() -> None:
    """Small matrices and models don't gain from more, and on a shared machine they lose."""
    import torch

    torch.set_num_threads(1)


def tell(rows: list[dict[str, Any]], truth: "Subject", out: Path | None, seed: int, as_json: bool) -> None:
    if out is not None:
        write_report(out, rows, seed, truth_record(truth))
    print_rows(rows, as_json)


def named_folders(values: list[str] | None) -> list[tuple[str, Path]]:
    """What --other names, each written NAME=FOLDER."""
    found = []
    for value in values or []:
        name, separator, folder = value.partition("=")
        if not separator or not name or not folder:
            raise SettingsError(f"--other is {value!r}; write NAME=FOLDER.")
        found.append((name, Path(folder)))
    return found


def numbers(option: str, text: str) -> tuple[int, ...]:
    """The whole numbers of `text`, written 16,32,48."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise SettingsError(f"{option} is {text!r}; give whole numbers such as 16,32,48.") from None
