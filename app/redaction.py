"""Answers as they may be told: rows without names, creators together, sentences that name nobody, rounded shares.

A row keeps its rank, score and share, so that an answer still adds up, under an id that is good within the answer
only. What is stored stays as it is: an answer is redacted whenever it is told, by what is hidden at that moment.
"""

import itertools
import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, cast

from app.catalogue import Catalogue, ServedIndex
from app.language import ENGLISH
from app.moderation.causes import NAMED
from app.rounding import Interval, Rounding
from app.schemas import Group
from app.visibility import Shade, Unserved, View
from das.answer import (
    FLAT,
    FLAT_BELOW,
    HIDDEN_PREFIX,
    IF_THE_MODELS,
    CandidateSet,
    caveats_of,
    headline_of,
    percent,
    sentence_of,
    stands_out,
)
from das.card import cell
from jobs.models import Job, JobState, JobSummary, JsonObject

WITHHELD = "Withheld"
"""What the creators together are called of whom no work may be shown."""

NOTE = (
    "{works} of the works named here {are} hidden, by opt-outs or by the operator's rule of who may see them: rank,"
    " score and share stand, under ids that are good in this answer only."
)
FLATTER_THAN = percent(1 - FLAT_BELOW / 100)
"""Than how many of the references' a ranking is flatter, where exactly how many isn't told."""
_FLAT = re.compile("({}).+?({})".format(*map(re.escape, FLAT.partition("{references}")[0].split("{part}"))))
"""The caveat of a flat ranking, around how many of the references it is flatter than."""
LOOKALIKES = 12
"""How many of the similarities that were kept are shown as look-alikes; the others go beside the ranked works."""

ABOUT_HIDDEN = ENGLISH("decision.hidden")
NOTE_CREATORS = "Creators none of whose works may be shown are taken together as “Withheld”."
NOTE_HOLDERS = "Rights holders none of whose works may be shown are taken together as “Withheld”."
NOTES_GROUPS = {"creator": NOTE_CREATORS, "rights_holder": NOTE_HOLDERS}
NOTE_LOOKALIKES = "Look-alikes that are hidden are left out."
ABOUT_OTHERS = (NOTE_CREATORS, NOTE_HOLDERS, NOTE_LOOKALIKES)
NOTE_SPENT = (
    "{works} of this answer's works {are} withheld: as many different works were shown in the last 24 hours as may"
    " be. Rank, score and share stand, under ids that are good in this answer only; look again later, for each work"
    " counts for 24 hours."
)


def shown(job: Job, view: View | None, catalogue: Catalogue) -> Job:
    """The job as it may be told to a viewer; None: to nobody, so that all of it counts, as for deciding about it."""
    if view is None:
        return job
    served = catalogue.reading(job.index_id)
    return rounded(seen(untitled(job, served), view, served), view.rounding, served)


def seen(job: Job, view: View, served: ServedIndex | None) -> Job:
    """The job without what a viewer isn't shown, because it is hidden or their budget of works is used up; `told`
    otherwise. What is shown takes from that. Blocks for a moment where there is one.

    Raises:
        StorageError: it can't be recorded what is shown, so nothing is.
    """
    if served is None:
        # What the notes say of works whose visibility is known isn't so of these.
        nothing = told(job, Unserved())
        if nothing is job or nothing.result is None:
            return nothing
        return instead(nothing, result={**nothing.result, "notes": _notes(job)})
    visible = told(job, view.of(served))
    if view.budget is None or job.by_row:
        return visible
    named = works_of(visible)
    allowed = view.allowed(named)
    if len(allowed) == len(named):
        return _without_other_candidates(visible, allowed)
    fewer = told(job, view.narrowed(served, allowed))
    # How many are hidden is told as ever, and how many are withheld beside it.
    kept, withheld = _notes(visible), len(named) - len(allowed)
    notes = [note for note in _notes(fewer) if note in ABOUT_OTHERS and note not in kept]
    spent = NOTE_SPENT.format(works=withheld, are="is" if withheld == 1 else "are")
    return instead(fewer, result={**(fewer.result or {}), "notes": [*kept, *notes, spent]})


def _notes(job: Job) -> list[str]:
    return list((job.result or {}).get("notes", ()))


