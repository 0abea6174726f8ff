"""`das bench search` and `das bench query`: how long questions take, by an index's size and by how many at once."""

from pathlib import Path
from typing import Annotated

import typer

from das.config import FeatureType
from das.device import check_device


def search(
    index: Annotated[Path, typer.Option(help="A real index, whose works are mixed to as many as wanted.")],
    folder: Annotated[Path, typer.Option(help="Where the large index is put, and used again.")],
    works: Annotated[int, typer.Option(help="Works of the large index.", min=2)] = 1_000_000,
    dtype: Annotated[FeatureType, typer.Option(help="How its features are stored.")] = "float16",
    answers: Annotated[int, typer.Option(help="Answers after the first; the medians count.", min=1)] = 5,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:N or mps.", callback=check_device)] = "cpu",
    out: Annotated[Path | None, typer.Option(help="Also write the figures here.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON line on stdout.")] = False,
) -> None:
    """Time and memory of opening a large index and of answers among all its works.

    The large index has the model, kernels and dimension of the real one, and its works mixed two by two.
    """
    from das.index import AttributionIndex
    from measure.enlarged import enlarge
    from measure.report import command_line, tell_report
    from measure.search import measure_search

    opened = AttributionIndex.open(index)
    large = folder / f"{opened.id}-{works}-{dtype}"
    if not large.exists():
        enlarge(opened, works, dtype, large)
    figures = {"command": command_line(), **measure_search(large, answers, device)}
    tell_report(
        figures,
        [
            f"{figures['works']:,} works, {figures['feature_bytes'] / 1e9:.1f} GB of features: opened in"
            f" {figures['opening']['wall_ms']} ms; an answer takes {figures['after_gradients_ms']} ms beside its"
            " gradients."
        ],
        out,
        as_json,
    )


def query(
    index: Annotated[Path, typer.Option(help="The index that is asked.")],
    together: Annotated[
        list[int] | None,
        typer.Option(
            help="Questions that share a pass; may be given again. 1, 2, 4 and 8 if not given.", min=1
        ),
    ] = None,
    method: Annotated[str | None, typer.Option(help="Estimator; the index's first if not given.")] = None,
    rounds: Annotated[int, typer.Option(help="Rounds; the medians count.", min=1)] = 5,
    threads: Annotated[int | None, typer.Option(help="Threads of torch.", min=1)] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:N or mps.", callback=check_device)] = "cpu",
    out: Annotated[Path | None, typer.Option(help="Also write the figures here.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON line on stdout.")] = False,
) -> None:
    """Time questions to an index in this process: one alone, against several that share a pass.

    They are its own works' thumbnails, among all works. Each round asks every number in turn, so that what a busy
    machine takes is taken of all.
    """
    from measure.report import command_line, machine, tell_report
    from measure.search import TOGETHER, measure_questions

    before = machine()
    found = measure_questions(index, tuple(together or TOGETHER), method, rounds, threads, device)
    figures = {"command": command_line(), "machine": before, **found}
    tell_report(
        figures,
        [
            f"{row['together']} together: {row['wall_ms']} ms a question, {row['cpu_ms']} ms of CPU time"
            f" ({row['ratio']:.2f} of one alone)"
            for row in figures["rows"]
        ],
        out,
        as_json,
    )
