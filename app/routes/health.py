"""`/healthz`, `/readyz`, `/version`: is it alive, can it answer, what is it."""

import platform
from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse

from app.problems import documented
from app.schemas import Check, Health, Readiness, Version
from app.service import Service, service_of
from jobs.broker import answers as broker_answers
from jobs.errors import StorageError

router = APIRouter(tags=["health"])

DISTRIBUTION = "das-attribution"
LIBRARIES = ("torch", "diffusers", "open_clip_torch", "celery", "fastapi", "sqlalchemy")
NOT_READY: dict[int | str, dict[str, Any]] = {
    503: {"model": Readiness, "description": "What is missing, by part."}
}


@router.get("/healthz", operation_id="getHealth", response_model=Health, responses=documented())
async def healthz() -> Health:
    """Whether the process answers at all. It looks at nothing else; see /readyz."""
    return Health(status="ok")


@router.get(
    "/readyz", operation_id="getReadiness", response_model=Readiness, responses={**documented(), **NOT_READY}
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


def _database(service: Service) -> Check:
    try:
        waiting = service.store.queue_depth()
    except StorageError:
        return Check(ok=False, detail="The database can't be reached; the log says why.")
    return Check(ok=True, detail=f"{waiting} waiting")


def _broker(service: Service) -> Check:
    if broker_answers(service.settings):
        return Check(ok=True, detail="answers")
    return Check(ok=False, detail="The broker doesn't answer; questions are kept and answered once it does.")


def _index(service: Service) -> Check:
    if not len(service.catalogue):
        return Check(ok=False, detail=service.catalogue.missing or "no index")
    loading = [served.id for served in service.catalogue if service.screener.status(served.id) == "loading"]
    if loading:
        return Check(ok=False, detail=f"loading: {', '.join(loading)}")
    failed = [served.id for served in service.catalogue if service.screener.status(served.id) == "failed"]
    names = ", ".join(served.id for served in service.catalogue)
    return Check(ok=True, detail=names + (f"; without look-alikes: {', '.join(failed)}" if failed else ""))


def _worker(service: Service) -> Check:
    try:
        workers = [worker for worker in service.store.workers() if worker.fresh]
    except StorageError:
        return Check(ok=False, detail="not known without the database")
    ready = sum(worker.ready for worker in workers)
    if ready:
        return Check(ok=True, detail=f"{ready} ready")
    if workers:
        return Check(
            ok=False,
            detail=f"{len(workers)} alive, none has loaded its model: {workers[0].info.get('engine')}",
        )
    return Check(ok=False, detail="No worker gives a sign of life; start one with `das worker`.")
