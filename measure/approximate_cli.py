"""`das bench approximate`: approximate search over an index's features, held against the exact pass."""

from pathlib import Path
from typing import Annotated

import typer

from das.finite import LARGEST_SEED


def approximate(
    index: Annotated[Path, typer.Option(help="An index that answers das-block first.")],
    queries: Annotated[Path, typer.Option(help="A .npz whose `images` are pictures (Q, H, W, 3) uint8.")],
    folder: Annotated[
        Path, typer.Option(help="Where the works' features are written: k bytes a work and probe.")
    ],
    works: Annotated[
        int, typer.Option(help="As many works; beyond the index's own they are mixed of two.")
    ] = 1_000_000,
    factory: Annotated[
        list[str] | None,
        typer.Option(
            help="FAISS's name of an index, such as IVF1024,PQ64x4fs@nprobe=128, or qdrant for its engine, if it is"
            " installed (das-attribution\\[engines]); may be given again."
        ),
    ] = None,
    depth: Annotated[
        list[int] | None, typer.Option(help="Candidates of each sign and probe; may be given again.", min=1)
    ] = None,
    sample: Annotated[
        list[int] | None,
        typer.Option(help="Works that group shares are estimated from; may be given again.", min=2),
    ] = None,
    timed: Annotated[int, typer.Option(help="Queries that the exact pass is timed with.", min=1)] = 5,
    seed: Annotated[
        int, typer.Option(help="Of what is mixed, and of training samples.", min=0, max=LARGEST_SEED)
    ] = 0,
    out: Annotated[Path | None, typer.Option(help="Also write the figures here.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON line on stdout.")] = False,
) -> None:
    """Tell how many of the 20 works ranked highest approximate search finds, and in what time, beside the exact pass.

    Each query is asked by itself, as in a service. Group shares are estimated from samples with the exact total.
    """
    import numpy as np

    from das.errors import SettingsError
    from das.index import AttributionIndex
    from measure.approximate import measure_approximate
    from measure.report import command_line, tell_report, versions

    try:
        with np.load(queries, allow_pickle=False) as file:
            images = file["images"]
    except (OSError, KeyError, ValueError) as error:
        raise SettingsError(f"{queries} isn't a .npz with the array images: {error}") from error
    found = measure_approximate(
        AttributionIndex.open(index),
        images,
        works,
        folder,
        factories=factory or ["PQ64x4fs"],
        depths=depth or [1000, 4000],
        samples=sample or [min(10_000, works)],
        timed=timed,
        seed=seed,
    )
    figures = {"command": command_line(), "versions": versions(), **found}
    lines = [
        f"{works:,} works, exact: {found['exact']['p50_ms']:,} ms",
        *(
            f"{row['factory']}, {row['depth']:,} candidates: recall {row['recall_at_20']:.3f} in {row['p50_ms']:,} ms"
            for row in found["approximate"]
        ),
    ]
    tell_report(figures, lines, out, as_json)
