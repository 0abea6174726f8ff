"""The pages of shares: whose answer it is makes and withdraws links to it, and whoever has a link reads it.

What lies below `/s/` is open to whoever has the token. A wrong token, one that was withdrawn, whose time is over or
whose answer was erased are the same 404: 410 would say that there was something. No page of another site is told the
address, no cache keeps it and no search engine lists it (`app.middleware.OPEN_TO_TOKENS`).
"""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import RedirectResponse, Response

from app import shares, wording
from app.callers import Asking, Caller, Opening, Reading
from app.evidence import MEDIA_TYPES, Kind
from app.forms import BESIDE_BYTES
from app.language import LANGUAGES, Language, language_of
from app.left_out import PARTS
from app.problems import Problem
from app.refusals import refusal
from app.rendering import base_address, render, wants_html
from app.service import Service, service_of
from app.share_schemas import ShareRequest
from app.uploads import parse_as, small_form
from app.waiting import find
from jobs.models import Job, utc_now
from jobs.shares import MAX_LABEL, USUAL, Share

router = APIRouter(include_in_schema=False)

SEE_OTHER, CREATED = 303, 201
NO_STORE = {"Cache-Control": "no-store"}
LENGTHS = (1, 7, 30, 90, 365)
DAY_S = 86_400

Place = Annotated[int, Path(ge=1, le=10_000)]
# The fields of a link as the form has them, in its order.
FIELDS = {"works": "works", "expires_in": "days", "expires_at": "days", "label": "label"}


@router.get("/a/{attribution_id}/shares")
async def own_shares(request: Request, caller: Reading, attribution_id: str) -> Response:
    """The links to an answer that are open, and a form for another."""
    return await _own(request, caller, attribution_id, {}, None)


@router.post("/a/{attribution_id}/shares")
async def share_by_form(request: Request, caller: Asking, attribution_id: str) -> Response:
    """Make a link, and show it: on the page that answers the form, since it is kept nowhere."""
    service = service_of(request)
    given = await small_form(service, request, BESIDE_BYTES)
    try:
        issued = await shares.create(service, caller, attribution_id, parse_as(ShareRequest, _asked(given)))
    except Problem as problem:
        if problem.code not in ("invalid-request", "conflict"):
            raise
        return await _own(request, caller, attribution_id, given, problem)
    link = f"{base_address(request)}/s/{issued.token}"
    return await _own(request, caller, attribution_id, {}, None, link)


@router.post("/a/{attribution_id}/shares/{share_id}/revoke")
async def revoke_by_form(request: Request, caller: Asking, attribution_id: str, share_id: str) -> Response:
    """Withdraw a link."""
    await shares.revoke(service_of(request), caller, attribution_id, share_id)
    return RedirectResponse(f"/a/{attribution_id}/shares", SEE_OTHER, NO_STORE)


@router.get("/s/{token}")
async def shared(
    request: Request,
    caller: Opening,
    token: str,
    language: Annotated[str | None, Query(max_length=40)] = None,
) -> Response:
    """An answer as its owner shares it."""
    # Chosen by the address: a form's own origin isn't told from a page that keeps its address to itself.
    if language in LANGUAGES:
        request.state.language = LANGUAGES[language]
    service = service_of(request)
    try:
        opened = await shares.opened(service, caller, token, counts=True)
    except Problem as problem:
        if problem.code != "not-found" or not wants_html(request):
            raise
        return render(request, "share-closed.html", {"signed_in": None}, problem.kind.status)
    context = await run_in_threadpool(_shared, service, opened, caller, language_of(request))
    return render(request, "share.html", context)


@router.get("/s/{token}/picture")
async def shared_picture(request: Request, caller: Opening, token: str) -> Response:
    """The picture that was asked about, where it is shown."""
    service = service_of(request)
    opened = await shares.opened(service, caller, token)
    return Response(await run_in_threadpool(shares.picture, service, opened), media_type="image/png")


@router.get("/s/{token}/works/{place}")
async def shared_work(request: Request, caller: Opening, token: str, place: Place) -> Response:
    """The picture of a ranked work, by its place."""
    return await _thumbnail(request, caller, token, "works", place)


@router.get("/s/{token}/lookalikes/{place}")
async def shared_lookalike(request: Request, caller: Opening, token: str, place: Place) -> Response:
    """The picture of a look-alike, by its place."""
    return await _thumbnail(request, caller, token, "lookalikes", place)


@router.get("/s/{token}/report.json")
async def shared_data(request: Request, caller: Opening, token: str) -> Response:
    """The answer as evidence, without what is left out."""
    return await _report(request, caller, token, "json")


