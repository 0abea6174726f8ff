"""`das build-worker` and `das build-status`."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from das.device import check_device


def register_cluster(app: typer.Typer) -> None:
    """Add the commands to `app`."""

    @app.command("build-worker")
    def build_worker(
        device: Annotated[
            str, typer.Option(help="cpu, cuda, cuda:N or mps; one worker for each.", callback=check_device)
        ] = "cpu",
    ) -> None:
        """Compute shards for `das build --distributed`, wherever it was started with the same broker and disk.

        Needs the works and the model under the paths that the build was started with, and the place where shards are
        left: the index's, or the build's --exchange. Ends after
        the shard in hand on SIGTERM or Ctrl-C; one that is killed loses its shard to the others.
        """
        # Celery and torch take seconds to import.
        from index_build.cluster.shard_worker import run
        from jobs.logs import configure_logging
        from jobs.settings import get_settings

        settings = get_settings()
        configure_logging(settings)
        raise typer.Exit(run(settings, device))

    @app.command("build-status")
    def build_status(
        out: Annotated[Path, typer.Argument(metavar="OUT", help="The --out of the build.")],
        exchange: Annotated[str | None, typer.Option(help="Its --exchange.")] = None,
        as_json: Annotated[
            bool, typer.Option("--json", help="JSON for machines, on standard output.")
        ] = False,
    ) -> None:
        """Tell how far a build is: shards, rate, time left, and who computes which shard."""
        from index_build.cluster.status import status

        found = status(out, exchange)
        if as_json:
            sys.stdout.write(json.dumps(asdict(found)) + "\n")
        else:
            Console(highlight=False, markup=False, soft_wrap=True).print(found.describe())
