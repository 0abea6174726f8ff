"""What can be done with opt-outs: the use cases that the API and the page have in common.

Whoever asked sees and withdraws their own: by the key that they asked with, or by the token that they were shown.
Who administers the service sees all of them and says what becomes of each.
"""

from collections.abc import Callable

import numpy as np
from starlette.concurrency import run_in_threadpool

from app.callers import Caller
from app.catalogue import ServedIndex
from app.opt_out_schemas import (
    Application,
    NewlyReceivedOptOut,
    OptOut,
    OptOutLinks,
    OptOutList,
    OptOutQuery,
    OptOutRequest,
)
from app.problems import Problem, bad_parameter, invalid
from app.service import Service
from jobs import opt_outs as stored
from jobs.credentials import Scope
from jobs.errors import BadCursor
from jobs.opt_outs import Hiding, NewOptOut, OptOutNotFound, OptOutRefused, holds_token

NOT_FOUND = "There is no opt-out with this id."


async def ask(service: Service, caller: Caller, asked: OptOutRequest) -> NewlyReceivedOptOut:
    """Receive an opt-out; raises `Problem`: rate-limited, invalid-request, conflict."""
    await service.limiter.opt_out(caller)
    return await run_in_threadpool(_receive, service, caller, asked)


async def look(service: Service, caller: Caller, opt_out_id: str, token: str | None) -> OptOut:
    """One that the caller may see; raises `Problem` not-found."""
    return await run_in_threadpool(lambda: _told(service, _find(service, caller, opt_out_id, token)))


async def listed(service: Service, caller: Caller, query: OptOutQuery) -> OptOutList:
    """A page of the caller's, newest first; of all for who administers the service."""
    owner = None if Scope.ADMIN in caller.scopes else caller.owner
    try:
        page = await run_in_threadpool(
            service.store.opt_outs.list, owner, query.state, query.cursor, query.limit
        )
    except BadCursor as error:
        raise bad_parameter("cursor", f"{error}.") from error
    items = await run_in_threadpool(lambda: [_told(service, row) for row in page.opt_outs])
    return OptOutList(items=items, next_cursor=page.next_cursor)


async def withdraw(service: Service, caller: Caller, opt_out_id: str, token: str | None) -> OptOut:
    """Take an opt-out back; raises `Problem`: not-found, conflict."""

    def change() -> stored.OptOut:
        _find(service, caller, opt_out_id, token)
        return service.store.opt_outs.withdraw(opt_out_id, caller.actor)

    return await _changed(service, change)


async def erase(service: Service, caller: Caller, opt_out_id: str, token: str | None) -> None:
    """Erase contact and statement; raises `Problem` not-found. What is hidden stays hidden."""

    def change() -> stored.OptOut:
        _find(service, caller, opt_out_id, token)
        return service.store.opt_outs.erase(opt_out_id, caller.actor)

    await _changed(service, change)


async def verify(service: Service, caller: Caller, opt_out_id: str) -> OptOut:
    """Say that an opt-out is right, and hide its works; raises `Problem`: not-found, conflict."""
    return await _changed(service, lambda: service.store.opt_outs.verify(opt_out_id, caller.actor))


async def reject(service: Service, caller: Caller, opt_out_id: str, reason: str) -> OptOut:
    """Refuse an opt-out; raises `Problem`: not-found, conflict."""
    return await _changed(service, lambda: service.store.opt_outs.reject(opt_out_id, caller.actor, reason))


async def apply(service: Service, caller: Caller, opt_out_id: str, done: Application) -> OptOut:
    """Say what was done about an opt-out; raises `Problem`: not-found, conflict."""
    return await _changed(
        service,
        lambda: service.store.opt_outs.apply(opt_out_id, caller.actor, done.left_out_at, done.removed_at),
    )


async def _changed(service: Service, change: Callable[[], stored.OptOut]) -> OptOut:
    """Make a change and have what is hidden follow it at once."""

    def both() -> OptOut:
        row = change()
        service.visibility.refresh()
        return _told(service, row)

    try:
        return await run_in_threadpool(both)
    except OptOutNotFound as error:
        raise Problem("not-found", NOT_FOUND) from error
    except OptOutRefused as error:
        raise Problem("conflict", f"{str(error)[:1].upper()}{str(error)[1:]}.") from error


def _receive(service: Service, caller: Caller, asked: OptOutRequest) -> NewlyReceivedOptOut:
    served = service.catalogue.within(caller.indexes).choose(asked.index)
    about = Hiding(served.name, frozenset(asked.works or ()), asked.creator)
    _refuse_unknown(service, caller, served, asked, about)
    wanted = NewOptOut(
        owner=caller.owner,
        index_name=served.name,
        works=None if asked.works is None else list(dict.fromkeys(asked.works)),
        creator=asked.creator,
        contact=asked.contact,
        statement=asked.statement,
        with_token=caller.key is None,
    )
    try:
        received = service.store.opt_outs.create(
            wanted, caller.actor, hide=service.settings.opt_outs_hide == "received"
        )
    except OptOutRefused as error:
        raise Problem("conflict", f"{error}.") from error
    service.visibility.refresh()
    told = _told(service, received.opt_out)
    return NewlyReceivedOptOut(**told.model_dump(), token=received.token)


def _refuse_unknown(
    service: Service, caller: Caller, served: ServedIndex, asked: OptOutRequest, about: Hiding
) -> None:
    """See that the works are there: a misspelt name would be kept, and nothing would ever be hidden by it."""
    known = service.visibility.known_to(caller, served)
    rows = service.visibility.rows_of(served, about)
    if asked.creator is not None:
        if not np.any(known[rows]):
            raise invalid(
                "creator",
                f"{served.name} has no work of this creator: write the name as answers and lists do.",
                "mistake.no_such_creator",
                index=served.name,
            )
        return
    for work_id in asked.works or ():
        row = served.index.works.find(work_id)
        if row is None or not known[row]:
            raise invalid(
                "works", f"{served.name} has no work {work_id}.", "mistake.no_such_work", work=work_id
            )


def _find(service: Service, caller: Caller, opt_out_id: str, token: str | None) -> stored.OptOut:
    row = service.store.opt_outs.get(opt_out_id)
    own = row is not None and caller.owner == row.owner and caller.owner != stored.WITHOUT_KEY
    if row is None or not (
        own or Scope.ADMIN in caller.scopes or (token is not None and holds_token(row, token))
    ):
        raise Problem("not-found", NOT_FOUND)
    return row


def _told(service: Service, row: stored.OptOut) -> OptOut:
    served = next((one for one in service.catalogue if row.index_name in (one.name, one.id)), None)
    matches = None
    if served is not None:
        about = Hiding(row.index_name, frozenset(row.works or ()), row.creator)
        matches = len(service.visibility.rows_of(served, about))
    same = OptOut.model_fields.keys() - {"hidden", "index", "matches", "links"}
    return OptOut.model_validate(
        {
            **{name: getattr(row, name) for name in same},
            "hidden": row.hides,
            "index": row.index_name,
            "matches": matches,
            "links": OptOutLinks(self=f"/v1/opt-outs/{row.id}"),
        }
    )
