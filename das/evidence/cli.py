"""`das report verify` and `das report key`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from das.device import check_device
from das.errors import EvidenceError
from das.evidence.attached import MAGIC, attached
from das.index import AttributionIndex
from das.plurals import counted

if TYPE_CHECKING:
    from das.evidence.recompute import Recomputed

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
    file: Annotated[
        Path, typer.Argument(help="The report of an answer: report.json, or report.pdf with that inside.")
    ],
    trusted: Annotated[
        Path | None, typer.Option("--key", help="The operator's public key (PEM), from the operator.")
    ] = None,
    anchors: Annotated[
        Path | None,
        typer.Option("--trust", help="Certificates (PEM) that you trust to name who signed a PDF with C2PA."),
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

    data = _read(file)
    pdf = data.startswith(MAGIC)
    document = _document(file, attached(data, _MOST_BYTES) if pdf else data)
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
    if pdf:
        _tell_pages(data, document["seal"]["digest"], anchors)
    elif anchors is not None:
        raise EvidenceError(f"--trust is for a PDF that is signed with C2PA; {file} is none.")
    if not again:
        return
    if index is None or image is None:
        raise EvidenceError("--recompute needs the index and the picture: give --index and --image.")
    from das.evidence.recompute import recompute

    found = recompute(report, AttributionIndex.open(index, model_dir=model), image, device)
    if found.works and found.by_share == found.works:
        near = "held against their shares as they were rounded."
    else:
        near = f"scores within {found.largest_difference:.1e} of the largest."
    typer.echo(
        f"Computed again: {counted(found.works, 'work')}, {near}"
        + (_right(found) if found.agrees else " The report isn't what is found now:")
    )
    for sentence in (*found.differences, *found.not_compared):
        typer.echo(sentence)
    if not found.agrees:
        raise typer.Exit(DISAGREES)


def _right(found: "Recomputed") -> str:
    if not found.works:
        return " Nothing could be compared:"
    return (
        " As far as it names works, the report is right:" if found.not_compared else " The report is right."
    )


def key(
    out: Annotated[Path, typer.Option(help="A new file for the private key (DAS_REPORT_KEY_FILE).")],
) -> None:
    """Make the key that a service signs its reports with, and show the public half."""
    from das.evidence.seal import SigningKey

    made = SigningKey.create(out)
    typer.echo(made.public.pem.strip())
    typer.echo(f"key id {made.public.id}")


def _tell_pages(pdf: bytes, digest: str, anchors: Path | None) -> None:
    """Say what is known of a PDF's pages, which aren't what the seal is of."""
    # The library is large, and most PDFs have no manifest.
    if b"C2PA_Manifest" not in pdf:
        if anchors is not None:
            raise EvidenceError(
                "The PDF isn't signed with C2PA, so nothing leads to a certificate that you trust."
            )
        typer.echo("Checked was the report.json inside. The pages aren't signed: read what it says there.")
        return
    from das.evidence.credentials import credentials_of

    found = credentials_of(pdf, anchors)
    if found is None:
        raise EvidenceError("The PDF's C2PA manifest can't be read.")
    if found.digest != digest:
        raise EvidenceError("The PDF was signed with C2PA as that of another report than the one inside.")
    if found.trusted is False:
        raise EvidenceError(
            f"The PDF's signer, {found.signer} of {found.issuer}, isn't one that --trust leads to."
        )
    trust = (
        "which you trust"
        if found.trusted
        else "whoever that is: --trust names the certificates that you trust"
    )
    typer.echo(
        f"The PDF, its pages too, is as {found.signer} of {found.issuer} signed it with C2PA, {trust}."
    )


def _read(file: Path) -> bytes:
    try:
        if file.stat().st_size > _MOST_BYTES:
            raise EvidenceError(f"{file} is larger than {_MOST_BYTES // 2**20} MB; no report is.")
        return file.read_bytes()
    except OSError as error:
        raise EvidenceError(f"{file} can't be read: {error.strerror}.") from error


def _document(file: Path, data: bytes) -> dict[str, Any]:
    from das.evidence.seal import parsed

    try:
        document = parsed(data)
    except (ValueError, RecursionError) as error:
        raise EvidenceError(
            f"{file} isn't JSON; what is verified is the report.json of an answer, or its PDF, not its page."
        ) from error
    if not isinstance(document, dict):
        raise EvidenceError(f"{file} isn't a report.")
    return document
