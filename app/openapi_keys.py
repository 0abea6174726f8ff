"""What the API's description says of keys: the scheme, and for each route its scope and how it may refuse one."""

from collections.abc import Iterator
from typing import Any

from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute

from app.callers import Needs, NeedsOrComesWithout
from app.problems import document
from jobs.credentials import Scope

SCHEME = "key"
SCHEMES = {
    SCHEME: {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "das_…",
        "description": "An API key (`das keys create`). A service that listens on its own machine alone takes"
        " requests without one, except for what takes the scope `admin`.",
    }
}
REFUSALS = ("key-in-address", "key-required", "key-refused", "scope-missing", "rate-limited")


def scopes_of(dependant: Dependant) -> Iterator[Scope]:
    """The scopes that a route's dependencies ask for."""
    for dependency in dependant.dependencies:
        if isinstance(dependency.call, Needs | NeedsOrComesWithout):
            yield dependency.call.scope
        yield from scopes_of(dependency)


def describe_keys(schema: dict[str, Any], routes: list[BaseRoute]) -> None:
    """Add to an OpenAPI document what its routes ask of keys."""
    schema["components"]["securitySchemes"] = SCHEMES
    for route in routes:
        if not isinstance(route, APIRoute) or not route.include_in_schema:
            continue
        scopes = sorted(set(scopes_of(route.dependant)))
        for method in (route.methods or ()) if scopes else ():
            operation = schema["paths"][route.path_format][method.lower()]
            without: list[dict[str, Any]] = [] if Scope.ADMIN in scopes else [{}]
            operation["security"] = [{SCHEME: scopes}, *without]
            document(operation["responses"], REFUSALS, str)
