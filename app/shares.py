"""What can be done with shares: make, list and withdraw them, and look at what one shows."""

import logging
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from starlette.concurrency import run_in_threadpool

from app import answers, evidence, left_out, redaction
from app.callers import Caller
from app.catalogue import Picture, ServedIndex
from app.language import Language
from app.link_schemas import Links
from app.problems import Problem, invalid
from app.retelling import retold
from app.schemas import Attribution, Lookalike
from app.schemas import Share as Ranked
from app.service import Service
from app.share_schemas import ShareRequest
from app.visibility import View
from app.waiting import find
from jobs.credentials import Scope
from jobs.errors import JobNotFound, StorageError
from jobs.models import Job, utc_now
from jobs.shares import USUAL, Issued, NewShare, Share, ShareNotFound, ShareRefused

logger = logging.getLogger(__name__)

NO_SHARE = "This question has no share with this id."
CLOSED = "This link opens nothing: it was withdrawn, its time is over, or it isn't whole."


@dataclass(frozen=True)
class Opened:
    """An answer as a share shows it: the redacted `job`, and how it may be told. `address` is the share's own."""

    share: Share
    address: str
    job: Job
    served: ServedIndex
    view: View
    said_of_picture: dict[str, Any] | None
    picture_kept: bool

    @property
    def shows_picture(self) -> bool:
        """Whether the picture that was asked about is shown."""
        return left_out.PICTURE not in self.share.left_out

    @property
    def shows_thumbnails(self) -> bool:
        """Whether the works' pictures are."""
        return left_out.THUMBNAILS not in self.share.left_out


async def create(service: Service, caller: Caller, job_id: str, asked: ShareRequest) -> Issued:
    """Make a link to an answer; raises `Problem`: not-found, erased, conflict, invalid-request, or scope-missing."""
    # Who may only ask would read the answer by it.
    caller.needs(Scope.READ)
    job = await find(service, caller, job_id)
    if job.result is not None:
        evidence.answered_by(service, job)
    wanted = NewShare(
        job_id=job_id,
        owner=caller.owner,
        left_out=left_out.with_what_leads_there(asked.leave_out),
        works=asked.works,
        label=asked.label,
        expires_at=_end(asked),
    )
    try:
        return await run_in_threadpool(service.store.shares.create, wanted, caller.actor)
    except JobNotFound as error:
        raise Problem("erased", "This attribution was deleted meanwhile.") from error
    except ShareRefused as error:
        raise Problem("conflict", f"{str(error)[0].upper()}{str(error)[1:]}.") from error


async def listed(service: Service, caller: Caller, job_id: str) -> list[Share]:
    """Every share of the caller's question, the newest first; raises `Problem`: not-found or erased."""
    job = await find(service, caller, job_id)
    return [*await run_in_threadpool(service.store.shares.of, job.id, caller.owner)]


async def revoke(service: Service, caller: Caller, job_id: str, share_id: str) -> Share:
    """Withdraw a link; raises `Problem`: not-found or erased."""
    job = await find(service, caller, job_id)
    try:
        return await run_in_threadpool(
            service.store.shares.revoke, job.id, share_id, caller.owner, caller.actor
        )
    except ShareNotFound as error:
        raise Problem("not-found", NO_SHARE) from error


async def opened(service: Service, caller: Caller, token: str, *, counts: bool = False) -> Opened:
    """What a token opens to whoever has it; raises `Problem` not-found for all that opens nothing, and conflict
    where the index that named the works isn't served any more.

    Args:
        caller: who opens it. Works that are hidden from them are hidden here too.
        counts: whether the owner is told that somebody has looked.
    """
    return await run_in_threadpool(_opened, service, caller, token, counts)


def _opened(service: Service, caller: Caller, token: str, counts: bool) -> Opened:
    shares = service.store.shares
    found = shares.opened(token, local=not service.settings.keys_required)
    if found is None:
        raise Problem("not-found", CLOSED)
    share, job = found
    served = evidence.answered_by(service, job)
    view = service.visibility.to_reader(caller, share.owner)
    if counts:
        try:
            shares.count_view(share.id)
        except StorageError as error:
            # Also on a full disk an answer can be read.
            logger.warning("a look at %s wasn't counted: %s", share.id, error)
    kept = job.upload_gone_at is None
    job, said = left_out.without(job, share, served, view)
    return Opened(share, f"/s/{token}", job, served, view, said, kept)


