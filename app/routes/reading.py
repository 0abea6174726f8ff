"""Pages to read: the indexes with their cards, and how the API is asked."""

from functools import cache
from typing import TYPE_CHECKING

from fastapi import APIRouter, Request
from markupsafe import Markup
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from app.answers import index_summary
from app.callers import Reading
from app.problems import Problem
from app.redaction import card_for
from app.rendering import base_address, render
from app.service import service_of

if TYPE_CHECKING:
    from markdown_it import MarkdownIt

router = APIRouter(include_in_schema=False)

# The page itself has the first heading.
DEEPEST = 6


@router.get("/indexes")
async def index_list(request: Request, caller: Reading) -> Response:
    """The indexes that can be asked."""
    service = service_of(request)
    seen = service.catalogue.within(caller.indexes)
    indexes = [index_summary(served, service.screener.status(served.id)) for served in seen]
    return render(request, "indexes.html", {"indexes": indexes, "no_index": seen.missing})


@router.get("/indexes/{index_id}")
async def index_page(request: Request, caller: Reading, index_id: str) -> Response:
    """One index, with its card."""
    service = service_of(request)
    served = service.catalogue.within(caller.indexes).find(index_id)
    if served is None:
        raise Problem("not-found", "There is no such index here.")
    shade = service.visibility.to(caller).of(served)
    card = await run_in_threadpool(lambda: as_html(card_for(served.index.card, shade) or ""))
    context = {"index": index_summary(served, service.screener.status(served.id)), "card": card}
    return render(request, "index.html", context)


@router.get("/api")
async def api_page(request: Request) -> Response:
    """How the API is asked, in ten lines."""
    return render(request, "api.html", {"address": base_address(request)})


def as_html(card: str) -> Markup:
    """A card in Markdown as markup, its headings one level below the page's."""
    reader = _reader()
    tokens = reader.parse(card)
    for token in tokens:
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{min(int(token.tag[1:]) + 1, DEEPEST)}"
    return Markup(reader.renderer.render(tokens, reader.options, {}))


@cache
def _reader() -> "MarkdownIt":
    """What reads cards: nothing in one becomes markup of its own, and no picture is loaded from elsewhere."""
    # Few processes show a card; all of them would hold the module.
    from markdown_it import MarkdownIt

    return MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
