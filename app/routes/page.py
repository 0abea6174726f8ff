"""The page. Every route works without JavaScript: forms are posted and answered with 303 to the next page."""

from http import HTTPStatus
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Header, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import FileResponse, RedirectResponse, Response

from app import questions, wording
from app.addresses import MAX_URL_LENGTH
from app.answers import index_summary
from app.assets import STATIC
from app.callers import Asking, Caller, Reading
from app.catalogue import Picture, ServedIndex
from app.forms import BESIDE_BYTES
from app.intake import refuse_when_full
from app.language import COOKIE, ENGLISH, LANGUAGES, Language, language_of
from app.middleware import NEVER_ANSWERED
from app.problems import CATALOGUE, Problem, invalid
from app.refusals import refusal
from app.rendering import HTML_HEADERS, is_sure, page_shown, render, sign_in_page, sure_page
from app.samples import SHOWN_FIRST
from app.schemas import MAX_PROMPT_LENGTH, Attribution, AttributionRequest
from app.service import Service, service_of
from app.uploads import Filled, fetched, parse_fields, small_form, upload
from app.waiting import MAX_WAIT_S, find, unless_gone

router = APIRouter(include_in_schema=False)

SEE_OTHER = 303
A_YEAR_S = 365 * 24 * 3600
PROMPT = {"prompt": "prompt"}


@router.get("/")
async def home(request: Request, caller: Reading) -> Response:
    return await run_in_threadpool(_home, request, caller, Filled())


@router.post("/ask")
async def ask_by_form(request: Request, caller: Asking) -> Response:
    """The form of the page. A refusal is shown on the page that the picture was chosen on, beside the fields that it
    is about; the script takes it from there."""
    service = service_of(request)
    filled = Filled()
    try:
        await refuse_when_full(service, caller)
        async with upload(service, request, filled=filled) as (picture, fields):
            if not picture:
                why = "mistake.empty_file" if filled.empty else "mistake.choose_first"
                raise invalid("image", ENGLISH(why), why)
            # A form sends its empty fields too.
            given = {name: value for name, value in fields.items() if value != ""}
            asked = parse_fields(given)
            async with fetched(service, caller, picture) as data:
                job = await questions.ask(service, caller, data, asked)
    except Problem as problem:
        return await run_in_threadpool(_home, request, caller, filled, problem)
    return RedirectResponse(f"/a/{job.id}", SEE_OTHER)


@router.post("/samples")
async def ask_by_sample(request: Request, caller: Asking) -> Response:
    """Ask about one of the sample generations."""
    service = service_of(request)
    sample = service.samples.find((await small_form(service, request)).get("sample", ""))
    if sample is None:
        raise Problem("not-found", "There is no such sample.")
    await refuse_when_full(service, caller)
    data = await run_in_threadpool(sample.path.read_bytes)
    job = await questions.ask(service, caller, data, AttributionRequest())
    return RedirectResponse(f"/a/{job.id}", SEE_OTHER)


@router.get("/samples/{name}")
async def sample_picture(request: Request, _caller: Reading, name: str) -> Response:
    sample = service_of(request).samples.find(name)
    if sample is None:
        raise Problem("not-found", "There is no such sample.")
    return FileResponse(
        sample.path, media_type="image/png", headers={"Cache-Control": "private, max-age=3600"}
    )


