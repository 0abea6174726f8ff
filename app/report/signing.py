"""The certificate that PDFs are signed with, read and tried when the service starts: nobody meets a bad one later."""

from datetime import UTC, datetime
from importlib.metadata import version

from app import DISTRIBUTION
from app.problems import Problem
from app.report.blocks import Content
from app.report.child import Request
from app.report.drawing import MEMORY_BYTES, SECONDS, draw
from das.errors import SettingsError
from das.evidence.certificate import Certificate
from jobs.settings import Settings


def certificate_of(settings: Settings) -> Certificate | None:
    """The certificate of `DAS_C2PA_CERTIFICATE_FILE`; None where none is set.

    Raises:
        SettingsError: only one of certificate and key is set.
        EvidenceError: they can't be read or don't belong together, or C2PA doesn't take them.
    """
    chain, key = settings.c2pa_certificate_file, settings.c2pa_key_file
    if chain is None and key is None:
        return None
    if chain is None or key is None:
        missing = "DAS_C2PA_KEY_FILE" if key is None else "DAS_C2PA_CERTIFICATE_FILE"
        raise SettingsError(
            f"PDFs are signed with a certificate and its key: set {missing}, too, or neither."
        )
    certificate = Certificate.read(chain, key)
    trial = Request(
        content=Content("A trial", "A trial", (), (), ("", "")),
        pictures={},
        data=b"{}",
        made_at=datetime.now(UTC),
        memory_bytes=MEMORY_BYTES,
        seconds=SECONDS,
        digest="",
        made_by=(DISTRIBUTION, version(DISTRIBUTION)),
        certificate=certificate,
    )
    try:
        draw(trial)
    except Problem as problem:
        raise SettingsError(f"a PDF can't be signed on trial: {problem.detail}") from problem
    return certificate
