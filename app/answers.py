"""From a job's row to what the API says of it. Titles, creators and similarities are joined in by work id here."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from app.catalogue import Catalogue, ServedIndex
from app.index_schemas import ApproximateSearch, ComingVersion, IndexSummary
from app.link_schemas import Links, SummaryLinks
from app.redaction import LOOKALIKES, hidden_id, shown
from app.schemas import (
    Attribution,
    AttributionSummary,
    CandidateSet,
    Copy,
    CopyMatch,
    Failure,
    Group,
    Input,
    Lookalike,
    Progress,
    Quality,
    ScreeningStatus,
    Share,
    Stage,
)
from app.visibility import View
from das import registry
from das.answer import notes_of
from das.approximation import ASKED, ApproximateRecord
from das.copies import copy_sentence, name_of
from das.images.declared import declared_from
from das.index import NO_SCREENING
from das.manifest import QualityRecord
from das.provenance import ModelClaim, compare_model, notes_of_declared
from jobs.models import Job, JobState, JobSummary, JsonObject, Standing, utc_now

# What is told of a ranked work beside its numbers.
TOLD = ("title", "creator", "rights_holder", "licence", "source_url")

REPLACED = "This was answered by {index}; {served} is served in its place, and tells what works are called."
GONE = (
    "The index {index} is no longer served here, so it isn't known what its works are called and who may see them:"
    " they go by ids that are good in this answer only, creators and rights holders are taken together as “Withheld”,"
    " and look-alikes are left out."
)
BY_ROW = (
    "This answer was stored by an earlier version, which named works by their place in the index: once that is"
    " served again, they are named."
)
MISSING = (
    "{count} of the works named here are no longer in the index, so their titles and creators aren't known."
)
HIDDEN_WORK = "a work that isn't shown"
NO_LOOKALIKES = "The look-alikes of this picture aren't known: {reason}."
MEASURED = (
    "Every work was a candidate, and all subsets were used: no option of the index was chosen by them."
    " Screening was not measured."
)
PICTURE_GONE = (
    "The picture isn't kept any more: it can't be looked at here or asked about again, and who computes the answer"
    " again brings the file that was sent."
)
PROMPT_UNUSED = "The prompt is kept but had no part in this: the index's model takes no text."
SEED_UNUSED = "The seed is kept but had no part in this: only {methods} uses it."


def attribution(
    job: Job,
    catalogue: Catalogue,
    *,
    waiting: int | None,
    screening: str | None,
    view: View | None,
    expires_at: datetime | None = None,
) -> Attribution:
    """What is known of a job by now.

    Args:
        view: of whoever it is told to, who isn't told of works that are hidden from them; None: it is told to nobody,
            and all of it counts.
        waiting: how many questions wait in all.
        screening: why its index can't be screened; None if it can.
        expires_at: when it is erased by itself, for whom that is told.
    """
    job = shown(job, view, catalogue)
    # What tells of the works; the index itself, unless another version is served by now.
    served, own = catalogue.reading(job.index_id), catalogue.find(job.index_id)
    result = job.result or {}
    # What still names works by row can't be told: another index may have other works there.
    scored = job.state == JobState.SUCCEEDED and not job.by_row
    found = result.get("copy") if scored else None
    copies = {match["work_id"]: _copy_match(match) for match in (found or {}).get("matches", ())}
    works = _works(served, job, copies) if scored else None
    lookalikes = None
    if job.lookalikes is not None and not job.by_row:
        lookalikes = _lookalikes(served, job.lookalikes, copies)
    named: list[Share | Lookalike] = [*(works or []), *(lookalikes or [])]
    given = _input(job, own)
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
            "input": given,
            "progress": progress_of(job, waiting),
            "summary": result.get("summary") if scored else None,
            "in_model": result.get("in_model"),
            "certainty": result.get("certainty"),
            "copied": None if found is None else _copy(served, found, result.get("in_model")),
            "quality": None if own is None else quality(own.index.quality_of(job.method)),
            "works": works,
            "groups": _groups(result) if scored else None,
            "rounding": result.get("rounding") if scored else None,
            "lookalikes": lookalikes,
            "timings_ms": _timings(job),
            "error": None if job.error is None else Failure.model_validate(job.error),
            "expires_at": expires_at,
            "notes": _notes(
                job, served, own, screening, named, given.declared.summary if given.declared else None
            ),
            "links": Links(
                self=f"/v1/attributions/{job.id}",
                page=f"/a/{job.id}",
                image=None if job.upload_gone_at else f"/v1/attributions/{job.id}/image",
                index=f"/v1/indexes/{job.index_id}",
                report=f"/v1/attributions/{job.id}/report.json" if scored else None,
            ),
        }
    )


def listed(job: JobSummary) -> AttributionSummary:
    """A question as a list tells it."""
    return AttributionSummary(
        id=job.id,
        state=job.state,  # type: ignore[arg-type]
        created_at=job.created_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
        client_tag=job.client_tag,
        index=job.index_id or None,
        method=job.method or None,
        summary=job.summary,
        in_model=job.in_model,  # type: ignore[arg-type]
        copied=job.copied,  # type: ignore[arg-type]
        links=SummaryLinks(self=f"/v1/attributions/{job.id}", page=f"/a/{job.id}"),
    )


def quality(measured: QualityRecord | None) -> Quality | None:
    """How good a ranking was measured to be, as the API tells it; None: not measured."""
    if measured is None:
        return None
    return Quality.model_validate(
        {**measured.model_dump(include=set(Quality.model_fields)), "note": MEASURED}
    )


def approximate_search(record: ApproximateRecord | None) -> ApproximateSearch | None:
    """How an index finds works without scoring all of them, as the API tells it; None: it doesn't."""
    if record is None:
        return None
    return ApproximateSearch(
        method=record.method,
        recall_at_20=record.recall,
        queries=record.queries,
        measured_with=ASKED[record.asked],
        sample=record.sample,
        bytes_per_work=record.bytes,
        depth=record.depth,
    )


