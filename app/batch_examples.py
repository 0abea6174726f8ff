"""Examples of batches for the API's description. Each is checked against its schema by a test."""

from typing import Any

from app.examples import ATTRIBUTION, ONE_COLOUR

BATCH_ID = "bat_0193a6c1f3d07e52b3a1c5d4e6f70819"
SHORT = ("id", "state", "created_at", "started_at", "finished_at", "client_tag", "index", "method", "summary")
SUMMARY: dict[str, Any] = {
    "id": BATCH_ID,
    "state": "open",
    "created_at": "2026-01-31T12:00:00.000000Z",
    "client_tag": "batch-7",
    "size": 3,
    "counts": {
        "waiting": 1, "queued": 0, "running": 0, "succeeded": 1, "failed": 1, "cancelled": 0, "erased": 0,
    },
    "links": {
        "self": f"/v1/attribution-batches/{BATCH_ID}",
        "results": f"/v1/attribution-batches/{BATCH_ID}/results.jsonl",
    },
}  # fmt: skip
PROBLEM: dict[str, Any] = {
    "type": "/problems#unsupported-image",
    "code": "unsupported-image",
    "title": "Not an accepted image format",
    "status": 415,
    "detail": "This file is no image: send JPEG, PNG, WebP, AVIF, GIF or TIFF.",
    "reason": "not-an-image",
}
NOTHING: dict[str, Any] = {"client_tag": "batch-7", "problem": None, "attribution": None}
ATTRIBUTION_IN_SHORT: dict[str, Any] = {
    **{name: ATTRIBUTION[name] for name in SHORT},
    "in_model": "likely",
    "copy": "near",
    "links": {name: ATTRIBUTION["links"][name] for name in ("self", "page")},
}
BATCH: dict[str, Any] = {
    **SUMMARY,
    "items": [
        {**NOTHING, "position": 1, "name": "harbour.png", "state": "succeeded", "attribution": ATTRIBUTION_IN_SHORT},
        {**NOTHING, "position": 2, "name": "notes.txt", "state": "failed", "problem": PROBLEM},
        {**NOTHING, "position": 3, "name": "boats.png", "state": "waiting"},
    ],
    "next_cursor": None,
}  # fmt: skip
ACCEPTED: dict[str, Any] = {
    **BATCH,
    "counts": {**dict.fromkeys(SUMMARY["counts"], 0), "waiting": 3},
    "items": [
        {**NOTHING, "position": number, "name": name, "state": "waiting"}
        for number, name in enumerate(("harbour.png", "notes.txt", "boats.png"), 1)
    ],
}
CANCELLED: dict[str, Any] = {
    **BATCH,
    "state": "cancelled",
    "counts": {**SUMMARY["counts"], "waiting": 0, "cancelled": 1},
    "items": [*BATCH["items"][:2], {**BATCH["items"][2], "state": "cancelled"}],
}
RESULT: dict[str, Any] = {
    **NOTHING,
    "position": 1,
    "name": "harbour.png",
    "state": "succeeded",
    "attribution": ATTRIBUTION,
}
# By the names that routes refer to them by: what stands in a route itself loses its nulls on FastAPI's way.
BATCHES = {"batch": BATCH, "batch-accepted": ACCEPTED, "batch-cancelled": CANCELLED, "batch-result": RESULT}
REQUEST: dict[str, Any] = {
    "client_tag": "batch-7",
    "top_k": 10,
    "items": [
        {"name": "harbour.png", "image_url": "https://images.example.org/harbour.png", "prompt": "a harbour"},
        {"name": "boats.png", "image_base64": ONE_COLOUR},
    ],
}
