"""`/sign-in`, `/sign-out`, `/signed-in`: a browser is let in with a key, or with a link that an operator hands out.

A link is opened by a button, so that whatever looks at addresses ahead of people (mail programs, chats) signs nobody
in. Writes from another site's page are refused by `app.hosts`, so nobody can be signed in as somebody else either.
"""

from fastapi import APIRouter, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import RedirectResponse, Response

from app.access import refuse_keys_in_addresses
from app.callers import caller_of, key_required
from app.language import language_of
from app.middleware import request_id_of
from app.refusals import mistaken
from app.rendering import is_sure, page_of, render, sign_in_to, sure_page
from app.service import Service, service_of
from app.sessions import Shown
from app.uploads import small_form
from jobs.audit import Actor
from jobs.credentials import Kind, Scope
from jobs.keys import ApiKey

router = APIRouter(include_in_schema=False)

SEE_OTHER = 303
UNAUTHORISED = 401
# The address of a link is as good as a key. That other sites aren't told of it is said to every page's browser.
NO_TRACE = {"Cache-Control": "no-store"}
NOT_SIGNED_IN = "Nobody is signed in here."


@router.get("/sign-in")
async def sign_in_form(request: Request, following: str = Query(default="/", alias="next")) -> Response:
    refuse_keys_in_addresses(request)
    following = page_of(following)
    return render(request, "sign-in.html", {"following": following, "here": sign_in_to(following)})


@router.post("/sign-in")
async def sign_in(request: Request) -> Response:
    service = service_of(request)
    await service.limiter.request(request, None)
    form = await small_form(service, request)
    following = page_of(form.get("next", "/"))
    shown = form.get("key", "").strip()
    key = await service.access.by_token(shown)
    if key is None:
        await run_in_threadpool(service.sign_ins.refused, shown, request_id_of(request))
        said = language_of(request)("sign_in.unknown" if shown else "sign_in.missing")
        context = {"following": following, "here": sign_in_to(following), "problem": mistaken("key", said)}
        return render(request, "sign-in.html", context, UNAUTHORISED)
    if following == "/" and Scope.READ not in key.scopes and Scope.ADMIN in key.scopes:
        # Who does nothing but run the service has nothing to do on the first page.
        following = "/operator"
    response = RedirectResponse(following, SEE_OTHER, NO_TRACE)
    by = Actor(key.prefix, request_id_of(request))
    await service.sessions.sign_in(request, response, key, by)
    return response


@router.get("/sign-in/{token}")
async def open_link(request: Request, token: str) -> Response:
    """Where a link leads that an operator handed out."""
    service = service_of(request)
    await service.limiter.request(request, None)
    key = await service.access.by_token(token)
    context: dict[str, str | bool] = {"following": "/"}
    if key is not None and key.kind == Kind.LINK:
        # The page has the link in it anyway; one in which it isn't stays without.
        context |= {"said": "link", "token": token, "here": request.url.path}
        return render(request, "sign-in.html", context, headers=NO_TRACE)
    if key is None:
        await run_in_threadpool(service.sign_ins.refused, token, request_id_of(request))
    context |= {"said": "link_dead" if key is None else "is_key", "closed": True}
    return render(request, "sign-in.html", context, UNAUTHORISED, NO_TRACE)


@router.get("/signed-in")
async def signed_in(request: Request) -> Response:
    """Where the key of who is signed in is signed in, and the way out of all of it."""
    service = service_of(request)
    key, shown = await _who(service, request)
    context = {
        "rows": await run_in_threadpool(service.store.sessions.of, key.id),
        "current": shown.digest,
        "name": key.name,
        "prefix": key.prefix,
    }
    return render(request, "signed-in.html", context, headers=NO_TRACE)


@router.post("/sign-out")
async def sign_out(request: Request) -> Response:
    """End what this browser is signed in by. Who isn't signed in is led to the same page."""
    service = service_of(request)
    await service.limiter.request(request, None)
    response = RedirectResponse("/sign-in", SEE_OTHER, NO_TRACE)
    shown = service.sessions.shown(request)
    key = None if shown is None else await run_in_threadpool(service.keys.find, shown.key_id)
    if key is None:
        service.sessions.forget_cookie(request, response)
    else:
        by = Actor(key.prefix, request_id_of(request))
        await service.sessions.sign_out(request, response, key.prefix, by)
    return response


@router.post("/sign-out/everywhere")
async def sign_out_everywhere(request: Request) -> Response:
    """End every session of the key that this browser is signed in with."""
    service = service_of(request)
    key, _shown = await _who(service, request)
    if not await is_sure(request):
        return sure_page(request, "/signed-in", "signed_in.everywhere")
    await service.sessions.end_all(key, Actor(key.prefix, request_id_of(request)))
    response = RedirectResponse("/sign-in", SEE_OTHER, NO_TRACE)
    service.sessions.forget_cookie(request, response)
    return response


async def _who(service: Service, request: Request) -> tuple[ApiKey, Shown]:
    """The key and session of who is signed in; raises `Problem` key-required or cross-site."""
    await caller_of(request)
    shown = await service.sessions.of(request)
    key = None if shown is None else await service.access.by_id(shown.key_id)
    if shown is None or key is None or "authorization" in request.headers:
        raise key_required(NOT_SIGNED_IN)
    return key, shown
