"""A claimed question, as an engine is given it."""

from datetime import UTC, datetime

from jobs.models import ClaimedJob


def question(
    index_id: str,
    top_k: int,
    works: list[str] | None = None,
    *,
    method: str = "das-block",
    prompt: str | None = None,
    seed: int | None = None,
) -> ClaimedJob:
    return ClaimedJob(
        id="att_1",
        token="token",
        attempt=1,
        index_id=index_id,
        method=method,
        candidates="auto",
        input={},
        candidate_works=works,
        top_k=top_k,
        prompt=prompt,
        seed=seed,
        created_at=datetime.now(UTC),
        queue_wait_ms=0.0,
    )