@router.get("/a/{attribution_id}")
async def answer_page(
    request: Request,
    caller: Reading,
    attribution_id: str,
    wait: Annotated[float | None, Query(ge=0, le=MAX_WAIT_S, allow_inf_nan=False)] = None,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """One question. The page's script asks again with `wait` and the ETag, and exchanges what has changed."""
    service = service_of(request)
    asking = questions.answer(service, caller, attribution_id, wait, if_none_match)
    answer = await unless_gone(request, asking) if wait else await asking
    if answer is None:
        return Response(status_code=NEVER_ANSWERED)
    if not answer.body:
        return Response(status_code=304, headers={**HTML_HEADERS, "ETag": answer.etag})
    return await _answer_page(request, answer, {"problem": None, "given_prompt": None})


@router.get("/a/{attribution_id}/works/{work_id}")
async def compare(request: Request, caller: Reading, attribution_id: str, work_id: str) -> Response:
    """The picture beside one of the works that its answer names, with the ways to the works before and after it."""
    service = service_of(request)
    answer = await questions.answer(service, caller, attribution_id, None, None)
    told = answer.told
    works = [] if told is None else [work for work in told.works or [] if work.thumbnail]
    place = next((place for place, work in enumerate(works) if work.work_id == work_id), None)
    if told is None or place is None:
        raise Problem("not-found", "The answer shows no such work.")
    served = service.catalogue.reading(told.index)
    row = None if served is None else served.index.works.find(work_id)
    address = f"/a/{attribution_id}"
    context = {
        "a": told,
        "work": works[place],
        "picture": None if served is None or row is None else await run_in_threadpool(served.picture, row),
        # Where one came from has the focus again.
        "back": f"{address}#{quote(work_id)}",
        "before": f"{address}/works/{quote(works[place - 1].work_id)}" if place else None,
        "after": f"{address}/works/{quote(works[place + 1].work_id)}" if place + 1 < len(works) else None,
    }
    return render(request, "compare.html", context)


@router.post("/a/{attribution_id}/cancel")
async def cancel_by_form(request: Request, caller: Asking, attribution_id: str) -> Response:
    try:
        await questions.cancel(service_of(request), caller, attribution_id)
    except Problem as problem:
        # It was finished between the page and the click: what it found is the better answer.
        if problem.code != "conflict":
            raise
    return RedirectResponse(f"/a/{attribution_id}", SEE_OTHER)


@router.post("/a/{attribution_id}/erase")
async def erase_by_form(request: Request, caller: Asking, attribution_id: str) -> Response:
    if not await is_sure(request):
        await find(service_of(request), caller, attribution_id)
        return sure_page(request, page_shown(f"/a/{attribution_id}"))
    await questions.erase(service_of(request), caller, attribution_id)
    return RedirectResponse("/deleted", SEE_OTHER)


@router.post("/a/{attribution_id}/again")
async def ask_again(request: Request, caller: Asking, attribution_id: str) -> Response:
    """Ask anew, under a new address: a failed or cancelled question, or any with the prompt of the form."""
    service = service_of(request)
    form = {}
    if "content-type" in request.headers:
        form = await small_form(service, request, BESIDE_BYTES)
    # A browser sends the line ends of a text field as two characters.
    prompt = form["prompt"].replace("\r\n", "\n") if "prompt" in form else None
    try:
        job = await questions.again(service, caller, attribution_id, prompt)
    except Problem as problem:
        refused = refusal(request, problem, PROMPT)
        if not refused.mistakes:
            raise
        answer = await questions.answer(service, caller, attribution_id, None, None)
        # The form isn't there while an answer is waited for.
        if not answer.finished:
            raise
        refused_as = {"problem": refused, "given_prompt": prompt, "here": f"/a/{attribution_id}"}
        return await _answer_page(request, answer, refused_as, problem.kind.status)
    return RedirectResponse(f"/a/{job.id}", SEE_OTHER)


@router.get("/deleted")
async def deleted(request: Request) -> Response:
    language = language_of(request)
    context = {"title": language("message.deleted"), "detail": language("message.deleted_note")}
    return render(request, "message.html", context)


@router.post("/language")
async def choose_language(request: Request) -> Response:
    """Keep the language that was chosen on the page, and go on with it where that was done."""
    form = await small_form(service_of(request), request)
    response = RedirectResponse(page_shown(form.get("next", "/")), SEE_OTHER, {"Cache-Control": "no-store"})
    chosen = form.get("language", "")
    if chosen in LANGUAGES:
        # It names a language and nobody; a link from elsewhere is shown in it too.
        response.set_cookie(
            COOKIE,
            chosen,
            max_age=A_YEAR_S,
            secure=request.url.scheme == "https",
            httponly=True,
            samesite="lax",
        )
    return response


@router.get("/problems")
async def problems(request: Request) -> Response:
    """What each kind of error means; the `type` of every problem document points here."""
    return render(request, "problems.html", {"problems": CATALOGUE})


@router.get("/static/{path:path}")
async def static_file(request: Request, path: str) -> Response:
    known = STATIC.get(path)
    if known is None:
        raise Problem("not-found", f"There is nothing at {request.url.path}.")
    return FileResponse(
        known.path, media_type=known.media_type, headers={"Cache-Control": known.caching(request)}
    )


def as_page(problem: Problem, request: Request) -> Response:
    """An error as a page."""
    if problem.kind.status == HTTPStatus.UNAUTHORIZED:
        return sign_in_page(request, problem)
    document = problem.document(request)
    context = {
        "title": document.title + ".",
        "detail": document.detail,
        "english": language_of(request) is not ENGLISH,
        "request_id": document.request_id,
    }
    return render(request, "message.html", context, document.status, problem.headers)


async def _answer_page(
    request: Request, answer: questions.Answer, form: dict[str, Any], status: int = 200
) -> Response:
    """The page of an answer. `form`: what is in the form for another prompt, and why that was refused."""
    assert answer.told is not None
    context = await run_in_threadpool(_answer_context, service_of(request), answer.told, answer.language)
    context |= {"etag": answer.etag, "waiting": not answer.finished, "in_english": answer.left, **form}
    headers = {**HTML_HEADERS, "ETag": answer.etag} if status == HTTPStatus.OK else None
    return render(request, "answer.html", context, status, headers)


def _home(request: Request, caller: Caller, filled: Filled, problem: Problem | None = None) -> Response:
    service = service_of(request)
    seen = service.catalogue.within(caller.indexes)
    takes_prompts = any(served.conditional for served in seen)
    refused = None
    if problem is not None:
        # The fields as the page has them, in its order.
        shown = {"image": True, "image_url": True, "index": len(seen) > 1, "prompt": takes_prompts}
        fields = {name: name for name, there in shown.items() if there}
        refused = refusal(request, problem, fields, "image_url" if filled.texts.get("image_url") else "image")
    context = {
        "indexes": [index_summary(served, service.screener.status(served.id)) for served in seen],
        "no_index": seen.missing,
        "takes_prompts": takes_prompts,
        "max_prompt": MAX_PROMPT_LENGTH,
        "max_address": MAX_URL_LENGTH,
        "samples": list(service.samples),
        "samples_first": SHOWN_FIRST,
        "samples_note": service.samples.note,
        "max_upload": _megabytes(service.settings.max_upload_bytes, language_of(request)),
        "here": "/",
        "given": filled.texts,
        "problem": refused,
        # The file that was refused isn't chosen again; another is lost where no script keeps it.
        "file_lost": refused is not None and filled.file and refused.at("image") is None,
    }
    headers = {} if problem is None else problem.headers
    return render(request, "home.html", context, 200 if problem is None else problem.kind.status, headers)


def _megabytes(size: int, language: Language) -> str:
    value = size / 1e6
    return language("format.size_mb", value=language.number(value, 0 if value == round(value) else 1))


def _answer_context(service: Service, a: Attribution, language: Language) -> dict[str, Any]:
    served = service.catalogue.reading(a.index)
    return {
        "a": a,
        "headline": wording.headline(a, language),
        "sentences": wording.sentences(a, language),
        "announcement": wording.announcement(a, language),
        "stages": wording.stages(a, language),
        "shares_of": wording.shares_of(a, language),
        "works_title": wording.works_title(a, language),
        "details": wording.details(a, language),
        "declared": wording.declared(a.input.declared, language),
        "takes_prompt": served is not None and served.conditional,
        "max_prompt": MAX_PROMPT_LENGTH,
        "pictures": {} if served is None else _pictures(served, a),
    }


def _pictures(served: ServedIndex, a: Attribution) -> dict[str, Picture]:
    shown = [*(work.work_id for work in a.works or []), *(work.work_id for work in a.lookalikes or [])]
    rows = {work_id: served.index.works.find(work_id) for work_id in shown}
    return {work_id: served.picture(row) for work_id, row in rows.items() if row is not None}
