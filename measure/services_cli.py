"""`das bench services`: the time of one client's questions to two running services."""

from pathlib import Path
from typing import Annotated

import typer

from das.finite import LARGEST_SEED, finite


def services(
    url: Annotated[str, typer.Option(help="Where the one listens, on this machine: the baseline.")],
    other: Annotated[str, typer.Option(help="Where the other does.")],
    seconds: Annotated[
        float, typer.Option(help="How long each is asked in a round.", min=0.1, max=86_400.0, callback=finite)
    ] = 15.0,
    rounds: Annotated[int, typer.Option(help="Of both in turn; the median of their ratios counts.")] = 5,
    out: Annotated[Path | None, typer.Option(help="Also write the figures here.")] = None,
    seed: Annotated[int, typer.Option(help="Of the pictures.", min=0, max=LARGEST_SEED)] = 0,
    key: Annotated[
        str | None, typer.Option(envvar="DAS_API_KEY", help="Sent to both, where they ask for keys.")
    ] = None,
    note: Annotated[
        str | None, typer.Option(help="What the services differ in, for the page of results.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON line on stdout.")] = False,
) -> None:
    """Compare how long one client waits for its answers at two running services, asked in turn."""
    import asyncio

    from measure.load.connection import Address
    from measure.load.side_by_side import side_by_side
    from measure.load.throughput import Trial
    from measure.report import command_line, machine, noted, tell_report, versions

    trial = Trial(seconds=seconds, rounds=rounds, seed=seed, key=key)
    facts = {"command": command_line(), **noted(note), "versions": versions(), "machine": machine()}
    found = asyncio.run(side_by_side(trial, Address.of(url), Address.of(other)))
    lines = [
        f"{who}: {told['answered']} answers, p50 {told['p50_ms']:.0f} ms, p95 {told['p95_ms']:.0f} ms"
        for who, told in ((url, found["first"]), (other, found["second"]))
    ]
    lines.append(f"ratio {found['ratio']:.2f} ({found['ratio_low']:.2f} to {found['ratio_high']:.2f})")
    tell_report({**facts, **found}, lines, out, as_json)
