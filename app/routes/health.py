"""`/healthz`, `/readyz`, `/version`: is it alive, can it answer, what is it."""

import platform
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse

from app import DISTRIBUTION
from app.callers import caller_of
from app.problems import Problem, documented
from app.schemas import Check, Health, Readiness, Version
from app.service import Service, service_of
from jobs.broker import running_server
from jobs.errors import StorageError
from jobs.masking import masked
from jobs.models import WorkerInfo
from jobs.workers import OVERSIZED

router = APIRouter(tags=["health"])

LIBRARIES = ("torch", "diffusers", "open_clip_torch", "celery", "fastapi", "sqlalchemy")
COMING = {
    "opening": "is being checked and opened",
    "waiting": "is opened and not served yet",
    "refused": "is refused",
}
NOT_READY: dict[int | str, dict[str, Any]] = {
    503: {"model": Readiness, "description": "What is missing, by part."}
}


@router.get("/healthz", operation_id="getHealth", response_model=Health, responses=documented(any_host=True))
async def healthz() -> Health:
    """Whether the process answers at all. It looks at nothing else; see /readyz."""
    return Health(status="ok")


@router.get(
    "/readyz",
    operation_id="getReadiness",
    response_model=Readiness,
    responses={**documented(any_host=True), **NOT_READY},
)
async def readyz(request: Request) -> JSONResponse:
    """Whether a question would be answered: database, broker, an index loaded, a worker alive."""
    service = service_of(request)
    checks = {
        "database": await run_in_threadpool(_database, service),
        "broker": await run_in_threadpool(_broker, service),
        "index": _index(service),
        "worker": await run_in_threadpool(_worker, service),
    }
    if not await _may_be_told_why(request):
        # Names of indexes and places of files are for those who have a key.
        checks = {name: Check(ok=check.ok, detail=_short(check.ok)) for name, check in checks.items()}
    readiness = Readiness(ready=all(check.ok for check in checks.values()), checks=checks)
    headers = {"Cache-Control": "no-store"}
    if readiness.ready:
        return JSONResponse(readiness.model_dump(), 200, headers)
    return JSONResponse(readiness.model_dump(), 503, {**headers, "Retry-After": "2"})


@router.get("/version", operation_id="getVersion", response_model=Version, responses=documented())
def get_version() -> Version:
    """Which version of the service this is, and of the libraries that its numbers rest on."""
    return Version(
        name=DISTRIBUTION,
        version=version(DISTRIBUTION),
        python=platform.python_version(),
        libraries={name: version(name) for name in LIBRARIES},
    )


async def _may_be_told_why(request: Request) -> bool:
    try:
        await caller_of(request)
    except (Problem, StorageError):
        return False
    return True


def _short(ok: bool) -> str:
    return "well" if ok else "not well; the log says why, and so does this address with a key"


def _database(service: Service) -> Check:
    try:
        waiting = service.store.queue_depth()
    except StorageError:
        return Check(ok=False, detail="The database can't be reached; the log says why.")
    return Check(ok=True, detail=f"{waiting} waiting")


def _broker(service: Service) -> Check:
    server = running_server(service.settings)
    if server is not None:
        return Check(ok=True, detail=f"{server} answers")
    return Check(ok=False, detail="The broker doesn't answer; questions are kept and answered once it does.")


def _index(service: Service) -> Check:
    if not len(service.catalogue):
        return Check(ok=False, detail=service.catalogue.missing or "no index")
    loading = [served.id for served in service.catalogue if service.screener.status(served.id) == "loading"]
    if loading:
        return Check(ok=False, detail=f"loading: {', '.join(loading)}")
    failed = [served.id for served in service.catalogue if service.screener.status(served.id) == "failed"]
    parts = [", ".join(served.id for served in service.catalogue)]
    if failed:
        parts.append(f"without look-alikes: {', '.join(failed)}")
    parts += [f"without {name}: {reason}" for name, reason in service.catalogue.broken.items()]
    for coming in service.versions.all_coming:
        parts.append(f"{coming.id} {COMING[coming.state]}" + (f": {coming.detail}" if coming.detail else ""))
    return Check(ok=True, detail="; ".join(parts))


def _worker(service: Service) -> Check:
    try:
        workers = [worker for worker in service.store.workers.known() if worker.fresh]
    except StorageError:
        return Check(ok=False, detail="not known without the database")
    ready = [worker for worker in workers if worker.ready]
    if not workers:
        return Check(ok=False, detail="No worker gives a sign of life; start one with `das worker`.")
    told = f"{len(ready)} ready" if ready else f"{len(workers)} alive, none has loaded its model"
    return Check(ok=bool(ready), detail="; ".join([told, *dict.fromkeys(_troubles(workers))]))


def _troubles(workers: Sequence[WorkerInfo]) -> Iterator[str]:
    """What workers are loading and what failed, in words."""
    for worker in workers:
        if worker.info.get("engine") == "loading" or worker.info.get("loading"):
            yield f"loading {worker.info.get('loading', 'its model')}"
        if worker.info.get("error"):
            yield f"failed: {masked(str(worker.info['error']))}"
        for index_id in worker.info.get("oversized") or ():
            yield OVERSIZED.format(index=index_id)
        for name, reason in (worker.info.get("failed") or {}).items():
            yield f"without {name}: {masked(str(reason))}"