def works_of(job: Job) -> list[str]:
    """The ids of the works that an answer shows, in the order in which a budget is spent on them."""
    result = (job.result if job.state == JobState.SUCCEEDED else None) or {}
    parts = [(result.get("copy") or {}).get("matches", ()), result.get("works", ())]
    shown = [*parts[0], *parts[1], *(job.lookalikes or ())[:LOOKALIKES]]
    return [work_id for work_id in dict.fromkeys(one["work_id"] for one in shown) if not hidden_id(work_id)]


def _without_other_candidates(job: Job, allowed: frozenset[str]) -> Job:
    """The job whose candidates go by ids of this answer, but for those that it shows: a report lists them all."""
    if job.candidate_works is None or allowed.issuperset(job.candidate_works):
        return job
    result = job.result or {}
    places = [*result.get("works", ()), *(result.get("copy") or {}).get("matches", ())]
    hidden = {one for one in (*job.candidate_works, *(p["work_id"] for p in places)) if hidden_id(one)}
    number = itertools.count(len(hidden) + 1)
    candidates = [
        one if one in allowed or hidden_id(one) else f"{HIDDEN_PREFIX}{next(number)}"
        for one in job.candidate_works
    ]
    return instead(job, candidate_works=candidates)


def instead(job: Job, **told: Any) -> Job:
    """The job with these attributes in place of its own, to be told and never stored."""
    return cast(Job, _Told(job, **told))


def rounded(job: Job, rounding: Rounding | None, served: ServedIndex | None) -> Job:
    """The job with its shares as the operator lets them be told, and its sentences made of those."""
    result = job.result
    if rounding is None or result is None or job.by_row or job.state != JobState.SUCCEEDED:
        return job
    # Where no influence was measured, there is none to round.
    if not result["works"] or result["works"][0]["share"] == 0:
        return job
    works, groups_of = _intervals(job, served)
    candidates = CandidateSet(result["candidates"]["mode"], result["candidates"]["count"])
    places = [rounding.work(place, works) for place in result["works"]]
    certainty = result.get("certainty")
    if certainty is not None:
        # How many of the references' shares are smaller says what the share is to who knows those.
        ahead = stands_out(_First.of(places[0]), candidates)
        certainty = {**certainty, "stands_out": ahead, "percentile": None}
    result = {
        **result,
        "works": places,
        "groups": {
            kind: [rounding.group(one, groups_of) for one in groups]
            for kind, groups in result["groups"].items()
        },
        "certainty": certainty,
        "caveats": [_FLAT.sub(rf"\g<1>{FLATTER_THAN}\g<2>", caveat) for caveat in result.get("caveats", ())],
        "rounding": rounding.model_dump(),
        "notes": [*result.get("notes", []), rounding.note()],
    }
    work = None if served is None else served.find(result["works"][0]["work_id"])
    # Those of whom nothing may be shown aren't named by the word that stands for them either.
    groups = [
        Group.model_validate(one) for one in result["groups"].get("creator", ()) if one["name"] != WITHHELD
    ]
    title, creator = (None, None) if work is None else (work["title"], work["creator"])
    return instead(job, result={**result, **_sentences(result, title, creator, groups, rounding.floor)})


def _intervals(job: Job, served: ServedIndex | None) -> tuple[Interval | None, Interval | None]:
    """How the answer's index finds the intervals of works' and of creators' shares; None where it isn't served."""
    references = None if served is None or served.id != job.index_id else served.index.references
    noise = None if references is None else references.noise.get(job.method)
    if noise is None:
        return None, None
    works = partial(noise.interval, kind="works")
    # How far an estimate may be off doesn't follow from the share as it is told.
    estimated = (job.result or {})["candidates"]["mode"] == "approximate"
    return works, None if estimated else partial(noise.interval, kind="creators")


class _Told:
    """A job with another answer; everything else is the job's."""

    def __init__(self, job: Job, **instead: Any) -> None:
        self._job = job
        self.__dict__.update(instead)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._job, name)


def card_for(card: str | None, shade: Shade | None) -> str | None:
    """An index's card without the lines of its lists and tables that are about creators who aren't shown."""
    if card is None or shade is None or not shade.creators:
        return card
    listed = "|".join(map(re.escape, shade.creators))
    card = re.sub(rf"^- (?:{listed}): [\d,]+\n", "", card, flags=re.MULTILINE)
    hidden = {f"| {cell(name)} |" for name in shade.creators}
    lines = card.split("\n")
    return "\n".join(line for line in lines if line[: line.find(" |", 1) + 2] not in hidden)


