"""The web application: `create_app(settings)`. Importing this imports neither torch nor anything as heavy."""

import contextlib
from collections.abc import AsyncIterator
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.responses import Response
from starlette.routing import Match, Route

from app import DISTRIBUTION
from app.batch_examples import BATCHES
from app.batch_schemas import BatchForm, BatchJson, BatchResult
from app.described import without_nulls
from app.descriptions import describe_fields
from app.duties import performing
from app.events import AttributionEvent, ProgressEvent
from app.examples import ANSWERS
from app.hosts import OwnAddressesOnly
from app.intake import storage_problem
from app.key_schemas import KeyRequest, RotationRequest
from app.metrics.meters import Meters
from app.middleware import RequestFrame
from app.moderation.examples import MODERATION
from app.moderation.schemas import (
    Activation,
    BacktestRequest,
    DecisionForm,
    DecisionJson,
    PolicyForm,
    PolicyJson,
    ReviewRequest,
)
from app.openapi_keys import describe_keys
from app.opt_out_schemas import Application, OptOutRequest, Rejection
from app.problems import Problem, ProblemDocument, as_json, from_http_exception, from_validation
from app.rendering import wants_html
from app.routes import (
    attributions,
    audit,
    batches,
    decisions,
    events,
    health,
    indexes,
    keys,
    metrics,
    operating,
    operating_keys,
    operating_requests,
    opt_outs,
    opting_out,
    page,
    policies,
    reading,
    reports,
    shares,
    sharing,
    signin,
    statements,
    webhooks,
)
from app.schemas import AttributionForm, AttributionJson
from app.service import running_service
from app.share_schemas import ShareRequest
from app.uploads import AttributionUrl
from app.webhooks.schemas import EndpointChange, EndpointRequest, SecretRotation
from jobs.errors import StorageError
from jobs.settings import Settings, get_settings
from jobs.tracing import open_tracing

TITLE = "DAS Attribution"
DESCRIPTION = """Which training images does a generated image owe most to?

Send a picture that a diffusion model has made; the answer ranks the works it was trained on by their influence,
measured with the Diffusion Attribution Score. Two numbers are never mixed: *had influence* (`works`) and *looks
similar* (`lookalikes`, `similarity`). What was not measured is `null`.

Errors are problem documents (RFC 9457); see `/problems` for each kind."""
ROUTERS = (
    attributions.router,
    events.router,
    reports.router,
    shares.router,
    statements.router,
    batches.router,
    decisions.router,
    policies.router,
    indexes.router,
    opt_outs.router,
    audit.router,
    keys.router,
    webhooks.router,
    health.router,
    metrics.router,
    page.router,
    opting_out.router,
    reading.router,
    sharing.router,
    signin.router,
    operating.router,
    operating_keys.router,
    operating_requests.router,
)
# Models that routes refer to by name only.
DESCRIBED: tuple[type[BaseModel], ...] = (
    ProblemDocument,
    AttributionForm,
    AttributionJson,
    AttributionUrl,
    BatchForm,
    BatchJson,
    BatchResult,
    AttributionEvent,
    ProgressEvent,
    DecisionForm,
    DecisionJson,
    ReviewRequest,
    PolicyForm,
    PolicyJson,
    Activation,
    BacktestRequest,
    KeyRequest,
    RotationRequest,
    OptOutRequest,
    Application,
    Rejection,
    ShareRequest,
    EndpointRequest,
    EndpointChange,
    SecretRotation,
)
REF_TEMPLATE = "#/components/schemas/{model}"


def create_app(settings: Settings | None = None) -> FastAPI:
    """The application for these settings (default: the environment's). The database has to be up to date."""
    settings = settings or get_settings()
    meters = Meters(open_tracing("das-api"))

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with running_service(settings, meters) as service:
            app.state.service = service
            async with performing(service, here=settings.duties == "here"):
                yield
        await run_in_threadpool(meters.tracing.close)

    app = FastAPI(
        title=TITLE,
        description=DESCRIPTION,
        version=version(DISTRIBUTION),
        lifespan=lifespan,
        # The interactive pages of FastAPI load their scripts from elsewhere; this service asks no third party.
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        middleware=[
            Middleware(RequestFrame, on_error=_unexpected, meters=meters),
            Middleware(OwnAddressesOnly, settings=settings, respond=_respond),
        ],
        exception_handlers={
            Problem: _on_problem,
            RequestValidationError: _on_validation,
            HTTPException: _on_http,
            StorageError: _on_storage,
            OSError: _on_storage,
        },
    )
    app.state.meters = meters
    for router in ROUTERS:
        app.include_router(router)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    return app


def _respond(problem: Problem, request: Request) -> Response:
    return page.as_page(problem, request) if wants_html(request) else as_json(problem, request)


async def _on_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return _respond(error, request)


async def _on_validation(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return _respond(from_validation(error), request)


async def _on_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    problem = from_http_exception(error, request)
    if problem.code == "method-not-allowed":
        problem.headers["Allow"] = _allowed_methods(request)
    return _respond(problem, request)


def _allowed_methods(request: Request) -> str:
    """Every method that the address takes; the exception knows those of the first route only."""
    routes = [route for router in ROUTERS for route in router.routes if isinstance(route, Route)]
    matching = [route for route in routes if route.matches(request.scope)[0] is not Match.NONE]
    return ", ".join(sorted({method for route in matching for method in route.methods or ()}))


async def _on_storage(request: Request, error: Exception) -> Response:
    assert isinstance(error, StorageError | OSError)
    return _respond(storage_problem(error), request)


def _unexpected(request: Request) -> Response:
    """The answer to an exception that nobody expected: nothing of it is told, its trace is in the log."""
    return as_json(Problem("internal-error", "The service failed to answer; its log says why."), request)


def _openapi(app: FastAPI) -> dict[str, Any]:
    """The API's description, with the schemas that routes refer to by name only."""
    if app.openapi_schema is None:
        schema = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes
        )
        _, extra = models_json_schema(
            [(model, "validation") for model in DESCRIBED],
            ref_template=REF_TEMPLATE,
        )
        schemas = schema.setdefault("components", {}).setdefault("schemas", {})
        for name, definition in extra["$defs"].items():
            schemas["Problem" if name == "ProblemDocument" else name] = definition
        schema["components"]["examples"] = {
            name: {"value": value} for name, value in {**ANSWERS, **BATCHES, **MODERATION}.items()
        }
        for path in schema["paths"].values():
            # FastAPI calls whatever isn't JSON a text, beside what its route says of it.
            for answer in (path.get("get") or {"responses": {}})["responses"].values():
                answer.get("content", {}).get(batches.JSON_LINES, {}).get("schema", {}).pop("type", None)
        describe_keys(schema, [route for router in ROUTERS for route in router.routes])
        describe_fields(schema)
        without_nulls(schema)
        app.openapi_schema = schema
    return app.openapi_schema
