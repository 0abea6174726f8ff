"""What who runs the service is shown of it: counts, states, reasons and ids, and nothing of what people asked.

What can be done there is what the API's own use cases do; here is only what the pages read. The functions that take a
`Service` block.
"""

import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode, urlsplit

from starlette.requests import Request
from starlette.responses import Response

from app.callers import Caller
from app.keys import NO_KEY
from app.language import Language
from app.problems import Problem, bad_parameter
from app.refusals import refusal
from app.rendering import render
from app.service import Service
from jobs.broker import running_server
from jobs.credentials import ID, Scope
from jobs.errors import BadCursor, StorageError
from jobs.keys import ApiKey
from jobs.masking import masked
from jobs.models import LOCAL_OWNER, WorkerInfo, utc_now
from jobs.overview import JobLine, Overview
from jobs.retention import Retention
from jobs.workers import OVERSIZED

NO_STORE = {"Cache-Control": "no-store"}
SEE_OTHER = 303
# The pages by their addresses below /operator, as the ways between them have them.
PLACES = ("", "jobs", "workers", "webhooks", "opt-outs", "keys", "audit", "storage")
A_DAY = timedelta(days=1)
A_WEEK = timedelta(days=7)
# Pictures whose sizes are added up; more take too long for a page.
PICTURES_MEASURED = 20_000
# Its sentence has the beginning of an exception, which may quote what was asked.
UNTOLD = "internal-error"


@dataclass(frozen=True)
class Whose:
    """An owner as the pages name one: a key by its name and public part; the words of `operator.nobody` for none."""

    key_id: str | None
    name: str | None
    prefix: str | None


@dataclass(frozen=True)
class Tile:
    """One part of the service on the first page. `wrong`: somebody should look."""

    place: str
    lines: list[str]
    wrong: bool = False


def shown(
    request: Request,
    place: str,
    context: Mapping[str, Any],
    problem: Problem | None = None,
    *,
    template: str | None = None,
    status: int = 200,
    fields: Mapping[str, str] | None = None,
) -> Response:
    """One of the operator's pages, with what was refused on it; `fields` as `app.refusals.refusal` takes them."""
    told = {
        "places": PLACES,
        "place": place,
        "problem": None if problem is None else refusal(request, problem, fields),
        **context,
    }
    if request.method != "GET":
        told["here"] = f"/operator/{place}"
    headers = NO_STORE if problem is None else {**NO_STORE, **problem.headers}
    name = template or f"operator-{place or 'overview'}.html"
    return render(request, name, told, status if problem is None else problem.kind.status, headers)


def older(place: str, cursor: str | None, **filters: str | None) -> str | None:
    """The address of a list's next page; None at its end."""
    if cursor is None:
        return None
    given = {name: value for name, value in filters.items() if value}
    return f"/operator/{place}?{urlencode({**given, 'cursor': cursor})}"


def no_cursor(error: BadCursor) -> Problem:
    """The refusal of a cursor that is none."""
    return bad_parameter("cursor", f"{error}.")


def whose(service: Service, owners: Iterable[str]) -> dict[str, Whose]:
    """Who these owners are."""
    wanted = set(owners)
    keys = service.keys.of_owners(wanted) if wanted else {}
    return {
        owner: Whose(keys[owner].id, keys[owner].name, keys[owner].prefix)
        if owner in keys
        else Whose(None, None, None if owner == LOCAL_OWNER else owner)
        for owner in wanted
    }


def overview(service: Service, language: Language) -> list[Tile]:
    """Every part in a few lines."""
    looks, store = Overview(service.store.database), service.store
    queue, ended = looks.queue(), looks.ended_since(utc_now() - A_DAY)
    workers = store.workers.known()
    ready, lost = sum(one.ready for one in workers), sum(not one.fresh for one in workers)
    webhooks, failed = (
        store.webhook_deliveries.outstanding(),
        store.webhook_deliveries.failed_since(utc_now() - A_DAY),
    )
    disabled, opt_outs = store.webhook_endpoints.disabled(), store.opt_outs.waiting()
    keys, signed_in = service.keys.count("active"), store.sessions.count()
    disk = shutil.disk_usage(service.settings.data_dir)
    last = store.audit.list(limit=1).events
    words = language
    return [
        Tile(
            "jobs",
            [
                words(
                    "operator.tile_queue",
                    waiting=words.whole(queue.waiting),
                    running=words.whole(queue.running),
                ),
                words(
                    "operator.tile_ended", done=words.whole(ended.succeeded), failed=words.whole(ended.failed)
                ),
            ],
            ended.failed > 0,
        ),
        Tile(
            "workers",
            [words("operator.tile_ready", n=ready), *([words("operator.tile_lost", n=lost)] if lost else [])],
            ready == 0,
        ),
        Tile(
            "webhooks",
            [
                words(
                    "operator.tile_pending", pending=words.whole(webhooks.pending), failed=words.whole(failed)
                ),
                words("operator.tile_disabled", n=disabled),
            ],
            failed > 0 or disabled > 0,
        ),
        Tile("opt-outs", [words("operator.tile_opt_outs", n=opt_outs)], opt_outs > 0),
        Tile("keys", [words("operator.tile_keys", n=keys), words("operator.tile_signed_in", n=signed_in)]),
        Tile("audit", [words("operator.tile_audit", moment=words.moment(last[0].at))] if last else []),
        Tile(
            "storage",
            [words("operator.tile_storage", free=words.size(disk.free), size=words.size(disk.total))],
            disk.free < disk.total / 20,
        ),
    ]