def told_verdict(
    verdict: JsonObject, shade: Shade | Unserved | None, instead: Mapping[str, str | None]
) -> JsonObject:
    """What a policy said of an answer, without the names of what isn't shown; the outcome and its codes stay.

    Args:
        shade: None only where nothing is hidden and there is no budget of works.
        instead: notes that name it, and what is said in place of each.
    """
    reasons = [reason if shade is None else _reason(reason, shade) for reason in verdict["reasons"]]
    notes = [instead.get(note, note) for note in verdict["notes"]]
    return {**verdict, "reasons": reasons, "notes": [note for note in notes if note is not None]}


def _reason(reason: JsonObject, shade: Shade | Unserved) -> JsonObject:
    if isinstance(shade, Unserved):
        nobody = not reason["works"] and not reason["creators"]
        return (
            reason
            if nobody
            else {**reason, "text": ABOUT_HIDDEN, "compared": [], "works": [], "creators": []}
        )
    hidden = [work_id for work_id in reason["works"] if shade.work(work_id)]
    works = shade.served.index.works
    rows = [works.find(one) for one in hidden]
    theirs = {works.value("creator", row) for row in rows if row is not None}
    # Whose a work is that isn't in the index any more isn't known.
    withheld = {name for name in reason["creators"] if None in rows or shade.withholds("creator", name)}
    unnamed = theirs | shade.creators | withheld
    # Verdicts that were kept by earlier versions may tell of more works and creators than they name.
    further = len(reason["works"]) >= NAMED or len(reason["creators"]) >= NAMED
    if not further and not hidden and not unnamed & {*reason["creators"]}:
        return reason
    return {
        **reason,
        "text": ABOUT_HIDDEN,
        "compared": [],
        "works": [work_id for work_id in reason["works"] if work_id not in hidden],
        "creators": [name for name in reason["creators"] if name not in unnamed],
    }


def may_name(job: JobSummary, shade: Shade | None, served: ServedIndex | None) -> bool:
    """Whether the sentence that is kept of an answer may name whom the answer doesn't, as it is told.

    Args:
        served: what tells of its works.
    """
    if job.summary is None:
        return False
    # Without an id for its first work an answer is kept by row.
    if job.first_work is None or served is None or served.find(job.first_work) is None:
        return True
    if shade is None:
        return False
    # Of a version that isn't served any more it may name a creator of whom nothing is left.
    doubtful = served.id != job.index_id and (shade.narrow or shade.gone.anything)
    return doubtful or shade.work(job.first_work) or shade.named_in(job.summary)


def hidden_id(work_id: str) -> bool:
    """Whether an id of an answer stands for a work that isn't shown."""
    return work_id.startswith(HIDDEN_PREFIX)


def untitled(job: Job, served: ServedIndex | None) -> Job:
    """The job with sentences that name nobody where its first work isn't in the version that is served: itself where
    it is. A work has its title from that version, and none where it was removed."""
    result = job.result
    if result is None or job.by_row or job.state != JobState.SUCCEEDED or not result["works"]:
        return job
    if served is not None and served.find(result["works"][0]["work_id"]) is not None:
        return job
    return instead(job, result={**result, **_sentences(result, None, None, ())})


def told(job: Job, shade: Shade | Unserved | None) -> Job:
    """The job as it may be told: itself where nothing of its answer is hidden."""
    if shade is None or job.by_row:
        return job
    opaque = _Opaque(shade)
    result = job.result
    lookalikes = job.lookalikes
    if job.state == JobState.SUCCEEDED and result is not None:
        result = _result(result, shade, opaque)
    if lookalikes is not None:
        lookalikes = [item for item in lookalikes if not shade.work(item["work_id"])]
    fewer = job.lookalikes is not None and lookalikes is not None and len(lookalikes) < len(job.lookalikes)
    if result is job.result and not fewer:
        return job
    # Similarities are kept of more works than are told as look-alikes.
    if result is not None and any(
        shade.work(item["work_id"]) for item in (job.lookalikes or ())[:LOOKALIKES]
    ):
        result = {**result, "notes": [*result.get("notes", []), NOTE_LOOKALIKES]}
    candidates = job.candidate_works
    if candidates is not None:
        candidates = [opaque.of(work_id) for work_id in candidates]
    return instead(job, result=result, lookalikes=lookalikes, candidate_works=candidates)


