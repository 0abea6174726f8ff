"""Answers for tests of policies: the documented example, changed."""

from typing import Any

from app.examples import ATTRIBUTION
from app.schemas import Attribution


def work(number: int, share: float, **changes: Any) -> dict[str, Any]:
    """A ranked work."""
    return {
        **ATTRIBUTION["works"][0],
        "rank": number,
        "work_id": f"w_{number:016x}",
        "title": f"Study no. {number}",
        "creator": f"Creator {number}",
        "licence": "CC0-1.0",
        "tdm": None,
        "share": share,
        "low": share / 2,
        "high": min(1.0, share * 2),
        "percentile": 100.0 - number,
        "copy": None,
        **changes,
    }


def creator(name: str, share: float, works: int = 1, **changes: Any) -> dict[str, Any]:
    """A creator's works taken together."""
    told = {"name": name, "share": share, "low": share / 2, "high": min(1.0, share * 2), "works": works}
    return {**told, "share_of_index": 0.1, "factor": share / 0.1, **changes}


def answer(**changes: Any) -> Attribution:
    """An answer about four works, all of them named, by the index's model, no copy of any; with these changes."""
    told = {
        **ATTRIBUTION,
        "candidates": {"mode": "all", "count": 4, "asked": "all"},
        "copy": {
            "verdict": "none", "score": 0.55, "method": "pdq", "mirrored": False, "work_id": None, "title": None,
            "creator": None, "thumbnail": None, "summary": None,
        },
        "works": [work(1, 0.4), work(2, 0.3), work(3, 0.2), work(4, 0.1)],
        "groups": {"creator": [creator(f"Creator {n}", 0.5 - n / 10) for n in range(1, 5)]},
        **changes,
    }  # fmt: skip
    return Attribution.model_validate(told)


def in_model(verdict: str) -> dict[str, Any]:
    return {**ATTRIBUTION["in_model"], "verdict": verdict}


def copied(verdict: str, **changes: Any) -> dict[str, Any]:
    return {**ATTRIBUTION["copy"], "verdict": verdict, **changes}


def declared(**changes: Any) -> dict[str, Any]:
    """The input of a picture that says something of itself."""
    said = dict.fromkeys(
        ("tool", "prompt", "negative_prompt", "seed", "steps", "sampler", "guidance", "model", "model_hash",
         "ai_generated", "summary")
    )  # fmt: skip
    told = {
        **said,
        "source": "PNG text parameters",
        "loras": [],
        "cut": [],
        "taken": [],
        "is_model_of_index": "unknown",
    }
    return {**ATTRIBUTION["input"], "declared": {**told, **changes}}
