"""Reports of answers as evidence: made from the job, the index and the picture that is kept, and sealed."""

import base64
from collections.abc import Callable
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from jinja2 import Environment, FileSystemLoader

from app import DISTRIBUTION, wording
from app.answers import attribution
from app.catalogue import ServedIndex
from app.problems import Problem
from app.redaction import shown
from app.service import Service
from app.visibility import View
from das.errors import ImageRefused
from das.evidence.report import Asked, pixels_digest, report
from das.evidence.seal import canonical, sealed
from das.images import decode_png
from jobs.errors import StorageError
from jobs.models import Job, JobState

Kind = Literal["json", "html"]
MEDIA_TYPES: dict[Kind, str] = {"json": "application/json", "html": "text/html; charset=utf-8"}
_PICTURES = 20
"""Works whose pictures are put into a page; the numbers of all stand there."""

_pages = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
)
_pages.filters.update(wording.FILTERS)


def document(service: Service, job: Job, view: View) -> dict[str, Any]:
    """The sealed report of a job's answer, without what is hidden from whoever it is made for.

    Raises `Problem` conflict where there is no answer, or the index that named its works is gone.
    """
    served = _answered_by(service, job)
    told = attribution(
        job, service.catalogue, waiting=None, screening=service.screener.failure(job.index_id), view=view
    )
    job = shown(job, view, service.catalogue)
    png = _kept(service, job)
    asked = Asked(
        id=job.id,
        asked_at=_instant(job.created_at),
        finished_at=_instant(job.finished_at),
        method=job.method,
        candidates=job.candidate_works,
        top_k=job.top_k,
        prompt=job.prompt,
        seed=job.seed,
        picture=told.input.model_dump(mode="json"),
        pixels=None if png is None else pixels_digest(decode_png(png)),
    )
    copied = None if told.copied is None else told.copied.summary
    made_by = f"{DISTRIBUTION} {version(DISTRIBUTION)}"
    return sealed(
        report(served.index, asked, job.result or {}, told.notes, copied, made_by), service.signing_key
    )


def as_json(service: Service, job: Job, view: View) -> bytes:
    """The sealed report in its canonical spelling."""
    return canonical(document(service, job, view))


def as_html(service: Service, job: Job, view: View) -> bytes:
    """The report for people: one file that needs nothing else, for a screen and for paper."""
    served, found = _answered_by(service, job), document(service, job, view)
    png = _kept(service, job)
    works = found["report"]["answer"]["works"]
    thumbnails = {place["work_id"]: _thumbnail(served, place["work_id"]) for place in works[:_PICTURES]}
    page = _pages.get_template("report.html").render(
        report=found["report"],
        seal=found["seal"],
        picture=None if png is None else _embedded("image/png", png),
        thumbnails=thumbnails,
    )
    return page.encode()


def _answered_by(service: Service, job: Job) -> ServedIndex:
    """The index that a finished job's answer is about."""
    if job.state != JobState.SUCCEEDED or job.result is None:
        raise Problem("conflict", f"There is no answer to report: the question is {job.state}.")
    served = service.catalogue.find(job.index_id)
    if served is None or job.by_row:
        raise Problem(
            "conflict", f"{job.index_id} isn't served here any more, so its works can't be told in a report."
        )
    return served


def _kept(service: Service, job: Job) -> bytes | None:
    """The normalised picture; None where it is no longer kept or damaged."""
    try:
        png = service.store.image(job.id)
        decode_png(png)
    except (StorageError, ImageRefused):
        return None
    return png


def _thumbnail(served: ServedIndex, work_id: str) -> str | None:
    row = served.index.works.find(work_id)
    if row is None:
        return None
    return _embedded(served.picture(row).media_type, served.index.thumbnail(row))


def _embedded(media_type: str, data: bytes) -> str:
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


def _instant(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()


MADE_AS: dict[Kind, Callable[[Service, Job, View], bytes]] = {"json": as_json, "html": as_html}
