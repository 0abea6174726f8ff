"""Examples of policies and decisions for the API's description. Each is checked against its schema by a test."""

from typing import Any

from app.examples import ATTRIBUTION

POLICY_DOCUMENT: dict[str, Any] = {
    "policy": "publish",
    "title": "What our model makes, before it is published",
    "default": "clear",
    "lists": {"protected": ["Ada Example"]},
    "rules": [
        {
            "code": "known-copy",
            "outcome": "block",
            "because": "We don't publish copies of training works.",
            "when": {"copy.verdict": {"is": "copy"}},
        },
        {
            "code": "protected-creator",
            "outcome": "review",
            "when": {"creators": {"name": {"in_list": "protected"}, "low": {"at_least": 0.25}}},
        },
    ],
}
_MOMENT = "2026-01-31T12:00:00.000000Z"

POLICY: dict[str, Any] = {
    "id": "publish",
    "title": POLICY_DOCUMENT["title"],
    "active_version": 1,
    "dry_run_version": None,
    "newest_version": 1,
    "created_at": _MOMENT,
    "updated_at": _MOMENT,
    "links": {"self": "/v1/policies/publish", "backtest": "/v1/policies/publish/backtest"},
    "version": 1,
    "document": POLICY_DOCUMENT,
    "in_words": [
        "known-copy: block, where the copy verdict is copy. We don't publish copies of training works.",
        "protected-creator: review, where a creator has the name in the list protected, the lower end of that share"
        " at least 25 %.",
    ],
    "remarks": [],
    "versions": [{"version": 1, "digest": "5f" * 32, "created_at": _MOMENT}],
}

DECIDED: dict[str, Any] = {
    "id": "dec_0193a6c1f4a17e52b3a1c5d4e6f70819",
    "state": "decided",
    "created_at": _MOMENT,
    "decided_at": "2026-01-31T12:00:01.300000Z",
    "attribution": ATTRIBUTION["id"],
    "policy": "publish",
    "policy_version": 1,
    "outcome": "review",
    "final": "review",
    "summary": "Review: somebody has to look. (protected-creator)",
    "reasons": [
        {
            "code": "protected-creator",
            "outcome": "review",
            "fired": True,
            "text": "Ada Example, the name: Ada Example (the rule asks: in the list protected); the lower end of that"
            " share: 26 % (the rule asks: at least 25 %).",
            "because": None,
            "compared": [
                {
                    "field": "creators.name",
                    "value": "Ada Example",
                    "asked": {"in_list": "protected"},
                    "text": "Ada Example, the name: Ada Example (the rule asks: in the list protected)",
                },
                {
                    "field": "creators.low",
                    "value": 0.26,
                    "asked": {"at_least": 0.25},
                    "text": "the lower end of that share: 26 % (the rule asks: at least 25 %)",
                },
            ],
            "works": [],
            "creators": ["Ada Example"],
        }
    ],
    "notes": [ATTRIBUTION["copy"]["summary"]],
    "dry_run": None,
    "review": None,
    "reviews": [],
    "links": {
        "self": "/v1/decisions/dec_0193a6c1f4a17e52b3a1c5d4e6f70819",
        "attribution": f"/v1/attributions/{ATTRIBUTION['id']}",
        "policy": "/v1/policies/publish?version=1",
        "page": f"/a/{ATTRIBUTION['id']}",
    },
}
PENDING: dict[str, Any] = {
    **DECIDED,
    "state": "pending",
    **dict.fromkeys(("decided_at", "outcome", "final", "summary", "reasons", "notes")),
}
_WORD = {"outcome": "clear", "note": "She made it herself.", "by": "local", "at": "2026-01-31T12:30:00Z"}
REVIEWED: dict[str, Any] = {
    **DECIDED,
    "final": "clear",
    "review": _WORD,
    "reviews": [
        _WORD,
        {"outcome": "block", "note": None, "by": "local", "at": "2026-01-31T12:10:00Z"},
    ],
}
BACKTEST: dict[str, Any] = {
    "policy": "publish",
    "version": 2,
    "against": "active",
    "baseline_version": 1,
    "examined": 120,
    "table": {"clear": {"clear": 104, "review": 1}, "review": {"review": 12}, "block": {"block": 3}},
    "agreed": 119,
    "changed": [
        {
            "attribution": ATTRIBUTION["id"],
            "decision": None,
            "baseline": "clear",
            "candidate": "review",
            "codes": ["protected-creator"],
            "summary": "Review: somebody has to look. (protected-creator)",
            "link": f"/v1/attributions/{ATTRIBUTION['id']}",
        }
    ],
    "next_cursor": None,
}

# By the names that routes refer to them by.
MODERATION = {
    "policy": POLICY,
    "pending": PENDING,
    "decided": DECIDED,
    "reviewed": REVIEWED,
    "backtest": BACKTEST,
}