@router.get("/s/{token}/report.html")
async def shared_report(request: Request, caller: Opening, token: str) -> Response:
    """The same for people."""
    return await _report(request, caller, token, "html")


@router.get("/s/{token}/report.pdf")
async def shared_pdf(request: Request, caller: Opening, token: str) -> Response:
    """The same on paper."""
    return await _report(request, caller, token, "pdf")


async def _own(
    request: Request,
    caller: Caller,
    job_id: str,
    given: dict[str, str],
    problem: Problem | None,
    link: str | None = None,
) -> Response:
    """The owner's page: a refusal is shown on its form, which keeps what was written into it."""
    service, language = service_of(request), language_of(request)
    job = await find(service, caller, job_id)
    found = await shares.listed(service, caller, job_id)
    now = utc_now()
    context = {
        "id": job.id,
        "given": given,
        "parts": PARTS,
        "lengths": LENGTHS,
        "usual": USUAL.days,
        "max_label": MAX_LABEL,
        "ends": await run_in_threadpool(_end_of, service, job, language),
        "open": [_told(share, language) for share in found if share.state(now) == "open"],
        "link": link,
        "problem": None if problem is None else refusal(request, problem, FIELDS),
    }
    status = 200 if problem is None else problem.kind.status
    return render(request, "shares.html", context, CREATED if link else status, NO_STORE)


def _asked(given: dict[str, str]) -> dict[str, Any]:
    """The fields of the API's request that a form says. A browser sends its empty fields too."""
    fields: dict[str, Any] = {"leave_out": [part for part in PARTS if given.get(part)]}
    works, days = (given.get(name, "").strip() for name in ("works", "days"))
    if works:
        fields["works"] = _whole(works)
    if days:
        number = _whole(days)
        fields["expires_in"] = number * DAY_S if isinstance(number, int) else number
    return {**fields, "label": given.get("label", "").strip() or None}


def _whole(text: str) -> int | str:
    """The number in a field; the text itself where it is none, or longer than any that is taken."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 10 else text


def _end_of(service: Service, job: Job, language: Language) -> str | None:
    ends = service.store.keeping.expires_at(job)
    return None if ends is None else language.moment(ends)


def _told(share: Share, language: Language) -> dict[str, Any]:
    """An open share as its owner's page says it."""
    seen = language("share.not_seen")
    if share.viewed_at is not None:
        seen = language("share.seen", n=share.views, moment=language.moment(share.viewed_at))
    return {
        "share": share,
        "made": language.moment(share.created_at),
        "until": language.moment(share.expires_at),
        "left_out": wording.left_out(share.left_out, share.works, language),
        "seen": seen,
    }


def _shared(service: Service, opened: shares.Opened, caller: Caller, language: Language) -> dict[str, Any]:
    a, in_english = shares.told(service, opened, language)
    share = opened.share
    unsaid = {"question"} if opened.shows_picture else {"question", *wording.ABOUT_PICTURE}
    return {
        "a": a,
        "share": share,
        # Whoever opens it sees the same, signed in or not, but for works that are for some to see only.
        "signed_in": None,
        "headline": wording.headline(a, language),
        "sentences": wording.sentences(a, language),
        "in_english": in_english,
        "shares_of": wording.shares_of(a, language),
        "works_title": wording.works_title(a, language),
        "details": wording.details(a, language, unsaid),
        "declared": wording.declared(a.input.declared, language),
        "pictures": shares.pictures(opened, a),
        "shows_picture": opened.shows_picture,
        "left_out": wording.left_out(share.left_out, share.works, language),
        "until": language.moment(share.expires_at),
    }


async def _thumbnail(request: Request, caller: Caller, token: str, kind: str, place: int) -> Response:
    service = service_of(request)
    opened = await shares.opened(service, caller, token)
    served, row = opened.served, shares.row_of(opened, kind, place)
    if service.visibility.restricted(served, row):
        work_id = served.index.works.id_of(row)
        await run_in_threadpool(service.store.audit.write, caller.actor, "thumbnail.read", work_id)
    data = await run_in_threadpool(served.index.thumbnail, row)
    return Response(data, media_type=served.picture(row).media_type)


async def _report(request: Request, caller: Caller, token: str, kind: Kind) -> Response:
    service = service_of(request)
    opened = await shares.opened(service, caller, token, counts=True)
    if kind == "pdf":
        async with service.drawing.turn(caller.address):
            data = await run_in_threadpool(shares.report, service, opened, kind)
    else:
        data = await run_in_threadpool(shares.report, service, opened, kind)
    name = f'attachment; filename="{opened.share.id}-report.{kind}"'
    return Response(data, media_type=MEDIA_TYPES[kind], headers={"Content-Disposition": name})
