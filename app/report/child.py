"""The process that draws one report: a request on standard input, the PDF on standard output.

It limits its own memory and time, and writes no file. What it is sent is the service's own, so it may be pickled;
what it answers is bytes, and stays bytes.
"""

import pickle
import resource
import sys
from dataclasses import dataclass
from datetime import datetime

from app.report.blocks import Content
from das.confined import limit_resources
from das.errors import EvidenceError
from das.evidence.certificate import Certificate

NICENESS = 5
REFUSED = 3
"""The exit code where the certificate can't sign; a sentence that says why is on standard error."""


@dataclass(frozen=True)
class Request:
    """A report to be drawn (`app.report.pdf.drawn`) and, with a certificate, signed (`das.evidence.credentials`)."""

    content: Content
    pictures: dict[str, bytes]
    data: bytes
    made_at: datetime
    memory_bytes: int
    seconds: int
    digest: str
    made_by: tuple[str, str]
    certificate: Certificate | None = None


def main() -> None:
    """Answer the one request."""
    request: Request = pickle.load(sys.stdin.buffer)
    limit_resources(request.memory_bytes)
    # The parent's limit comes first; this one is for a process whose parent is gone.
    resource.setrlimit(resource.RLIMIT_CPU, (request.seconds + 1, request.seconds + 1))
    from app.report.pdf import drawn

    pdf = drawn(request.content, request.pictures, request.data, request.made_at)
    if request.certificate is not None:
        from das.evidence.credentials import signed

        try:
            pdf = signed(pdf, request.content.name, request.digest, request.made_by, request.certificate)
        except EvidenceError as error:
            sys.stderr.write(str(error))
            sys.exit(REFUSED)
    sys.stdout.buffer.write(pdf)
