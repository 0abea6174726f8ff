"""`/v1/policies`: rules by version, which of them decides, and how another would have decided."""

from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query, Request
from pydantic import BaseModel
from starlette.responses import Response

from app import backtests, policies
from app.callers import Deciding, Reading
from app.moderation.examples import POLICY, POLICY_DOCUMENT
from app.moderation.schemas import (
    MAX_VERSION,
    Activation,
    Backtest,
    BacktestRequest,
    PolicyCard,
    PolicyList,
)
from app.problems import documented
from app.service import service_of
from app.small_json import small_json

router = APIRouter(prefix="/v1/policies", tags=["moderation"])

PolicyId = Annotated[str, Path(description="The policy's own id.", examples=[POLICY["id"]], max_length=64)]
WRITES = ("malformed-body", "cross-site", "too-slow", "too-large", "unsupported-media-type", "invalid-request",
          "busy", "storage-unavailable", "storage-full")  # fmt: skip


def _answer(example: str, description: str) -> dict[str, Any]:
    examples = {example: {"$ref": f"#/components/examples/{example}"}}
    return {"description": description, "content": {"application/json": {"examples": examples}}}


def _body(
    schema: str, example: dict[str, Any], form: str | None = None, *, required: bool = True
) -> dict[str, Any]:
    content: dict[str, Any] = {
        "application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}, "example": example}
    }
    if form is not None:
        content["multipart/form-data"] = {"schema": {"$ref": f"#/components/schemas/{form}"}}
    return {"requestBody": {"required": required, "content": content}}


@router.post(
    "",
    operation_id="putPolicy",
    status_code=201,
    response_model=PolicyCard,
    responses={
        201: {
            **_answer("policy", "A new version is kept."),
            "headers": {"Location": {"description": "Where the policy is.", "schema": {"type": "string"}}},
        },
        200: {
            **_answer("policy", "The newest version says just that; it decides, or is tried, as was asked."),
            "model": PolicyCard,
        },
        **documented("conflict", *WRITES),
    },
    openapi_extra=_body("PolicyJson", {"policy": POLICY_DOCUMENT, "dry_run": True}, "PolicyForm"),
)
async def put_policy(
    request: Request,
    caller: Deciding,
    # Told here because openapi-python-client makes a module that can't be imported of an operation that takes one of
    # two bodies and no parameter that may be left out.
    _accept_language: Annotated[
        str | None,
        Header(
            alias="Accept-Language",
            description="In which language the titles of errors are told: en, de, fr.",
        ),
    ] = None,
) -> Response:
    """Keep a policy, or a new version of it, and have it decide; with `dry_run`, try it beside the active one."""
    service = service_of(request)
    policy, dry_run = await policies.received(service, request)
    card, new = await policies.put(service, caller, policy, dry_run=dry_run)
    return _json(card, 201 if new else 200, {"Location": card.links.self} if new else {})


@router.get(
    "",
    operation_id="listPolicies",
    response_model=PolicyList,
    responses=documented("storage-unavailable"),
)
async def list_policies(request: Request, caller: Reading) -> Response:
    """All policies, by id."""
    return _json(await policies.listed(service_of(request), caller))


@router.get(
    "/{policy_id}",
    operation_id="getPolicy",
    response_model=PolicyCard,
    responses={
        200: _answer("policy", "The policy with one version's rules."),
        **documented("not-found", "invalid-request", "storage-unavailable"),
    },
)
async def get_policy(
    request: Request,
    caller: Reading,
    policy_id: PolicyId,
    version: Annotated[
        int | None,
        Query(ge=1, le=MAX_VERSION, description="Show this one; default: the active, or else the newest."),
    ] = None,
) -> Response:
    """A policy: its rules, what they say in words, and all its versions."""
    return _json(await policies.card(service_of(request), caller, policy_id, version))


@router.post(
    "/{policy_id}/activate",
    operation_id="activatePolicy",
    response_model=PolicyCard,
    responses={
        200: _answer("policy", "The policy as it stands now."),
        **documented("not-found", *WRITES),
    },
    openapi_extra=_body("Activation", {"version": 1}),
)
async def activate_policy(request: Request, caller: Deciding, policy_id: PolicyId) -> Response:
    """Have a version decide from now on, an older one too; decisions that were begun keep theirs."""
    service = service_of(request)
    said = await small_json(service, request, Activation)
    return _json(await policies.activate(service, caller, policy_id, said.version, dry_run=said.dry_run))


@router.post(
    "/{policy_id}/backtest",
    operation_id="backtestPolicy",
    response_model=Backtest,
    responses={
        200: _answer("backtest", "One page of the comparison. Nothing is changed by it."),
        **documented("not-found", "conflict", *WRITES),
    },
    openapi_extra=_body("BacktestRequest", {"version": 1, "against": "active"}, required=False),
)
async def backtest_policy(request: Request, caller: Deciding, policy_id: PolicyId) -> Response:
    """Hold a version against the active one over stored answers, or against what people said of decisions."""
    service = service_of(request)
    asked = await small_json(service, request, BacktestRequest)
    spoken = {"Vary": "Accept-Language", "Content-Language": caller.language.code}
    return _json(await backtests.run(service, caller, policy_id, asked), headers=spoken)


def _json(model: BaseModel, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    told = {"Cache-Control": "no-cache", **(headers or {})}
    return Response(model.model_dump_json(), status, told, "application/json")
