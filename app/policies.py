"""What can be done with policies: the use cases of `/v1/policies`."""

import json
import re
from functools import lru_cache
from typing import Any

from anyio import to_thread
from python_multipart.multipart import parse_options_header
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from app.callers import Caller
from app.forms import parse_form, text_of
from app.language import ENGLISH
from app.moderation import words
from app.moderation.document import MAX_BYTES, PolicyError, read_json
from app.moderation.policy import SLUG, Policy, policy_of, read_policy
from app.moderation.schemas import (
    PolicyCard,
    PolicyJson,
    PolicyLinks,
    PolicyList,
    PolicySummary,
    PolicyVersionInfo,
)
from app.problems import FieldProblem, Problem, invalid
from app.service import Service
from app.uploads import FORM, JSON, parse_as
from jobs.policies import PolicyNotFound, PolicyRow, PolicyVersion, TooManyPolicies

# A policy as a JSON text may be written with an escape for every character.
MAX_BODY_BYTES = 6 * MAX_BYTES + 4096
TRUTHS = {"true": True, "false": False}


async def received(service: Service, request: Request) -> tuple[Policy, bool]:
    """The policy in a request's body, and whether it is a dry run; raises `Problem`."""
    content_type = request.headers.get("content-type", "")
    media = parse_options_header(content_type)[0]
    if media not in (FORM, JSON):
        raise Problem(
            "unsupported-media-type",
            "Send multipart/form-data with a part named policy, or application/json with policy.",
            {"Accept": "multipart/form-data, application/json"},
        )

    def parse(body: bytes) -> tuple[Policy, bool]:
        return _of_form(body, content_type) if media == FORM else _of_json(body)

    refusal = Problem("too-large", f"A policy may have at most {MAX_BYTES // 1024} KB.")
    async with service.bodies.received(request, MAX_BODY_BYTES, refusal) as body:
        return await to_thread.run_sync(parse, body, limiter=service.parsing)


async def put(service: Service, caller: Caller, policy: Policy, *, dry_run: bool) -> tuple[PolicyCard, bool]:
    """Keep a policy as the newest version of that id; what is told of it, and whether the version is new."""
    try:
        stored = await run_in_threadpool(
            service.store.policies.put,
            caller.owner,
            policy.policy,
            policy.document(),
            policy.digest,
            dry_run=dry_run,
            by=caller.actor,
        )
    except TooManyPolicies as error:
        raise Problem("conflict", f"It can't be kept: {error}.") from error
    return await _card(service, caller, stored.policy, stored.version), stored.new


async def listed(service: Service, caller: Caller) -> PolicyList:
    """All policies of the caller."""

    def read() -> PolicyList:
        rows = service.store.policies.list(caller.owner)
        return PolicyList(items=[_summary(row, _title(service, row)) for row in rows])

    return await run_in_threadpool(read)


async def card(service: Service, caller: Caller, policy_id: str, version: int | None) -> PolicyCard:
    """A policy with one version: the one asked for, or the active, or else the newest."""
    row = await run_in_threadpool(find, service, caller, policy_id)
    number = version or row.active or row.versions
    return await _card(service, caller, row, await run_in_threadpool(_version, service, row, number))


async def activate(
    service: Service, caller: Caller, policy_id: str, version: int | None, *, dry_run: bool
) -> PolicyCard:
    """Have a version decide, or be tried beside the one that does."""
    if version is None and not dry_run:
        raise invalid("version", "is missing: say which version shall decide.")
    await run_in_threadpool(find, service, caller, policy_id)
    try:
        row = await run_in_threadpool(
            service.store.policies.activate,
            caller.owner,
            policy_id,
            version,
            dry_run=dry_run,
            by=caller.actor,
        )
    except PolicyNotFound as error:
        raise Problem("not-found", f"{str(error)[0].upper()}{str(error)[1:]}.") from error
    number = version or row.active or row.versions
    return await _card(service, caller, row, await run_in_threadpool(_version, service, row, number))


def find(service: Service, caller: Caller, policy_id: str) -> PolicyRow:
    """The caller's policy of this id; raises `Problem` not-found. Blocks for a moment."""
    # Whatever else is asked for is no policy's id, and a database may choke on it.
    row = service.store.policies.get(caller.owner, policy_id) if re.fullmatch(SLUG, policy_id) else None
    if row is None:
        raise Problem("not-found", "There is no policy of yours with this id.")
    return row