def thumbnail_link(work_id: str) -> str:
    """Where a work's thumbnail is. The id is made of the file's digest, so what lies there never changes."""
    return f"/v1/works/{work_id}/thumbnail"


def index_summary(
    served: ServedIndex, status: ScreeningStatus, coming: ComingVersion | None = None
) -> IndexSummary:
    """The facts about one index that the list and the page show; `coming` is what is to take its place."""
    manifest = served.index.manifest
    model: dict[str, Any] = {
        "source": manifest.model.source.rstrip("/").rpartition("/")[2],
        "digest": manifest.model.digest,
        "sample_shape": list(manifest.model.sample_shape),
        "attributed_parameters": manifest.model.attributed_parameters,
    }
    return IndexSummary(
        id=served.id,
        name=served.name,
        works=len(served),
        creators=served.creators,
        model=model,
        methods=served.methods,
        dimension=manifest.features.dimension,
        timesteps=len(manifest.timesteps),
        created_at=manifest.build.created_at,
        status=status,
        next=coming,
    )


def _input(job: Job, served: ServedIndex | None) -> Input:
    """The picture as it came, and what it says of itself, held against the index."""
    said = job.input.get("declared")
    if said is None:
        return Input.model_validate(job.input)
    claim = ModelClaim("unknown", None)
    if served is not None and (record := declared_from(said)) is not None:
        claim = compare_model(record, served.index.manifest)
    told = {**said, "is_model_of_index": claim.verdict, "summary": claim.sentence}
    return Input.model_validate({**job.input, "declared": told})


def _declared_notes(job: Job, served: ServedIndex) -> list[str]:
    said = job.input.get("declared")
    record = declared_from(said)
    if said is None or record is None:
        return []
    seeded = job.method in _seeded_methods()
    return notes_of_declared(
        record, said["taken"], prompt=job.prompt, conditional=served.conditional, seeded=seeded
    )


def _seeded_methods() -> set[str]:
    """The methods that a seed has a part in."""
    return {method.name for method in registry.methods() if method.along_trajectory}


def _candidates(job: Job, result: dict[str, Any]) -> CandidateSet | None:
    given = result.get("candidates")
    if given is None:
        return None
    return CandidateSet(
        mode=given["mode"], count=given["count"], scored=given.get("scored"), asked=job.candidates
    )


def progress_of(job: Job | Standing, waiting: int | None) -> Progress:
    """How far a job is; `waiting` is how many wait in all, None where that isn't told."""
    stage: Stage = job.stage  # type: ignore[assignment]
    return Progress(
        stage=stage,
        done=job.progress_done,
        total=job.progress_total,
        eta_s=_seconds_left(job, utc_now()),
        attempt=job.attempt,
        waiting=waiting if job.state == JobState.QUEUED else None,
    )


def _seconds_left(job: Job | Standing, now: datetime) -> float | None:
    """Time left of the stage, at the pace since the work was begun."""
    if job.state != JobState.RUNNING:
        return 0.0 if job.state == JobState.SUCCEEDED else None
    if not job.progress_done or job.started_at is None:
        return None
    elapsed = (now - job.started_at).total_seconds()
    return round(elapsed / job.progress_done * (job.progress_total - job.progress_done), 1)


def _copy_match(match: JsonObject) -> CopyMatch:
    return CopyMatch.model_validate({name: match[name] for name in CopyMatch.model_fields})


