"""`das worker`."""

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the worker's command."""

    @app.command("worker")
    def worker(
        model: Annotated[
            Path | None, typer.Option(help="Where the indexes' models are, or the one model (DAS_MODEL_DIR).")
        ] = None,
    ) -> None:
        """Compute attributions for the service on the same data directory (`das serve` starts one by itself).

        Ends after the batch in hand on SIGTERM or Ctrl-C.
        """
        from worker.__main__ import main

        main(model)
