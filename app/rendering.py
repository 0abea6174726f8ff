"""Pages from templates, and where a page leads to that needs a key."""

import re
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fastapi.templating import Jinja2Templates
from starlette.requests import Request
from starlette.responses import Response

from app import DISTRIBUTION, wording
from app.assets import static_link
from app.problems import Problem
from app.service import service_of

HTML_HEADERS = {"Cache-Control": "private, no-cache", "Vary": "Accept, Cookie"}
# Where a sign-in may lead: a page of this service by its path. Nothing that a browser could take for another host, or
# that could end a header's line, has a place in it.
PAGE = re.compile(r"/(?:[A-Za-z0-9._~-]+(?:/[A-Za-z0-9._~-]+)*)?")
ELSEWHERE = ("cross-site", "same-site")
SIGN_IN = "Enter your key, or open the link that you were given once more."

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
    shared = {
        "max_upload_bytes": service.settings.max_upload_bytes,
        "stays_here": not urlsplit(service.settings.resolved_blob_url).netloc,
        "signed_in": getattr(request.state, "signed_in", None),
    }
    return templates.TemplateResponse(
        request, name, {**shared, **context}, status, {**HTML_HEADERS, **(headers or {})}
    )


def sign_in_page(request: Request, problem: Problem) -> Response:
    """What a browser is shown that asked for a page without being signed in."""
    asked = page_of(request.url.path) if request.method == "GET" else "/"
    # A browser keeps the cookie back from whoever follows a link of another site, and sends it from here.
    came = request.headers.get("sec-fetch-site") in ELSEWHERE
    context = {"detail": SIGN_IN, "following": asked, "once_more": came and request.method == "GET"}
    if problem.code == "key-refused":
        context["problem"] = problem.detail
    return render(request, "sign-in.html", context, problem.kind.status, problem.headers)


def page_of(path: str) -> str:
    """The page of this service that a path names; the first one for anything else."""
    known = PAGE.fullmatch(path) and not path.startswith(("/sign-", "/v1/", "/static/"))
    return path if known else "/"