def jobs(service: Service, caller: Caller, state: str, key: str | None, cursor: str | None) -> dict[str, Any]:
    """The queue, what ended within a day, and a page of questions; raises `Problem` for a cursor that is none."""
    looks = Overview(service.store.database)
    queue = looks.queue()
    states = {"open": ("queued", "running"), "all": None}.get(state, (state,))
    owner = _owner(service, key)
    try:
        page = looks.jobs(states, owner, cursor)
    except BadCursor as error:
        raise no_cursor(error) from error
    return {
        "queue": queue,
        "limit": service.settings.queue_limit,
        "takes_s": service.store.pace.seconds_for(queue.waiting + queue.running),
        "one_s": service.store.pace.seconds_for(1),
        "ended": looks.ended_since(utc_now() - A_DAY),
        "jobs": page.jobs,
        "reasons": {job.id: reason(job, caller) for job in page.jobs},
        "own": caller.owner if Scope.ASK in caller.scopes else None,
        "whose": whose(service, [*(job.owner for job in page.jobs), *(one.owner for one in queue.owners)]),
        "state": state,
        "key": key or "",
        "older": older("jobs", page.next_cursor, state=state, key=key),
    }


def reason(job: JobLine, caller: Caller) -> str | None:
    """Why a question failed, as far as it may be told."""
    if job.error is None:
        return None
    code, message = str(job.error.get("code", "")), str(job.error.get("message", ""))
    return code if code == UNTOLD and job.owner != caller.owner else f"{message} ({code})"


def workers(service: Service) -> dict[str, Any]:
    """The workers and what each is at; the broker."""
    known = service.store.workers.known()
    at: dict[str, list[JobLine]] = {}
    for job in Overview(service.store.database).running():
        at.setdefault(job.leased_by or "", []).append(job)
    return {
        "workers": [(one, _state(one), _troubles(one), at.pop(one.id, [])) for one in known],
        "others": at,
        "broker": running_server(service.settings),
        "served": [served.id for served in service.catalogue],
    }


def _state(worker: WorkerInfo) -> str:
    if not worker.fresh:
        return "silent"
    return "ready" if worker.ready else str(worker.info.get("engine", "loading"))


def _troubles(worker: WorkerInfo) -> list[str]:
    """What went wrong in it, without what its sentences may hold of secrets."""
    error = worker.info.get("error")
    refused = worker.info.get("refused") or {}
    said = [*([str(error)] if error else []), *(f"{name}: {why}" for name, why in refused.items())]
    said += [f"{OVERSIZED.format(index=index_id)}." for index_id in worker.info.get("oversized") or ()]
    return [masked(sentence) for sentence in said]


def storage(service: Service) -> dict[str, Any]:
    """Where everything lies, how large it is, and what goes next."""
    settings, store = service.settings, service.store
    disk, now = shutil.disk_usage(settings.data_dir), utc_now()
    retention = Retention(store, service.batches)
    try:
        blobs = store.blobs.size(PICTURES_MEASURED)
    except StorageError:
        # The page is what one looks at then; the log has the reason as well.
        blobs = (0, 0, False)
    return {
        "data_dir": str(settings.data_dir.resolve()),
        "disk": disk,
        "database": store.database.size(),
        "dialect": store.database.engine.dialect.name,
        "blobs": blobs,
        "elsewhere": urlsplit(settings.resolved_blob_url).scheme not in ("", "file"),
        "due": [("day", retention.due(now + A_DAY)), ("week", retention.due(now + A_WEEK))],
        "audit_days": int(settings.keep_audit_seconds // A_DAY.total_seconds()),
        "indexes": [
            (served.id, len(served), sum(record.bytes for record in served.index.manifest.files.values()))
            for served in service.catalogue
        ],
        "broken": service.catalogue.broken,
        "coming": service.versions.all_coming,
    }


def host_of(url: str) -> str:
    """Where a webhook goes, without what may be secret in its address."""
    try:
        parts = urlsplit(url)
        return f"{parts.scheme}://{parts.hostname}" + (f":{parts.port}" if parts.port else "")
    except ValueError:
        return "?"


def sign_in_address(request: Request, service: Service, secret: str) -> str:
    """Where a link leads, under the name by which people reach the service."""
    return f"{(service.settings.public_url or str(request.base_url)).rstrip('/')}/sign-in/{secret}"


def _owner(service: Service, key: str | None) -> str | None:
    """Whose questions a filter means; raises `Problem` not-found where there is no such key."""
    if not key:
        return None
    if key == LOCAL_OWNER:
        return LOCAL_OWNER
    return found_key(service, key).owner


def found_key(service: Service, key_id: str) -> ApiKey:
    """A key by its id; raises `Problem` not-found."""
    # What isn't an id was never given, and a database may choke on it.
    key = service.keys.find(key_id) if re.fullmatch(ID, key_id) else None
    if key is None:
        raise Problem("not-found", NO_KEY)
    return key