def load(service: Service, owner: str, policy_id: str, version: int) -> Policy:
    """A stored version, ready to decide; raises `Problem` not-found. Blocks for a moment."""
    stored = service.store.policies.version(owner, policy_id, version)
    if stored is None:
        raise Problem("not-found", f"{policy_id} has no version {version}.")
    try:
        return _parsed(json.dumps(stored.document))
    except PolicyError as error:
        raise Problem(
            "conflict",
            f"Version {version} of {policy_id} can't be read any more ({error}): send the policy again.",
        ) from error


@lru_cache(maxsize=64)
def _parsed(document: str) -> Policy:
    return policy_of(json.loads(document))


def _of_form(body: bytes, content_type: str) -> tuple[Policy, bool]:
    found: dict[str, Any] = {}
    for part in parse_form(body, content_type):
        if part.name in found:
            raise invalid(part.name, "was sent more than once.")
        if part.name not in PolicyJson.model_fields:
            raise invalid(part.name, "is not a field of this request; there are policy, dry_run.")
        found[part.name] = bytes(part.data) if part.name == "policy" else text_of(part)
    if "policy" not in found:
        raise invalid("policy", "is missing: send the policy's file in this field.")
    # Generated clients write it as their language does: True.
    dry_run = TRUTHS.get(found.get("dry_run", "false").lower())
    if dry_run is None:
        raise invalid("dry_run", "has to be true or false.")
    return _policy(found["policy"]), dry_run


def _of_json(body: bytes) -> tuple[Policy, bool]:
    try:
        values = read_json(body, MAX_BODY_BYTES)
    except PolicyError as error:
        first = error.mistakes[0]
        place = first.pointer or "The body"
        raise Problem("malformed-body", f"{place} {first.detail}") from error
    asked = parse_as(PolicyJson, values)
    return _policy(asked.policy), asked.dry_run


def _policy(given: bytes | str | dict[str, Any]) -> Policy:
    try:
        return policy_of(given) if isinstance(given, dict) else read_policy(given)
    except PolicyError as error:
        told = [
            FieldProblem(
                detail=mistake.detail if mistake.line is None else f"{mistake.detail} (line {mistake.line})",
                pointer=f"/policy{mistake.pointer}",
            )
            for mistake in error.mistakes
        ]
        raise Problem("invalid-request", f"The policy can't be used: {error}", errors=told) from error


async def _card(service: Service, caller: Caller, row: PolicyRow, version: PolicyVersion) -> PolicyCard:
    def read() -> PolicyCard:
        versions = service.store.policies.versions(caller.owner, row.id)
        summary = _summary(row, _title(service, row))
        said: dict[str, Any] = _said(row.id, version)
        return PolicyCard(
            **dict(summary),
            version=version.version,
            document=version.document,
            **said,
            versions=[
                PolicyVersionInfo(version=one.version, digest=one.digest, created_at=one.created_at)
                for one in versions
            ],
        )

    return await run_in_threadpool(read)


def _version(service: Service, row: PolicyRow, number: int) -> PolicyVersion:
    version = service.store.policies.version(row.owner, row.id, number)
    if version is None:
        raise Problem("not-found", f"{row.id} has no version {number}, but 1 to {row.versions}.")
    return version


def _said(policy_id: str, version: PolicyVersion) -> dict[str, list[str]]:
    """What a version says, in words."""
    try:
        policy = _parsed(json.dumps(version.document))
    except PolicyError:
        return {
            "in_words": [ENGLISH("decision.policy_unusable", policy=policy_id, version=version.version)],
            "remarks": [],
        }
    rules = [words.rule_in_words(rule) for rule in policy.rules]
    return {
        "in_words": [*rules, words.default_in_words(policy.default), *words.ALWAYS],
        "remarks": [*words.remarks(policy)],
    }


def _title(service: Service, row: PolicyRow) -> str | None:
    try:
        return load(service, row.owner, row.id, row.active or row.versions).title
    except Problem:
        # One that can't be read any more hasn't got one, and the list shall still be told.
        return None


def _summary(row: PolicyRow, title: str | None) -> PolicySummary:
    return PolicySummary(
        id=row.id,
        title=title,
        active_version=row.active,
        dry_run_version=row.shadow,
        newest_version=row.versions,
        created_at=row.created_at,
        updated_at=row.updated_at,
        links=PolicyLinks(self=f"/v1/policies/{row.id}", backtest=f"/v1/policies/{row.id}/backtest"),
    )
