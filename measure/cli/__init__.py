"""The commands that measure (`das evaluate …`) and that make the pages of what was measured (`das results …`)."""

import typer

from measure.cli import estimators, results
from measure.cli.copies import copies
from measure.cli.groups import groups
from measure.cli.index import index
from measure.cli.intervals import intervals
from measure.cli.truth import group_truth, truth
from measure.cli.uploads import uploads


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    evaluate = typer.Typer(
        help="Measure how good the estimators are, by training again.", no_args_is_help=True
    )
    evaluate.command("truth")(truth)
    evaluate.command("group-truth")(group_truth)
    evaluate.command("lds")(estimators.lds)
    evaluate.command("groups")(groups)
    evaluate.command("counterfactual")(estimators.counterfactual)
    evaluate.command("output-function")(estimators.output_function)
    evaluate.command("screening")(estimators.screening)
    evaluate.command("index")(index)
    evaluate.command("uploads")(uploads)
    evaluate.command("intervals")(intervals)
    evaluate.command("copies")(copies)
    app.add_typer(evaluate, name="evaluate")
    pages = typer.Typer(help="The pages and figures of what was measured.", no_args_is_help=True)
    pages.command("write")(results.write)
    pages.command("check")(results.check)
    app.add_typer(pages, name="results")