def told(service: Service, opened: Opened, language: Language) -> tuple[Attribution, frozenset[str]]:
    """The answer of a share in a language, with the sentences in it that are English all the same.

    Whatever it leads to lies below the share's own address: pictures by their place, and reports.
    """
    whole = answers.attribution(opened.job, service.catalogue, waiting=None, screening=None, view=None)
    retelling = retold(whole, language)
    a, at = retelling.answer, opened.address
    picture = f"{at}/picture" if opened.shows_picture and opened.picture_kept else None
    lookalikes = a.lookalikes if opened.shows_picture and a.lookalikes else None
    changes = {
        "works": [
            work.model_copy(update={"thumbnail": _thumbnail(opened, work.thumbnail, f"works/{work.rank}")})
            for work in a.works or []
        ],
        "lookalikes": lookalikes
        and [
            work.model_copy(update={"thumbnail": _thumbnail(opened, work.thumbnail, f"lookalikes/{place}")})
            for place, work in enumerate(lookalikes, 1)
        ],
        "links": Links(self=at, page=at, image=picture, index=at, report=f"{at}/report.json"),
    }
    return a.model_copy(update=changes), retelling.left


def picture(service: Service, opened: Opened) -> bytes:
    """The picture that was asked about; raises `Problem` not-found where it isn't shown or kept."""
    png = (
        evidence.kept(service, opened.share.job_id) if opened.shows_picture and opened.picture_kept else None
    )
    if png is None:
        raise Problem("not-found", CLOSED)
    return png


def row_of(opened: Opened, kind: str, place: int) -> int:
    """The row of the work at a place (from 1) among the works or the look-alikes that a share shows with pictures;
    raises `Problem` not-found where there is none."""
    listed = (opened.job.result or {})["works"]
    if kind == "lookalikes":
        listed = (opened.job.lookalikes or [])[: redaction.LOOKALIKES]
    found = listed[place - 1]["work_id"] if opened.shows_thumbnails and 0 < place <= len(listed) else ""
    row = opened.served.index.works.find(found)
    if row is None:
        raise Problem("not-found", CLOSED)
    return row


def report(service: Service, opened: Opened, kind: evidence.Kind) -> bytes:
    """The report of a share's answer, without what is left out. Takes seconds for a PDF."""
    share = opened.share
    shown = opened.shows_picture and opened.picture_kept
    telling = evidence.Telling(
        job=opened.job,
        picture=evidence.kept(service, share.job_id) if shown else None,
        told=opened.said_of_picture,
        thumbnails=opened.shows_thumbnails,
        shared={"left_out": share.left_out, "works": share.works},
    )
    return evidence.MADE_AS[kind](service, telling)


def pictures(opened: Opened, a: Attribution) -> dict[str, Picture]:
    """The sizes of the works' pictures that a share shows, by the works' ids."""
    shown: list[Ranked | Lookalike] = []
    if opened.shows_thumbnails:
        shown = [*(a.works or []), *(a.lookalikes or [])]
    rows = {work.work_id: opened.served.index.works.find(work.work_id) for work in shown}
    return {work_id: opened.served.picture(row) for work_id, row in rows.items() if row is not None}


def _thumbnail(opened: Opened, own: str | None, place: str) -> str | None:
    return None if own is None or not opened.shows_thumbnails else f"{opened.address}/{place}"


def _end(asked: ShareRequest) -> datetime:
    now = utc_now()
    if asked.expires_in is not None and asked.expires_at is not None:
        raise invalid("expires_at", "was sent beside expires_in: send one of them.")
    if asked.expires_at is not None:
        if asked.expires_at <= now:
            raise invalid("expires_at", "is over already.")
        return asked.expires_at
    return now + (USUAL if asked.expires_in is None else timedelta(seconds=asked.expires_in))
