"""`/v1/indexes` and `/v1/works`: what can be asked about, and the works in it."""

from functools import partial
from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

from app.answers import approximate_search, index_summary, quality, thumbnail_link
from app.callers import Caller, Reading
from app.catalogue import Catalogue, ServedIndex
from app.index_schemas import ComingVersion, IndexCard, IndexList, IndexSummary, Work, WorkList
from app.language import ENGLISH, Language
from app.problems import Problem, documented
from app.redaction import card_for
from app.service import Service, service_of
from das.answer import HIDDEN_PREFIX
from das.rights.values import Tdm

router = APIRouter(prefix="/v1", tags=["indexes"])

# Its id is made of the file's digest, so what lies there never changes; but what is hidden shall be gone soon.
A_WHILE = "max-age=600"
WITHHELD_WORK = ENGLISH("note.work_withheld")
# Works become free one by one, so that nobody can say when this one is shown.
LOOK_AGAIN_S = 600

WorkId = Annotated[str, Path(description="A work's id.", examples=["w_2c26b46b68ffc68f"], max_length=64)]
IndexId = Annotated[str, Path(examples=["photographs@3f9c2a"], max_length=200)]
InIndex = Annotated[
    str | None,
    Query(
        max_length=200,
        description="Look in the index of this id or name only; default: in all of them, in order.",
    ),
]


@router.get("/indexes", operation_id="listIndexes", response_model=IndexList, responses=documented())
def list_indexes(request: Request, caller: Reading) -> IndexList:
    """The indexes that can be asked. The first one is the default."""
    service = service_of(request)
    return IndexList(items=[_summary(service, served) for served in _seen(service, caller)])


@router.get(
    "/indexes/{index_id}",
    operation_id="getIndex",
    response_model=IndexCard,
    responses=documented("not-found", "invalid-request"),
)
def get_index(
    request: Request,
    caller: Reading,
    index_id: IndexId,
) -> IndexCard:
    """One index with its card: what it was built from and how good it was measured to be."""
    service = service_of(request)
    served = _seen(service, caller).named(index_id)
    if served is None:
        raise Problem("not-found", "There is no such index here.")
    facts = _summary(service, served).model_dump()
    card = card_for(served.index.card, service.visibility.to(caller).of(served))
    manifest = served.index.manifest
    search = approximate_search(manifest.approximate)
    return IndexCard(**facts, approximate=search, card=card, quality=quality(manifest.quality))


@router.get(
    "/indexes/{index_id}/works",
    operation_id="listWorks",
    response_model=WorkList,
    responses=documented("not-found", "invalid-request"),
)
def list_works(
    request: Request,
    caller: Reading,
    index_id: IndexId,
    tdm: Annotated[
        Tdm | Literal["none"] | None,
        Query(description="Only works with this signal on text and data mining; `none`: without any."),
    ] = None,
    cursor: Annotated[
        int | None, Query(ge=0, lt=2**53, description="`next_cursor` of the page before.")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> WorkList:
    """The works of an index that you may see, in its order."""
    service = service_of(request)
    served = _seen(service, caller).named(index_id)
    if served is None:
        raise Problem("not-found", "There is no such index here.")
    view = service.visibility.to(caller)
    rows = served.rows_saying(tdm, cursor or 0, limit + 1, partial(view.shows, served))
    following = str(rows[limit]) if len(rows) > limit else None
    ids = [served.index.works.id_of(row) for row in rows[:limit]]
    allowed = view.allowed(ids)
    items = [
        _work(served, row)
        if work_id in allowed
        else _withheld(served, f"{HIDDEN_PREFIX}{place}", caller.language)
        for place, (row, work_id) in enumerate(zip(rows, ids, strict=False), 1)
    ]
    return WorkList(items=items, next_cursor=following)


@router.get(
    "/works/{work_id}",
    operation_id="getWork",
    response_model=Work,
    responses=documented("not-found", "invalid-request"),
)
def get_work(request: Request, caller: Reading, work_id: WorkId, index: InIndex = None) -> Work:
    """One training work and whose it is."""
    service = service_of(request)
    served, row = _find(service, caller, work_id, index)
    if not service.visibility.to(caller).allowed([work_id]):
        return _withheld(served, work_id, caller.language)
    return _work(served, row)


@router.get(
    "/works/{work_id}/thumbnail",
    operation_id="getWorkThumbnail",
    response_class=Response,
    responses={
        200: {"content": {"image/webp": {}}, "description": "At most 256 pixels a side."},
        304: {"description": "Not changed; it never does."},
        **documented("not-found", "invalid-request", "quota-exhausted"),
    },
)
def get_work_thumbnail(request: Request, caller: Reading, work_id: WorkId, index: InIndex = None) -> Response:
    """A small picture of a work. It never changes, and may be hidden: caches keep it for ten minutes at most."""
    service = service_of(request)
    served, row = _find(service, caller, work_id, index)
    view = service.visibility.to(caller)
    if not view.allowed([work_id]):
        raise Problem("quota-exhausted", WITHHELD_WORK, {"Retry-After": str(LOOK_AGAIN_S)})
    # A cache that many share would hand it on to who has no key, or to whom it would take from a budget.
    restricted = service.visibility.restricted(served, row)
    budgets = view.budget is not None or service.settings.revealed_works_per_day is not None
    only_some = service.settings.keys_required or restricted or budgets
    headers = {"Cache-Control": f"{'private' if only_some else 'public'}, {A_WHILE}", "ETag": f'"{work_id}"'}
    if request.headers.get("if-none-match") == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    if restricted:
        service.store.audit.write(caller.actor, "thumbnail.read", work_id)
    data = served.index.thumbnail(row)
    return Response(data, media_type=served.picture(row).media_type, headers=headers)


def _summary(service: Service, served: ServedIndex) -> IndexSummary:
    coming = service.versions.coming(served.name)
    told = None if coming is None else ComingVersion(id=coming.id, state=coming.state)
    return index_summary(served, service.screener.status(served.id), told)


def _work(served: ServedIndex, row: int) -> Work:
    work = served.work(row)
    return Work(
        work_id=work["id"],
        index=served.id,
        title=work["title"],
        creator=work["creator"],
        rights_holder=work["rights_holder"],
        licence=work["licence"],
        source_url=work["source_url"],
        tdm=work.get("tdm"),
        thumbnail=thumbnail_link(work["id"]),
        exposure=None if served.exposure is None else round(float(served.exposure[row]), 2),
        metadata=served.further_columns(row),
    )


def _withheld(served: ServedIndex, work_id: str, language: Language) -> Work:
    """A work that there is, of which nothing is told for now."""
    nothing = dict.fromkeys(Work.model_fields)
    return Work.model_validate(
        {
            **nothing,
            "work_id": work_id,
            "index": served.id,
            "metadata": {},
            "withheld": language("note.work_withheld"),
        }
    )


def _seen(service: Service, caller: Caller) -> Catalogue:
    return service.catalogue.within(caller.indexes)


def _find(service: Service, caller: Caller, work_id: str, index_id: str | None) -> tuple[ServedIndex, int]:
    found = _seen(service, caller).find_work(work_id, index_id)
    if found is None or not service.visibility.to(caller).shows(*found):
        raise Problem("not-found", "There is no such work in the indexes here.")
    return found