def _copy(served: ServedIndex | None, found: JsonObject, in_model: JsonObject | None) -> Copy:
    """What the picture is a copy of, the work named as the index knows it now."""
    best = found["matches"][0] if found["matches"] else None
    work_id = None if best is None else best["work_id"]
    work = None if served is None or work_id is None else served.find(work_id)
    title, creator = (None, None) if work is None else (work["title"], work["creator"])
    mirrored = best is not None and bool(best["mirrored"])
    return Copy(
        verdict=found["verdict"],
        score=found["score"],
        method=found["method"],
        mirrored=mirrored,
        work_id=work_id,
        title=title,
        creator=creator,
        thumbnail=None if work is None or work_id is None else thumbnail_link(work_id),
        summary=copy_sentence(
            found["verdict"],
            HIDDEN_WORK if work_id is not None and hidden_id(work_id) else name_of(title, creator),
            mirrored=mirrored,
            in_model=None if in_model is None else in_model["verdict"],
        ),
    )


def _works(served: ServedIndex | None, job: Job, copies: Mapping[str, CopyMatch]) -> list[Share]:
    similarities = {item["work_id"]: float(item["similarity"]) for item in job.lookalikes or []}
    return [_share(served, item, similarities, copies) for item in (job.result or {})["works"]]


def _share(
    served: ServedIndex | None,
    item: dict[str, Any],
    similarities: Mapping[str, float],
    copies: Mapping[str, CopyMatch],
) -> Share:
    work_id = item["work_id"]
    work = None if served is None else served.find(work_id)
    similarity = item.get("similarity")
    return Share(
        rank=item["rank"],
        work_id=work_id,
        **{name: None if work is None else work[name] for name in TOLD},
        tdm=None if work is None else work.get("tdm"),
        thumbnail=None if work is None else thumbnail_link(work_id),
        score=item["score"],
        share=item["share"],
        below=item.get("below"),
        low=item.get("low"),
        high=item.get("high"),
        percentile=item.get("percentile"),
        similarity=similarities.get(work_id) if similarity is None else similarity,
        copied=copies.get(work_id),
    )


def _groups(result: dict[str, Any]) -> dict[str, list[Group]]:
    return {
        kind: [Group.model_validate(group) for group in groups] for kind, groups in result["groups"].items()
    }


def _lookalikes(
    served: ServedIndex | None, kept: list[JsonObject], copies: Mapping[str, CopyMatch]
) -> list[Lookalike]:
    found = []
    for item in kept[:LOOKALIKES]:
        work_id = item["work_id"]
        work = None if served is None else served.find(work_id)
        found.append(
            Lookalike(
                work_id=work_id,
                title=None if work is None else work["title"],
                creator=None if work is None else work["creator"],
                thumbnail=None if work is None else thumbnail_link(work_id),
                similarity=item["similarity"],
                copied=copies.get(work_id),
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


def _notes(
    job: Job,
    served: ServedIndex | None,
    own: ServedIndex | None,
    screening: str | None,
    named: Sequence[Share | Lookalike],
    model_claim: str | None,
) -> list[str]:
    notes = list((job.result or {}).get("caveats", [])) if job.state == JobState.SUCCEEDED else []
    if model_claim is not None:
        notes.insert(0, model_claim)
    if served is not None:
        notes += _declared_notes(job, served)
    if served is None:
        notes.append(GONE.format(index=job.index_id))
    elif own is None:
        notes.append(REPLACED.format(index=job.index_id, served=served.id))
    missing = {one.work_id for one in named if one.thumbnail is None and not hidden_id(one.work_id)}
    if served is not None and missing:
        notes.append(MISSING.format(count=len(missing)))
    if job.by_row:
        notes.append(BY_ROW)
    elif served is not None and job.lookalikes is None:
        reason = screening or (
            "the screening is still loading or failed" if job.finished else "not found yet"
        )
        without = f"{served.id} {NO_SCREENING}"
        notes.append(NO_LOOKALIKES.format(reason=reason) if served.index.screened else without)
    notes += (job.result or {}).get("notes", [])
    if job.state == JobState.SUCCEEDED:
        measured = own is None or own.index.quality_of(job.method) is not None
        notes += notes_of(measured=measured, in_model=(job.result or {}).get("in_model"))
    if job.upload_gone_at is not None:
        notes.append(PICTURE_GONE)
    if job.prompt is not None and served is not None and not served.conditional:
        notes.append(PROMPT_UNUSED)
    seeded = _seeded_methods()
    if job.seed is not None and job.method not in seeded:
        notes.append(SEED_UNUSED.format(methods=" and ".join(sorted(seeded))))
    return notes
