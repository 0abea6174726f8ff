"""`das report verify` and `das report key`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from das.device import check_device
from das.errors import EvidenceError
from das.index import AttributionIndex

_MOST_BYTES = 2**26
DISAGREES = 1
"""The exit code of a report that was read and found wrong by computing it again."""


def register(app: typer.Typer) -> None:
    """Add `das report`."""
    report = typer.Typer(help="Reports of answers, as evidence.", no_args_is_help=True)
    report.command("verify")(verify)
    report.command("key")(key)
    app.add_typer(report, name="report")


def verify(
    file: Annotated[Path, typer.Argument(help="The report, report.json of an answer.")],
    trusted: Annotated[
        Path | None, typer.Option("--key", help="The operator's public key (PEM), from the operator.")
    ] = None,
    again: Annotated[bool, typer.Option("--recompute", help="Also compute the answer again.")] = False,
    index: Annotated[Path | None, typer.Option(help="The index that it was asked of.")] = None,
    image: Annotated[
        Path | None, typer.Option(help="The picture: the file, or as the service kept it.")
    ] = None,
    model: Annotated[Path | None, typer.Option(help="Where the index's model is now.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:N or mps.", callback=check_device)] = "cpu",
) -> None:
    """Check that a report is as it was sealed, by whom, and with --recompute that it is right."""
    from das.evidence.seal import PublicKey, check_seal

    document = _document(file)
    signer = check_seal(document, None if trusted is None else PublicKey.read(trusted))
    report = document["report"]
    typer.echo(f"As it was sealed: {document['seal']['digest']}.")
    if signer is None:
        typer.echo("Not signed: anybody could have written it.")
    elif trusted is None:
        typer.echo(
            f"Signed with the key {signer.id}; compare it with the one that the operator tells you, or give --key."
        )
    else:
        typer.echo(f"Signed with the key {signer.id}, which you trust.")
    if not again:
        return
    if index is None or image is None:
        raise EvidenceError("--recompute needs the index and the picture: give --index and --image.")
    from das.evidence.recompute import recompute

    found = recompute(report, AttributionIndex.open(index, model_dir=model), image, device)
    typer.echo(
        f"Computed again: {found.works} works, scores within {found.largest_difference:.1e} of the largest."
        + (" The report is right." if found.agrees else " The report isn't what is found now:")
    )
    for sentence in found.differences:
        typer.echo(sentence)
    if not found.agrees:
        raise typer.Exit(DISAGREES)


def key(
    out: Annotated[Path, typer.Option(help="A new file for the private key (DAS_REPORT_KEY_FILE).")],
) -> None:
    """Make the key that a service signs its reports with, and show the public half."""
    from das.evidence.seal import SigningKey

    made = SigningKey.create(out)
    typer.echo(made.public.pem.strip())
    typer.echo(f"key id {made.public.id}")


def _document(file: Path) -> dict[str, Any]:
    from das.evidence.seal import parsed

    try:
        if file.stat().st_size > _MOST_BYTES:
            raise EvidenceError(f"{file} is larger than {_MOST_BYTES // 2**20} MB; no report is.")
        document = parsed(file.read_bytes())
    except OSError as error:
        raise EvidenceError(f"{file} can't be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise EvidenceError(
            f"{file} isn't JSON; what is verified is the report.json of an answer, not its page."
        ) from error
    if not isinstance(document, dict):
        raise EvidenceError(f"{file} isn't a report.")
    return document
