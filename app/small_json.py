"""A JSON body without a picture: bounded while it arrives, parsed strictly, checked by its model."""

from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from python_multipart.multipart import parse_options_header
from starlette.requests import Request

from app.forms import parse_json
from app.problems import FieldProblem, Problem, json_pointer
from app.service import Service

MOST_BYTES = 64 * 1024
REPORTED = 20
REFUSALS = ("malformed-body", "too-slow", "too-large", "unsupported-media-type", "invalid-request", "busy")
"""How such a body may be refused."""

Model = TypeVar("Model", bound=BaseModel)


async def small_json(service: Service, request: Request, model: type[Model]) -> Model:
    """What a request's body says, as `model`; raises `Problem`, one of `REFUSALS`."""
    media = parse_options_header(request.headers.get("content-type", ""))[0]
    if media != b"application/json":
        raise Problem("unsupported-media-type", "Send application/json.", {"Accept": "application/json"})
    refusal = Problem("too-large", f"This body may have at most {MOST_BYTES // 1024} KB.")
    async with service.bodies.received(request, MOST_BYTES, refusal) as body:
        fields = parse_json(body)
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)[:REPORTED]
        problems = [
            FieldProblem(detail=_sentence(item, model), pointer=json_pointer(*map(str, item["loc"])))
            for item in found
        ]
        first = problems[0]
        where = (first.pointer or "/")[1:]
        raise Problem("invalid-request", f"{where}: {first.detail}", errors=problems) from error


def json_body(model: type[BaseModel]) -> dict[str, Any]:
    """The OpenAPI `requestBody` of a route that takes this model, which has to stand among the schemas."""
    reference = {"$ref": f"#/components/schemas/{model.__name__}"}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": reference}}}}


def _sentence(item: Any, model: type[BaseModel]) -> str:
    if item["type"] == "extra_forbidden":
        return f"is not a field of this request; there are {', '.join(model.model_fields)}."
    return str(item["msg"]).removeprefix("Value error, ")
