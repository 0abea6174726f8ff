"""A JSON body without a picture: bounded while it arrives, parsed strictly, checked by its model."""

from typing import Any

from pydantic import BaseModel
from python_multipart.multipart import parse_options_header
from starlette.requests import Request

from app.forms import parse_json
from app.problems import Problem
from app.service import Service
from app.uploads import JSON, Asked, parse_as

# A moderator's note is the longest text that has its place in one.
MOST_BYTES = 64 * 1024
REFUSALS = ("malformed-body", "too-slow", "too-large", "unsupported-media-type", "invalid-request", "busy")
"""How such a body may be refused."""


async def small_json(service: Service, request: Request, model: type[Asked]) -> Asked:
    """What a request's body says, as `model`, an empty one as an empty object; raises `Problem`, of `REFUSALS`."""
    media = parse_options_header(request.headers.get("content-type", ""))[0]
    refusal = Problem("too-large", f"This body may have at most {MOST_BYTES // 1024} KB.")
    async with service.bodies.received(request, MOST_BYTES, refusal) as body:
        if body and media != JSON:
            raise Problem("unsupported-media-type", "Send application/json.", {"Accept": "application/json"})
        return parse_as(model, parse_json(body) if body else {})


def json_body(model: type[BaseModel]) -> dict[str, Any]:
    """The OpenAPI `requestBody` of a route that takes this model, which has to stand among the schemas."""
    reference = {"$ref": f"#/components/schemas/{model.__name__}"}
    # An empty body is an empty object, which serves where every field has a default.
    required = any(field.is_required() for field in model.model_fields.values())
    return {"requestBody": {"required": required, "content": {"application/json": {"schema": reference}}}}
