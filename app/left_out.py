"""What the sender of a share may leave out of an answer, and the answer without it.

It is taken out of the job itself, before anything is told of that, so that page and reports can't tell it. Some parts
lead to others: whoever has the model could make the picture again from prompt and seed, and whoever sees a work finds
out whose it is. So leaving out the one leaves out the other.
"""

from dataclasses import replace
from typing import Any, Literal, get_args

from app.catalogue import ServedIndex
from app.redaction import hidden_id, instead, rounded, seen, told, untitled
from app.schemas import Input
from app.visibility import View
from jobs.models import Job, JsonObject
from jobs.shares import Share

Part = Literal["picture", "settings", "creators", "thumbnails"]
PARTS: tuple[Part, ...] = get_args(Part)
PICTURE, SETTINGS, CREATORS, THUMBNAILS = PARTS
LEADS_TO: dict[str, tuple[Part, ...]] = {PICTURE: (SETTINGS,), CREATORS: (THUMBNAILS,)}

# Nothing of the picture: its digest finds it wherever it lies, and its size and format narrow it down.
NO_PICTURE: JsonObject = {"sha256": "", "width": 0, "height": 0, "format": "", "normalisation": []}


def with_what_leads_there(parts: list[Part]) -> tuple[Part, ...]:
    """These parts, and those that would give them away."""
    all_of_them = {*parts, *(further for part in parts for further in LEADS_TO.get(part, ()))}
    return tuple(part for part in PARTS if part in all_of_them)


def without(job: Job, share: Share, served: ServedIndex, view: View) -> tuple[Job, dict[str, Any] | None]:
    """The job as a share tells it to a viewer, and what a report says of its picture then; None: what the job says.

    Never told, whatever is chosen: the question's own id, its tag, and how long its parts took.
    """
    left, result = set(share.left_out), job.result or {}
    result = {**result, "works": result["works"][: share.works]}
    changes: dict[str, Any] = {"id": share.id, "client_tag": None, "timings": None}
    if SETTINGS in left:
        changes |= {"prompt": None, "seed": None, "input": {**job.input, "declared": None}}
    if PICTURE in left:
        # What looks like it says what it looks like: look-alikes, a copied work, the candidates of a screening.
        result = {**result, "copy": None, "works": [_dissimilar(place) for place in result["works"]]}
        nothing: dict[str, Any] = {"lookalikes": [], "candidate_works": None, "upload_gone_at": None}
        changes |= {"input": {**NO_PICTURE, "declared": None}, **nothing}
    asked = untitled(instead(job, result=result, **changes), served)
    if CREATORS in left:
        # It shows no work, so that it takes from no budget.
        view = replace(view, budget=None)
    # What the sender shows no work of takes from no budget either.
    shown = seen(asked if share.works is None else _of_first_works(asked), view, served)
    if CREATORS in left or share.works is not None:
        named = [] if CREATORS in left else _named(shown)
        fewer = told(asked, view.narrowed(served, named))
        answer = fewer.result or {}
        # That works are hidden is said of those that the sender hasn't left out.
        answer = {**answer, "notes": (shown.result or {}).get("notes", [])}
        if CREATORS in left:
            answer["groups"] = {}
        shown = instead(fewer, result=answer)
    shown = rounded(shown, view.rounding, served)
    return shown, dict.fromkeys(Input.model_fields) if PICTURE in left else None


def _named(job: Job) -> list[str]:
    """The works of an answer that aren't hidden."""
    places = (job.result or {})["works"]
    return [place["work_id"] for place in places if not hidden_id(place["work_id"])]


def _of_first_works(job: Job) -> Job:
    """The job with no look-alikes and no matches of a copy but those that are among its ranked works."""
    result = job.result or {}
    first = {place["work_id"] for place in result["works"]}
    copy = result.get("copy")
    if copy is not None:
        matches = [match for match in copy["matches"] if match["work_id"] in first]
        result = {**result, "copy": {**copy, "matches": matches}}
    lookalikes = job.lookalikes
    if lookalikes is not None:
        lookalikes = [one for one in lookalikes if one["work_id"] in first]
    return instead(job, result=result, lookalikes=lookalikes)


def _dissimilar(place: JsonObject) -> JsonObject:
    """A place in the ranking without how alike the work and the picture look."""
    return {name: value for name, value in place.items() if name not in ("similarity", "copy")}