class _Opaque:
    """Gives hidden works their ids: in the order in which they are met."""

    def __init__(self, shade: Shade | Unserved) -> None:
        self._shade = shade
        self._given: dict[str, str] = {}

    def of(self, work_id: str) -> str:
        """The id that a work goes by in this answer."""
        if not self._shade.work(work_id):
            return work_id
        return self._given.setdefault(work_id, f"{HIDDEN_PREFIX}{len(self._given) + 1}")


def _result(result: JsonObject, shade: Shade | Unserved, opaque: _Opaque) -> JsonObject:
    works = [_place(place, opaque) for place in result["works"]]
    count = sum(hidden_id(place["work_id"]) for place in works)
    copy = result.get("copy")
    if copy is not None:
        matches = [{**match, "work_id": opaque.of(match["work_id"])} for match in copy["matches"]]
        count += len(
            {m["work_id"] for m in matches if hidden_id(m["work_id"])} - {w["work_id"] for w in works}
        )
        copy = {**copy, "matches": matches}
    groups = {kind: _groups(kind, listed, shade) for kind, listed in result["groups"].items()}
    notes = [*result.get("notes", [])]
    if count:
        notes.append(NOTE.format(works=count, are="is" if count == 1 else "are"))
    notes += [note for kind, note in NOTES_GROUPS.items() if groups.get(kind) != result["groups"].get(kind)]
    changed = {**result, "works": works, "groups": groups, "notes": notes}
    if copy is not None:
        changed["copy"] = copy
    if works and (hidden_id(works[0]["work_id"]) or _names_withheld(result, shade)):
        changed.update(_sentences(changed, None, None, ()))
    return changed


def _names_withheld(result: JsonObject, shade: Shade | Unserved) -> bool:
    """Whether a sentence names a creator none of whose works may be shown, who needn't be the first work's."""
    creators = [group["name"] for group in result["groups"].get("creator", ())]
    sentences = [result["summary"], *result.get("caveats", ())]
    return any(
        shade.withholds("creator", name) and any(name in sentence for sentence in sentences)
        for name in creators
    )


def _place(place: JsonObject, opaque: _Opaque) -> JsonObject:
    work_id = opaque.of(place["work_id"])
    if work_id == place["work_id"]:
        return place
    return {**place, "work_id": work_id, "similarity": None}


def _groups(kind: str, groups: list[JsonObject], shade: Shade | Unserved) -> list[JsonObject]:
    withheld = [group for group in groups if shade.withholds(kind, group["name"])]
    if not withheld:
        return groups
    together: JsonObject = {
        name: sum(group[name] for group in withheld) for name in ("share", "works", "share_of_index")
    }
    together |= {
        "name": WITHHELD,
        "factor": together["share"] / together["share_of_index"] if together["share_of_index"] else 0.0,
        "low": None,
        "high": None,
    }
    shown = [group for group in groups if not shade.withholds(kind, group["name"])]
    return sorted([*shown, together], key=lambda group: -group["share"])


class _First(NamedTuple):
    """What the answer's sentence says of the first work in numbers."""

    share: float | None
    low: float | None
    high: float | None

    @classmethod
    def of(cls, place: JsonObject) -> "_First":
        return cls(*(place.get(name) for name in cls._fields))


def _sentences(
    result: JsonObject, title: str | None, creator: str | None, groups: Sequence[Group], floor: float = 0.0
) -> JsonObject:
    """What the answer says in words, where the first work's title and creator are these; without, it names nobody."""
    in_model: Mapping[str, Any] | None = result.get("in_model")
    candidates = CandidateSet(result["candidates"]["mode"], result["candidates"]["count"])
    first = _First.of(result["works"][0])
    summary = sentence_of(title, creator, first, groups, candidates, floor)
    again = caveats_of(summary, in_model, result.get("certainty"))
    said = next((caveat for caveat in again if caveat.startswith(IF_THE_MODELS)), None)
    caveats = [
        said if said is not None and caveat.startswith(IF_THE_MODELS) else caveat
        for caveat in result.get("caveats", ())
    ]
    return {"summary": headline_of(summary, in_model), "caveats": caveats}
