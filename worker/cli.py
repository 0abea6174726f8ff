"""`das worker`."""

import typer


def register(app: typer.Typer) -> None:
    """Add the worker's command."""

    @app.command("worker")
    def worker() -> None:
        """Compute attributions for the service on the same data directory (`das serve` starts one by itself).

        Ends after the batch in hand on SIGTERM or Ctrl-C.
        """
        from worker.__main__ import main

        raise typer.Exit(main())
