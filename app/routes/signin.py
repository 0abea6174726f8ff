"""`/sign-in` and `/sign-out`: a browser is let in with a key, or with a link that an operator hands out.

A link is opened by a button, so that whatever looks at addresses ahead of people (mail programs, chats) signs nobody
in. Writes from another site's page are refused by `app.hosts`, so nobody can be signed in as somebody else either.
"""

from fastapi import APIRouter, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import RedirectResponse, Response

from app.access import refuse_keys_in_addresses
from app.language import language_of
from app.middleware import request_id_of
from app.refusals import mistaken
from app.rendering import page_of, render
from app.service import service_of
from app.uploads import small_form
from jobs.audit import Actor
from jobs.credentials import Kind

router = APIRouter(include_in_schema=False)

SEE_OTHER = 303
UNAUTHORISED = 401
# The address of a link is as good as a key. That other sites aren't told of it is said to every page's browser.
NO_TRACE = {"Cache-Control": "no-store"}


@router.get("/sign-in")
async def sign_in_form(request: Request, following: str = Query(default="/", alias="next")) -> Response:
    refuse_keys_in_addresses(request)
    return render(request, "sign-in.html", {"following": page_of(following)})


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
        context = {"following": following, "problem": mistaken("key", said)}
        return render(request, "sign-in.html", context, UNAUTHORISED)
    by = Actor(key.prefix, request_id_of(request))
    await run_in_threadpool(service.store.audit.write, by, "sign-in", key.prefix)
    response = RedirectResponse(following, SEE_OTHER, {"Cache-Control": "no-store"})
    service.sessions.sign_in(request, response, key.id, service.sessions.ends(key.expires_at))
    return response


@router.get("/sign-in/{token}")
async def open_link(request: Request, token: str) -> Response:
    """Where a link leads that an operator handed out."""
    service = service_of(request)
    await service.limiter.request(request, None)
    key = await service.access.by_token(token)
    context: dict[str, str | bool] = {"following": "/"}
    if key is not None and key.kind == Kind.LINK:
        context |= {"said": "link", "token": token}
        return render(request, "sign-in.html", context, headers=NO_TRACE)
    if key is None:
        await run_in_threadpool(service.sign_ins.refused, token, request_id_of(request))
    context |= {"said": "link_dead" if key is None else "is_key", "closed": True}
    return render(request, "sign-in.html", context, UNAUTHORISED, NO_TRACE)


@router.post("/sign-out")
async def sign_out(request: Request) -> Response:
    response = RedirectResponse("/sign-in", SEE_OTHER, {"Cache-Control": "no-store"})
    service_of(request).sessions.sign_out(request, response)
    return response
