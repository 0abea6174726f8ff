"""From a job's row to what the API says of it. Titles, creators and similarities are joined in by row here."""

from datetime import datetime
from typing import Any

from app.catalogue import Catalogue, ServedIndex
from app.schemas import (
    Attribution,
    CandidateSet,
    Failure,
    Group,
    Input,
    Links,
    Lookalike,
    Progress,
    Quality,
    Share,
    Stage,
)
from jobs.models import Job, JobState, utc_now

# How many of the similarities that were kept are shown as look-alikes; the others go beside the ranked works.
LOOKALIKES = 12

GONE = "The index {index} is no longer served here, so the works can't be named."
NO_LOOKALIKES = "The look-alikes of this picture aren't known: {reason}."
MEASURED = (
    "Every work was a candidate, and all subsets were used: no option of the index was chosen by them."
    " Screening was not measured."
)
PROMPT_UNUSED = "The prompt is kept but had no part in this: the index's model takes no text."
SEED_UNUSED = "The seed is kept but had no part in this: only journey-trak uses it."


def attribution(job: Job, catalogue: Catalogue, *, waiting: int | None, screening: str | None) -> Attribution:
    """What is known of a job by now.

    Args:
        waiting: how many questions wait in all.
        screening: why its index can't be screened; None if it can.
    """
    served = catalogue.find(job.index_id)
    result = job.result or {}
    scored = served is not None and job.state == JobState.SUCCEEDED
    similarities = {int(item["row"]): float(item["similarity"]) for item in job.lookalikes or []}
    return Attribution.model_validate(
        {
            "id": job.id,
            "state": str(job.state),
            "created_at": job.created_at,
            "started_at": job.started_at,
            "finished_at": job.finished_at,
            "client_tag": job.client_tag,
            "index": job.index_id,
            "method": job.method,
            "candidates": _candidates(job, result),
            "top_k": job.top_k,
            "prompt": job.prompt,
            "seed": job.seed,
            "input": Input.model_validate(job.input),
            "progress": _progress(job, waiting),
            "summary": result.get("summary") if scored else None,
            "in_model": result.get("in_model"),
            "quality": None if served is None else quality(served, job.method),
            "works": _works(served, result, similarities) if served is not None and scored else None,
            "groups": _groups(result) if scored else None,
            "lookalikes": None if served is None else _lookalikes(served, job),
            "timings_ms": _timings(job),
            "error": None if job.error is None else Failure.model_validate(job.error),
            "notes": _notes(job, served, screening),
            "links": Links(
                self=f"/v1/attributions/{job.id}",
                page=f"/a/{job.id}",
                image=f"/v1/attributions/{job.id}/image",
                index=f"/v1/indexes/{job.index_id}",
            ),
        }
    )


def quality(served: ServedIndex, method: str | None = None) -> Quality | None:
    """How good this index's ranking was measured to be, from its manifest; None: not measured.

    With a `method`, only if that one was measured: a figure says nothing of another method's ranking.
    """
    measured = served.index.manifest.quality
    if measured is None or method not in (None, measured.method):
        return None
    return Quality.model_validate(
        {**measured.model_dump(include=set(Quality.model_fields)), "note": MEASURED}
    )


def thumbnail_link(work_id: str) -> str:
    """Where a work's thumbnail is. The id is made of the file's digest, so what lies there never changes."""
    return f"/v1/works/{work_id}/thumbnail"


def _candidates(job: Job, result: dict[str, Any]) -> CandidateSet | None:
    given = result.get("candidates")
    if given is None:
        return None
    return CandidateSet(
        mode="all" if given["mode"] == "all" else "screened", count=given["count"], asked=job.candidates
    )


def _progress(job: Job, waiting: int | None) -> Progress:
    stage: Stage = job.stage  # type: ignore[assignment]
    return Progress(
        stage=stage,
        done=job.progress_done,
        total=job.progress_total,
        eta_s=_seconds_left(job, utc_now()),
        attempt=job.attempt,
        waiting=waiting if job.state == JobState.QUEUED else None,
    )


def _seconds_left(job: Job, now: datetime) -> float | None:
    """Time left of the stage, at the pace since the work was begun."""
    if job.state != JobState.RUNNING:
        return 0.0 if job.state == JobState.SUCCEEDED else None
    if not job.progress_done or job.started_at is None:
        return None
    elapsed = (now - job.started_at).total_seconds()
    return round(elapsed / job.progress_done * (job.progress_total - job.progress_done), 1)


def _works(served: ServedIndex, result: dict[str, Any], similarities: dict[int, float]) -> list[Share]:
    return [_share(served, rank, item, similarities) for rank, item in enumerate(result["works"], start=1)]


def _share(served: ServedIndex, rank: int, item: dict[str, Any], similarities: dict[int, float]) -> Share:
    row = int(item["row"])
    work = served.work(row)
    similarity = item.get("similarity")
    return Share(
        rank=rank,
        work_id=work["id"],
        title=work["title"],
        creator=work["creator"],
        rights_holder=work["rights_holder"],
        licence=work["licence"],
        source_url=work["source_url"],
        thumbnail=thumbnail_link(work["id"]),
        score=item["score"],
        share=item["share"],
        percentile=item.get("percentile"),
        similarity=similarities.get(row) if similarity is None else similarity,
    )


def _groups(result: dict[str, Any]) -> dict[str, list[Group]]:
    return {
        kind: [Group.model_validate(group) for group in groups] for kind, groups in result["groups"].items()
    }


def _lookalikes(served: ServedIndex, job: Job) -> list[Lookalike] | None:
    if job.lookalikes is None:
        return None
    found = []
    for item in job.lookalikes[:LOOKALIKES]:
        work = served.work(int(item["row"]))
        found.append(
            Lookalike(
                work_id=work["id"],
                title=work["title"],
                creator=work["creator"],
                thumbnail=thumbnail_link(work["id"]),
                similarity=item["similarity"],
            )
        )
    return found


def _timings(job: Job) -> dict[str, float] | None:
    """Milliseconds by part, without their suffix: the protocol's own, and the engine's for its steps."""
    if job.timings is None:
        return None
    measured = {**job.timings, **(job.result or {}).get("timings_ms", {})}
    return {
        name.removesuffix("_ms"): float(value)
        for name, value in measured.items()
        if name != "batch" and isinstance(value, int | float)
    }


def _notes(job: Job, served: ServedIndex | None, screening: str | None) -> list[str]:
    notes = []
    if served is None:
        notes.append(GONE.format(index=job.index_id))
    elif job.lookalikes is None:
        reason = screening or (
            "the screening is still loading or failed" if job.finished else "not found yet"
        )
        notes.append(NO_LOOKALIKES.format(reason=reason))
    if job.prompt is not None and served is not None and not served.conditional:
        notes.append(PROMPT_UNUSED)
    if job.seed is not None and job.method != "journey-trak":
        notes.append(SEED_UNUSED)
    return notes
