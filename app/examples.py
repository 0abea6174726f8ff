"""Examples for the API's description. Each is checked against its schema by a test."""

from typing import Any

from das.copies import copy_sentence, name_of

COPY_MATCH: dict[str, Any] = {"verdict": "near", "score": 0.8281, "method": "pdq", "mirrored": False}

ATTRIBUTION: dict[str, Any] = {
    "id": "att_0193a6c1f3d07e52b3a1c5d4e6f70819",
    "state": "succeeded",
    "created_at": "2026-01-31T12:00:00.000000Z",
    "started_at": "2026-01-31T12:00:00.030000Z",
    "finished_at": "2026-01-31T12:00:01.210000Z",
    "client_tag": "batch-7",
    "index": "photographs@3f9c2a",
    "method": "das-block",
    "candidates": {"mode": "all", "count": 1200, "asked": "auto"},
    "top_k": 20,
    "prompt": None,
    "seed": None,
    "input": {
        "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "width": 512,
        "height": 512,
        "format": "JPEG",
        "normalisation": ["orientation", "icc"],
        "declared": None,
    },
    "progress": {"stage": "scored", "done": 10, "total": 10, "eta_s": 0.0, "attempt": 1, "waiting": None},
    "summary": "The three works by Ada Example account for 31 % (26 to 36 %) of the measured influence among 1,200"
    " works.",
    "in_model": {"verdict": "likely", "p_value": 0.42, "p_value_re_encoded": 0.42, "references": 100},
    "certainty": {"stands_out": True, "percentile": 97.0, "clearly_first": True},
    "copy": {
        **COPY_MATCH,
        "work_id": "w_2c26b46b68ffc68f",
        "title": "Harbour at noon",
        "creator": "Ada Example",
        "thumbnail": "/v1/works/w_2c26b46b68ffc68f/thumbnail",
        "summary": copy_sentence(
            "near", name_of("Harbour at noon", "Ada Example"), mirrored=False, in_model="likely"
        ),
    },
    "quality": None,
    "works": [
        {
            "rank": 1,
            "work_id": "w_2c26b46b68ffc68f",
            "title": "Harbour at noon",
            "creator": "Ada Example",
            "rights_holder": "Ada Example",
            "licence": "CC-BY-4.0",
            "source_url": "https://example.org/harbour",
            "thumbnail": "/v1/works/w_2c26b46b68ffc68f/thumbnail",
            "score": 0.0123,
            "share": 0.12,
            "low": 0.09,
            "high": 0.15,
            "percentile": 99.9,
            "similarity": 0.71,
            "copy": COPY_MATCH,
        }
    ],
    "groups": {
        "creator": [
            {
                "name": "Ada Example",
                "share": 0.31,
                "low": 0.26,
                "high": 0.36,
                "works": 3,
                "share_of_index": 0.004,
                "factor": 77.5,
            }
        ]
    },
    "rounding": None,
    "lookalikes": [
        {
            "work_id": "w_2c26b46b68ffc68f",
            "title": "Harbour at noon",
            "creator": "Ada Example",
            "thumbnail": "/v1/works/w_2c26b46b68ffc68f/thumbnail",
            "similarity": 0.93,
            "copy": COPY_MATCH,
        }
    ],
    "timings_ms": {"queue_wait": 12.0, "gradients": 840.0},
    "error": None,
    "expires_at": "2026-05-01T12:00:02Z",
    "notes": [],
    "links": {
        "self": "/v1/attributions/att_0193a6c1f3d07e52b3a1c5d4e6f70819",
        "page": "/a/att_0193a6c1f3d07e52b3a1c5d4e6f70819",
        "image": "/v1/attributions/att_0193a6c1f3d07e52b3a1c5d4e6f70819/image",
        "index": "/v1/indexes/photographs@3f9c2a",
        "report": "/v1/attributions/att_0193a6c1f3d07e52b3a1c5d4e6f70819/report.json",
    },
}

# The same question before it was answered, and cancelled.
QUEUED: dict[str, Any] = {
    **ATTRIBUTION,
    "state": "queued",
    **dict.fromkeys(
        (
            "started_at",
            "finished_at",
            "expires_at",
            "candidates",
            "summary",
            "copy",
            "works",
            "groups",
            "timings_ms",
        ),
        None,
    ),
    "lookalikes": [{**work, "copy": None} for work in ATTRIBUTION["lookalikes"]],
    "progress": {"stage": "screened", "done": 0, "total": 0, "eta_s": None, "attempt": 0, "waiting": 1},
    "links": {**ATTRIBUTION["links"], "report": None},
}
CANCELLED: dict[str, Any] = {
    **QUEUED,
    "state": "cancelled",
    "finished_at": "2026-01-31T12:00:01.210000Z",
    "progress": {**QUEUED["progress"], "waiting": None},
}

# By the names that routes refer to them by: what stands in a route itself loses its nulls on FastAPI's way.
ANSWERS = {"succeeded": ATTRIBUTION, "queued": QUEUED, "cancelled": CANCELLED}

# A picture that can be sent as it stands: eight pixels square, of one colour.
ONE_COLOUR = (
    "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAFUlEQVR42mPcpKTEgA0wMeAAg1MCAMXcAQbwB5D8AAAAAElFTkSuQmCC"
)
REQUEST_JSON: dict[str, Any] = {
    "image_base64": ONE_COLOUR,
    "top_k": 20,
    "candidates": "auto",
    "client_tag": "batch-7",
}
REQUEST_URL: dict[str, Any] = {"image_url": "https://images.example.org/generation.png", "top_k": 20}

EVENTS = f"""\
event: started
id: 7
data: {{"attribution_id": "{ATTRIBUTION["id"]}", "kind": "started", "at": "2026-01-31T12:00:00Z", "attempt": 1}}

"""
