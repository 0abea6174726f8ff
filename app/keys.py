"""What can be done with keys and links: the use cases that the API and the operator's page have in common.

Whoever calls them has seen that the caller may administer the service.
"""

from datetime import timedelta

from starlette.concurrency import run_in_threadpool

from app.callers import Caller
from app.key_schemas import KeyRequest, as_span
from app.problems import Problem, invalid
from app.service import Service
from jobs.credentials import Kind
from jobs.errors import KeyNotFound, KeyRefused
from jobs.keys import ApiKey, IssuedKey, NewKey

NO_KEY = "There is no key with this id."


async def create(service: Service, caller: Caller, wanted: KeyRequest, kind: Kind = Kind.KEY) -> IssuedKey:
    """Make a key or link; raises `Problem` invalid-request where it can't be given out like this."""
    for index in wanted.indexes or ():
        if not len(service.catalogue.within(frozenset({index}))):
            raise invalid(
                "indexes", f"there is no index {index!r} here.", "mistake.no_index_named", index=index
            )
    try:
        new = NewKey(
            name=wanted.name,
            kind=kind,
            scopes=frozenset(wanted.scopes),
            indexes=None if wanted.indexes is None else tuple(dict.fromkeys(wanted.indexes)),
            daily_quota=wanted.daily_quota,
            daily_works=wanted.daily_works,
            expires_in=wanted.lifetime,
            rights_holders=tuple(dict.fromkeys(wanted.rights_holders)),
            keep_uploads=as_span(wanted.keep_uploads),
            keep_results=as_span(wanted.keep_results),
        )
    except KeyRefused as error:
        raise invalid(error.field, f"{error}.", f"mistake.{error.reason}" if error.reason else "") from error
    return await run_in_threadpool(service.keys.create, new, caller.actor)


async def rotate(service: Service, caller: Caller, key_id: str, overlap: timedelta) -> IssuedKey:
    """Make a key that replaces another; raises `Problem`: not-found, conflict."""
    try:
        issued = await run_in_threadpool(service.keys.rotate, key_id, overlap, caller.actor)
    except KeyNotFound as error:
        raise Problem("not-found", NO_KEY) from error
    except KeyRefused as error:
        raise Problem("conflict", f"{error}.") from error
    service.access.forget(key_id)
    return issued


async def revoke(service: Service, caller: Caller, key_id: str) -> ApiKey:
    """End a key or link, and every session of it; raises `Problem` not-found."""
    try:
        key = await run_in_threadpool(service.keys.revoke, key_id, caller.actor)
    except KeyNotFound as error:
        raise Problem("not-found", NO_KEY) from error
    service.access.forget(key_id)
    return key
