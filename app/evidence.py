"""Reports of answers as evidence: made from the job, the index and the picture that is kept, and sealed."""

import base64
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from jinja2 import Environment, FileSystemLoader

from app import DISTRIBUTION
from app.answers import BY_ROW, attribution
from app.catalogue import ServedIndex
from app.problems import Problem
from app.redaction import shown
from app.report import drawing
from app.report.blocks import SUBJECT
from app.report.child import Request
from app.report.content import content
from app.service import Service
from app.visibility import View
from das.errors import EvidenceError, ImageRefused
from das.evidence.report import Asked, pixels_digest, report
from das.evidence.seal import canonical, sealed
from das.images import decode_png
from jobs.errors import StorageError
from jobs.models import Job, JobState

logger = logging.getLogger(__name__)

Kind = Literal["json", "html", "pdf"]
MEDIA_TYPES: dict[Kind, str] = {
    "json": "application/json",
    "html": "text/html; charset=utf-8",
    "pdf": "application/pdf",
}
NOT_SERVED = "{index} isn't served here any more, so its works can't be told to others."
MADE_BY = (DISTRIBUTION, version(DISTRIBUTION))
_PICTURES = 20
"""Works whose pictures are put into a page; the numbers of all stand there."""

_pages = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
)


@dataclass(frozen=True)
class Telling:
    """An answer as a report tells it. What isn't to be told was taken out of the job before.

    Attributes:
        picture: the normalised PNG; None where it is no longer kept, or left out.
        told: what is said of the picture as it came; None for what the job says.
        thumbnails: whether the works' pictures are shown.
        shared: what a report has where somebody hands it on with parts left out, as `das.evidence.report` takes it.
    """

    job: Job
    picture: bytes | None
    told: dict[str, Any] | None = None
    thumbnails: bool = True
    shared: dict[str, Any] | None = None


def telling(service: Service, job: Job, view: View) -> Telling:
    """A job's answer without what is hidden from whoever it is told to.

    Raises `Problem` conflict where there is no answer.
    """
    _refuse_unanswered(job)
    return Telling(shown(job, view, service.catalogue), kept(service, job.id))


def document(service: Service, telling: Telling) -> dict[str, Any]:
    """The sealed report of an answer."""
    job, png = telling.job, telling.picture
    _refuse_unanswered(job)
    # Another version tells what works are called, and none what the answer was computed from.
    own, reading = service.catalogue.find(job.index_id), service.catalogue.reading(job.index_id)
    told = attribution(
        job, service.catalogue, waiting=None, screening=service.screener.failure(job.index_id), view=None
    )
    picture = told.input.model_dump(mode="json") if telling.told is None else telling.told
    asked = Asked(
        id=job.id,
        asked_at=_instant(job.created_at),
        finished_at=_instant(job.finished_at),
        method=job.method,
        candidates=job.candidate_works,
        top_k=job.top_k,
        prompt=job.prompt,
        seed=job.seed,
        picture=picture,
        pixels=None if png is None else pixels_digest(decode_png(png)),
    )
    copied = None if told.copied is None else told.copied.summary
    found = report(
        job.index_id if own is None else own.index,
        asked,
        job.result or {},
        told.notes,
        copied,
        " ".join(MADE_BY),
        telling.shared,
        None if reading is None else reading.index,
    )
    return sealed(found, service.signing_key)


def as_json(service: Service, telling: Telling) -> bytes:
    """The sealed report in its canonical spelling."""
    return canonical(document(service, telling))


def as_html(service: Service, telling: Telling) -> bytes:
    """The report for people: one file that needs nothing else, for a screen and for paper."""
    found = document(service, telling)
    pictures = _pictures(service, telling, found)
    page = _pages.get_template("report.html").render(
        content=content(found, picture=SUBJECT in pictures),
        pictures={name: _embedded(*picture) for name, picture in pictures.items()},
    )
    return page.encode()


def as_pdf(service: Service, telling: Telling) -> bytes:
    """The report on paper, with the sealed data in it, signed where a certificate is configured.

    Takes seconds and a process of its own: take a turn of `service.drawing` for it. Raises `Problem` also where it
    can't be drawn, and not-ready where the certificate doesn't sign any more.
    """
    job = telling.job
    found = document(service, telling)
    pictures = _pictures(service, telling, found)
    request = Request(
        content=content(found, picture=SUBJECT in pictures),
        pictures={name: data for name, (_, data) in pictures.items()},
        data=canonical(found),
        made_at=job.finished_at or job.created_at,
        memory_bytes=drawing.MEMORY_BYTES,
        seconds=drawing.SECONDS,
        digest=found["seal"]["digest"],
        made_by=MADE_BY,
        certificate=service.certificate,
    )
    try:
        return drawing.draw(request)
    except EvidenceError as error:
        logger.error("no PDF of %s: %s", job.id, error)
        detail = f"The PDF can't be signed now; the operator's log says why. {drawing.ELSE}"
        raise Problem("not-ready", detail, drawing.RETRY) from error


def _pictures(service: Service, telling: Telling, found: dict[str, Any]) -> dict[str, tuple[str, bytes]]:
    """The pictures that a report shows, by the names in its content, with their media types."""
    served = service.catalogue.reading(telling.job.index_id)
    pictures = {}
    if telling.picture is not None:
        pictures[SUBJECT] = ("image/png", telling.picture)
    for place in found["report"]["answer"]["works"][: _PICTURES if telling.thumbnails else 0]:
        thumbnail = None if served is None else _thumbnail(served, place["work_id"])
        if thumbnail is not None:
            pictures[place["work_id"]] = thumbnail
    return pictures


def answered_by(service: Service, job: Job) -> ServedIndex:
    """What tells of the works of a finished job's answer: its index, or the version that is served in its place.

    Raises `Problem` conflict where there is no answer, or neither of them.
    """
    _refuse_unanswered(job)
    served = service.catalogue.reading(job.index_id)
    if served is None:
        raise Problem("conflict", NOT_SERVED.format(index=job.index_id))
    return served


def _refuse_unanswered(job: Job) -> None:
    if job.state != JobState.SUCCEEDED or job.result is None:
        raise Problem("conflict", f"There is no answer to report: the question is {job.state}.")
    if job.by_row:
        raise Problem("conflict", BY_ROW)


def kept(service: Service, job_id: str) -> bytes | None:
    """The normalised picture of a question; None where it is no longer kept or damaged."""
    try:
        png = service.store.image(job_id)
        decode_png(png)
    except (StorageError, ImageRefused):
        return None
    return png


def _thumbnail(served: ServedIndex, work_id: str) -> tuple[str, bytes] | None:
    row = served.index.works.find(work_id)
    if row is None:
        return None
    return served.picture(row).media_type, served.index.thumbnail(row)


def _embedded(media_type: str, data: bytes) -> str:
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


def _instant(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()


MADE_AS: dict[Kind, Callable[[Service, Telling], bytes]] = {
    "json": as_json,
    "html": as_html,
    "pdf": as_pdf,
}
