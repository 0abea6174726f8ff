"""Pages from templates, and where a page leads to that needs a key."""

import re
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fastapi.templating import Jinja2Templates
from markupsafe import Markup, escape
from starlette.requests import Request
from starlette.responses import Response

from app import DISTRIBUTION, wording
from app.assets import static_link
from app.footers import about_pictures
from app.language import ENGLISH, LANGUAGES, Language, language_of
from app.problems import Problem
from app.refusals import mistaken
from app.service import service_of
from app.uploads import small_form

HTML_HEADERS = {"Cache-Control": "private, no-cache", "Vary": "Accept, Accept-Language, Cookie"}
# Where a sign-in may lead: a page of this service by its path. Nothing that a browser could take for another host, or
# that could end a header's line, has a place in it.
PAGE = re.compile(r"/(?:[A-Za-z0-9._~-]+(?:/[A-Za-z0-9._~@-]+)*)?")
# What the page's script says itself.
SCRIPT_WORDS = [key.partition(".")[2] for key in ENGLISH.words if key.startswith("script.")]
SIGN_IN = "/sign-in"
ELSEWHERE = ("cross-site", "same-site")

templates = Jinja2Templates(Path(__file__).parent / "templates")
templates.env.filters.update(wording.FILTERS)
templates.env.trim_blocks = templates.env.lstrip_blocks = True
templates.env.globals["static"] = static_link
templates.env.globals["version"] = version(DISTRIBUTION)


def render(
    request: Request,
    name: str,
    context: dict[str, Any],
    status: int = 200,
    headers: dict[str, str] | None = None,
) -> Response:
    """A page from its template."""
    service = service_of(request)
    language = language_of(request)
    shared = {
        "language": language,
        "languages": list(LANGUAGES.values()),
        "t": partial(_words, language),
        "script_words": {key: language.template(f"script.{key}") for key in SCRIPT_WORDS},
        # What a form was posted to is no page to come back to.
        "here": page_of(request.url.path) if request.method == "GET" else "/",
        "max_upload_bytes": service.settings.max_upload_bytes,
        "contact": service.settings.contact,
        "about_pictures": about_pictures(request, service.settings, service.store.keeping, language),
        "signed_in": getattr(request.state, "signed_in", None),
        "operates": getattr(request.state, "operates", False),
    }
    told = {**HTML_HEADERS, "Content-Language": language.code, **(headers or {})}
    return templates.TemplateResponse(request, name, {**shared, **context}, status, told)


def _words(language: Language, key: str, **values: Any) -> Markup:
    """The words of a key for a template: safe as they are, with values that are escaped unless they are markup."""
    template = escape(language.template(key, values.get("n")))
    return template.format(**language.written(values))


def sign_in_page(request: Request, problem: Problem) -> Response:
    """What a browser is shown that asked for a page without being signed in."""
    asked = page_of(request.url.path) if request.method == "GET" else "/"
    # A browser keeps the cookie back from whoever follows a link of another site, and sends it from here.
    came = request.headers.get("sec-fetch-site") in ELSEWHERE
    context = {"following": asked, "once_more": came and request.method == "GET"}
    if problem.code == "key-refused":
        context["problem"] = mistaken("key", language_of(request)("sign_in.unknown"))
    return render(request, "sign-in.html", context, problem.kind.status, problem.headers)


async def is_sure(request: Request) -> bool:
    """Whether a form says that somebody was asked and is sure, by the page's script or by `sure_page`."""
    if "content-type" not in request.headers:
        return False
    return (await small_form(service_of(request), request)).get("sure") == "yes"


def sure_page(request: Request, back: str, deed: str = "answer.delete") -> Response:
    """Ask what a form asks before it is sent, where no script did.

    Args:
        back: where one goes who isn't sure.
        deed: the text of the form's button; the question has the same name with `_sure`.
    """
    return render(
        request,
        "sure.html",
        {"action": request.url.path, "here": back, "deed": deed},
        headers={"Cache-Control": "no-store"},
    )


def base_address(request: Request) -> str:
    """The service's address as people use it."""
    return service_of(request).settings.public_url or str(request.base_url).rstrip("/")


def page_shown(path: str) -> str:
    """The page of this service that a path names, that of a sign-in link too; the first one for anything else."""
    before, signing_in, following = path.partition(f"{SIGN_IN}?next=")
    if signing_in and not before and following == page_of(following) != "/":
        return path
    known = PAGE.fullmatch(path) and not path.startswith(("/sign-out", "/v1/", "/static/"))
    return path if known else "/"


def sign_in_to(following: str) -> str:
    """The page of signing in that leads to another afterwards."""
    return SIGN_IN if following == "/" else f"{SIGN_IN}?next={following}"


def page_of(path: str) -> str:
    """The same where one is led after signing in: no page of signing in itself."""
    return "/" if path.startswith("/sign-") else page_shown(path)


def wants_html(request: Request) -> bool:
    """Whether an error should be a page: a browser's own request, outside the API."""
    return "text/html" in request.headers.get("accept", "") and not request.url.path.startswith("/v1/")
