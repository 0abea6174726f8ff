"""Hooks of schemathesis: requests that are meant to be valid get what no schema can say, so that they are taken.

A picture has to be one, an index has to be served, a cursor has to come from a list. Only requests that are meant to
be valid are changed; those that are meant to be refused are sent as they were made.
"""

import base64
import json
import os
import uuid
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

import schemathesis
from schemathesis.generation.meta import TestPhase
from schemathesis.transport.serialization import Binary

WORLD: dict[str, Any] = json.loads(Path(os.environ["DAS_CONTRACT_WORLD"]).read_text(encoding="utf-8"))
"""What exists in the service under test: `picture` (base64), `picture_url`, `index`, `methods`, `policy` (a
document), `key` (the id of the key that is shown), `endpoint` (of the webhook endpoint at `picture_url`), and by the
name of a path's parameter the `ids` that are found."""

PICTURE = Binary(base64.b64decode(WORLD["picture"]))
IDS = {name: cycle([*found, None]) for name, found in WORLD["ids"].items()}
# What ends something; such a request is sent to what the run has made itself, or to nothing.
ENDING = ("deleteAttribution", "deleteAttributionBatch", "revokeApiKey", "rotateApiKey", "revokeShare")
MOST_IN_A_BATCH = 3
LONG_AGO = "2026-02-03T18:00:00Z"
# Fields that exclude one that is sent, which a schema leaves open.
LEFT_OUT = {
    "createDecision": ("attribution",), "createAttributionBatch": ("archive",), "createOptOut": ("creator",),
    "createShare": ("expires_at",),
}  # fmt: skip


@schemathesis.hook
def before_load_schema(context: Any, raw_schema: dict[str, Any]) -> None:
    """The service under test takes no request without a key: the description's "or none" isn't meant for it."""
    for operations in raw_schema["paths"].values():
        for operation in operations.values():
            if {} in operation.get("security", []):
                operation["security"].remove({})


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:
    """Put what exists into a request that is meant to be valid."""
    operation = case.operation.definition.raw["operationId"]
    if case.path_parameters.get("key_id") == WORLD["key"]:
        # The run would end the key that it shows, and see nothing but 401 from then on.
        case.path_parameters["key_id"] = "k7f3m2q9xwbt"
    if case.path_parameters.get("endpoint_id") == WORLD["endpoint"]:
        # Nor shall the endpoint end that questions name as who is told.
        case.path_parameters["endpoint_id"] = "whe_0193a6c1f3d07e52b3a1c5d4e6f70819"
    if case.meta is None or not case.meta.generation.mode.is_positive:
        return
    if operation not in ENDING and case.meta.phase.name != TestPhase.STATEFUL:
        for name in case.path_parameters.keys() & IDS.keys():
            case.path_parameters[name] = next(IDS[name]) or case.path_parameters[name]
    if "Idempotency-Key" in case.headers:
        # The same key with another request is an error, as it should be.
        case.headers["Idempotency-Key"] = str(uuid.uuid4())
    case.query.pop("cursor", None)
    if operation == "getStatement":
        # A period has a beginning before its end, and an amount a currency; neither can be said by a pattern.
        case.query.update({"from": "2026-10-01", "to": "2026-11-01"})
        for name in ("amount", "currency", "key", "index"):
            case.query.pop(name, None)
    if isinstance(case.body, dict):
        case.body = _mended(operation, case.media_type, case.body)
    # What was exchanged is how the case begins: else a body with a file in it would count as one to be refused.
    case._record_starting_state()


def _mended(operation: str, media_type: str, body: dict[str, Any]) -> dict[str, Any]:
    """A body that names what exists."""
    left_out = {"cursor", *LEFT_OUT.get(operation, ())}
    mended = {**body, **dict(_existing(operation, media_type, body))}
    return _without(mended, left_out)


def _without(body: dict[str, Any], names: set[str]) -> dict[str, Any]:
    return {name: value for name, value in body.items() if name not in names}


def _existing(operation: str, media_type: str, body: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """The fields of a body that have to name what exists, with what does."""
    as_json = media_type == "application/json"
    known = {
        "image": PICTURE,
        "image_base64": WORLD["picture"],
        "image_url": WORLD["picture_url"],
        "webhook_url": WORLD["picture_url"],
        "index": WORLD["index"],
        "method": WORLD["methods"][0],
        "version": 1,
    }
    for name, value in known.items():
        if isinstance(body.get(name), list):
            yield name, [value] * min(len(body[name]), MOST_IN_A_BATCH)
        elif body.get(name) is not None:
            yield name, value
    if isinstance(body.get("items"), list):
        # Of bytes and address each takes one; who is told is said once, for the batch.
        items = [
            {**_mended("", media_type, item), "image_base64": WORLD["picture"]} for item in body["items"]
        ]
        yield "items", [_without(item, {"image_url", "webhook_url"}) for item in items[:MOST_IN_A_BATCH]]
    if isinstance(body.get("top_k"), int | float):
        # The most that may be asked for is the operator's to say.
        yield "top_k", min(body["top_k"], 1000)
    match operation:
        case "putPolicy":
            yield "policy", WORLD["policy"] if as_json else Binary(json.dumps(WORLD["policy"]).encode())
        case "createDecision":
            # Of the picture and the question one has to be sent, which the schema leaves open.
            yield "policy", WORLD["policy"]["policy"]
            yield ("image_base64", WORLD["picture"]) if as_json else ("image", PICTURE)
        case "activatePolicy" if body.get("version") is None:
            yield "dry_run", True
        case "createAttributionBatch" if not as_json:
            yield "image", [PICTURE]
        case "createOptOut":
            yield "works", [WORLD["ids"]["work_id"][0]]
        case "applyOptOut":
            # What is done lies in the past.
            yield from ((name, LONG_AGO) for name in ("left_out_at", "removed_at") if body.get(name))
        case "createWebhookEndpoint":
            yield "url", WORLD["picture_url"]
        case "createApiKey" if body.get("indexes") is not None:
            # A key for some indexes can't administer all.
            yield "indexes", [WORLD["index"]]
            yield "scopes", ["ask", "read"]
