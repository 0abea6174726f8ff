"""What an attribution says: ranked works, shares by creator, and one sentence in words. No torch in here."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol, TypeVar

import numpy as np

from das.copies import CopyVerdict
from das.intervals import ShareNoise
from das.lookups import Grouping
from das.manifest import NOT_MEASURED
from das.parts import Parts
from das.plurals import counted
from das.works import Works

UNKNOWN_CREATOR = "Unknown creator"
GROUPS_KEPT = 100
"""Groups in an answer, largest share first; an index may name a hundred thousand creators."""

_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
NOT_IN_MODEL = (
    "Whether this picture looks like this model's output has not been measured for this index: for a picture that"
    " another source made, the ranking would look just as sure."
)

IN_MODEL_UNSURE = (
    "The picture isn't as this model makes them: it is less like them than any of {references} that it made. One of"
    " them that was re-encoded, resized or edited could look so."
)
LIKE_HELD_OUT = (
    "The picture looks more like those of this kind that the model was not trained on than like the {references} that"
    " it made."
)
IN_MODEL_UNLIKELY = (
    "The picture is less like this model's than any of {references} that it made, also were it re-encoded."
)
NEAREST = (
    "What is ranked here is what the model knows that is nearest to it, which says nothing of where the picture comes"
    " from."
)
FLAT = (
    "Its first work stands out less than that of {part} of {references} pictures that the model made, so the ranking"
    " is flat."
)

CANDIDATES_GONE = "{count} of the candidates {are} no longer in the index and {were} left out."
IF_THE_MODELS = "If it is the model's: "
CLOSE = "The first two works are too close to tell apart: at other timesteps the second could come first."

HIDDEN_PREFIX = "hidden_"
"""How ids of works begin that an answer doesn't name; they are good in that answer only."""

_STANDS_OUT = 3.0
"""A first work with less than this many times the mean share doesn't stand out."""
FLAT_BELOW = 5.0
"""A first work that stands out less than those of all but so many percent of the references is said to."""


@dataclass(frozen=True)
class RankedWork:
    """One work of the answer: its score (no unit), part of all candidates' scores, and percentile.

    `rank` counts from 1, `percentile` is how many percent of the candidates score lower. `work_id` names the work
    wherever an answer is kept; `row` is where this index has it now, and goes no further.
    """

    rank: int
    work_id: str
    row: int
    score: float
    share: float
    percentile: float
    low: float | None = None
    high: float | None = None
    """Of the share, 95 % (das.intervals); None: not measured, or not every work was a candidate."""


@dataclass(frozen=True)
class GroupShare:
    """The works of one creator together.

    `works` counts the group's candidates, `share_of_index` is their part of all candidates by number, and
    `factor` is share / share_of_index: 1 if the group has the influence its number would suggest.
    """

    name: str
    share: float
    works: int
    share_of_index: float
    factor: float
    low: float | None = None
    high: float | None = None
    """Of the share, 95 %, like a work's."""


@dataclass(frozen=True)
class CandidateSet:
    """Which works an answer is about: all of the index, or a screened selection.

    `approximate` is of all, too, but the best were searched for and only `scored` of them scored.
    """

    mode: Literal["all", "screened", "approximate"]
    count: int
    scored: int | None = None
    """None where all candidates were."""

    @property
    def every(self) -> bool:
        """Whether shares are those of all works."""
        return self.mode != "screened"

    def as_result(self) -> dict[str, Any]:
        """As plain values."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class Attribution:
    """The answer to one query. Works are best first; `groups` by `creator` and `rights_holder`, largest first."""

    index_id: str
    method: str
    candidates: CandidateSet
    works: tuple[RankedWork, ...]
    groups: Mapping[str, tuple[GroupShare, ...]]
    summary: str
    timings_ms: Mapping[str, float]
    in_model: Mapping[str, Any] | None = None
    """Whether the model made the picture (`References.in_model`); None: the index has no references."""
    certainty: Mapping[str, Any] | None = None
    """Whether the first work stands out, and among how many percent of the references; None like `in_model`."""
    copy: CopyVerdict | None = None
    """Which works the picture itself is a copy of, whatever their influence; None: the index has no hashes."""
    caveats: tuple[str, ...] = ()
    """Sentences that have to be said with the summary."""

    def as_result(self) -> dict[str, Any]:
        """As plain values, for a result row or `--json`."""
        return {
            "method": self.method,
            "candidates": self.candidates.as_result(),
            "works": [_kept(work) for work in self.works],
            "groups": {kind: [asdict(group) for group in groups] for kind, groups in self.groups.items()},
            "summary": self.summary,
            "in_model": None if self.in_model is None else dict(self.in_model),
            "certainty": None if self.certainty is None else dict(self.certainty),
            "copy": None if self.copy is None else self.copy.as_result(),
            "caveats": list(self.caveats),
            "timings_ms": dict(self.timings_ms),
        }


def _kept(work: RankedWork) -> dict[str, Any]:
    return {name: value for name, value in asdict(work).items() if name != "row"}


def group_shares(
    parts: Parts,
    names: Sequence[str | None] | Grouping,
    leading: int | None = None,
    noise: ShareNoise | None = None,
) -> tuple[GroupShare, ...]:
    """The groups by their `names`, largest share first.

    The largest `GROUPS_KEPT` are kept, and that of the creator `leading`, whom the answer's sentence may name.

    Args:
        noise: None for groups whose noise wasn't measured.
    """
    present = np.flatnonzero(parts.works)
    order = present[np.argsort(-parts.shares[present], kind="stable")]
    kept = [*order[:GROUPS_KEPT], *(code for code in order[GROUPS_KEPT:] if code == leading)]
    groups = []
    for code in kept:
        share, part = float(parts.shares[code]), float(parts.of_candidates[code])
        low, high = _interval(parts, int(code), share, noise)
        groups.append(
            GroupShare(
                names[code] or UNKNOWN_CREATOR, share, int(parts.works[code]), part, share / part, low, high
            )
        )
    return tuple(groups)


def _interval(
    parts: Parts, code: int, share: float, noise: ShareNoise | None
) -> tuple[float | None, float | None]:
    """Of a group's share: as the noise goes, the sampling where it was estimated, or both."""
    told = None if noise is None else noise.interval(share, "creators")
    sampled = None if parts.sampled is None else parts.sampled.interval(code)
    if told is None or sampled is None:
        return told or sampled or (None, None)
    # Independent of each other (the method of variance estimates recovery).
    below = math.hypot(share - told[0], share - sampled[0])
    above = math.hypot(told[1] - share, sampled[1] - share)
    return max(0.0, share - below), min(1.0, share + above)


class Part(Protocol):
    """Whatever has a share: a work or a creator, here or in the API's answer. None: below what an operator tells."""

    @property
    def share(self) -> float | None: ...

    @property
    def low(self) -> float | None: ...

    @property
    def high(self) -> float | None: ...


class Whole(Protocol):
    """The candidates, here or in the API's answer."""

    @property
    def count(self) -> int: ...


class Together(Part, Protocol):
    """The works of a creator together."""

    @property
    def name(self) -> str: ...

    @property
    def works(self) -> int: ...

    @property
    def share_of_index(self) -> float | None: ...

    @property
    def factor(self) -> float | None: ...


G = TypeVar("G", bound=Together)


def stands_out(first: Part, candidates: Whole) -> bool:
    """Whether the first work holds several times the mean share, or there is no other."""
    share = first.share or 0.0
    return share > 0 and (share * candidates.count >= _STANDS_OUT or candidates.count == 1)


def told_alone(first: Part, own: Together, *, estimated: bool = False) -> bool:
    """Whether the sentence names the first work alone and not all of its creator's, `own`.

    It does where they have no more influence than their number suggests, or the work holds all that they do.

    Args:
        estimated: whether their shares are estimates.
    """
    return (
        own.factor is None
        or own.share is None
        or _beyond(own, estimated=estimated) <= 0
        or math.isclose(own.factor, 1)
        or own.works == 1
        or (first.share is not None and percent(own.share) == percent(first.share))
    )


def headline_of(summary: str, in_model: Mapping[str, Any] | None) -> str:
    """The sentence on top: `summary`, unless the picture isn't the model's own as the model makes them.

    Then nobody is named: whoever is named on top is taken for the source, whatever is said below.
    """
    if in_model is None or in_model["verdict"] == "likely":
        return summary
    if in_model["verdict"] == "unsure":
        return (
            "No creator is named: this may be one of the model's pictures that was re-encoded or edited, or may come"
            " from elsewhere."
        )
    return "No creator is named: this picture doesn't look like one that the model made."


def caveats_of(
    summary: str, in_model: Mapping[str, Any] | None, certainty: Mapping[str, Any] | None
) -> list[str]:
    """What has to be said with the headline: of the picture's origin, and of a ranking that is flat.

    A ranking that is flat is told of only where the picture is the model's: of another's it says nothing.
    """
    if in_model is None:
        return []
    told = {"references": f"{in_model['references']:,}"}
    # Nearer than some reference it isn't strange as it is: then only the held-out pictures speak against it.
    far = in_model["p_value"] * (in_model["references"] + 1) < 1.5
    if in_model["verdict"] == "unsure":
        why = IN_MODEL_UNSURE if far else LIKE_HELD_OUT
        return [why.format(**told), f"{IF_THE_MODELS}{summary[0].lower()}{summary[1:]}"]
    if in_model["verdict"] == "unlikely":
        why = IN_MODEL_UNLIKELY if far else LIKE_HELD_OUT
        return [f"{why.format(**told)} {NEAREST}"]
    said = []
    percentile = None if certainty is None else certainty["percentile"]
    if percentile is not None and percentile < FLAT_BELOW:
        said.append(FLAT.format(part=percent(1 - percentile / 100), references=told["references"]))
    if certainty is not None and certainty.get("clearly_first") is False:
        said.append(CLOSE)
    return said


def summarise(works: Works, first: RankedWork, groups: Sequence[GroupShare], candidates: CandidateSet) -> str:
    """The answer in one sentence, whose number for a creator is the one in `groups`.

    Named is the creator of the first work, or another whose works together hold more, if what they hold beyond what
    their number suggests is also more than that work does: held against models trained again without a group, the sum
    of its scores names the right one far more often than its largest (docs/results/evaluation.md). The first work is
    named beside where another made it, or where it holds half of what they do. It is named alone where it holds all
    that they do, where its creator isn't known, or where they have no more influence than their number suggests; and
    where nothing stands out, that is said.
    """
    title, creator = (works.value(column, first.row) for column in ("title", "creator"))
    return sentence_of(title, creator, first, groups, candidates)


def sentence_of(
    title: str | None,
    creator: str | None,
    first: Part,
    groups: Sequence[Together],
    candidates: CandidateSet,
    floor: float = 0.0,
) -> str:
    """`summarise` where the first work's title and creator are these; without either it names nobody.

    Args:
        floor: what a share is below that is None.
    """
    if candidates.every:
        among = f"among {counted(candidates.count, 'work')}"
    else:
        among = f"among the {counted(candidates.count, 'most similar work')}"
    if first.share == 0:
        return f"No influence was measured {among}."
    if first.share is not None and not stands_out(first, candidates):
        return (
            f"No work stands out: the highest-ranked accounts for {_with_interval(first, floor)} of the measured"
            f" influence {among}."
        )
    by = f" by {creator}" if creator else ""
    called = f"“{title}”" if title else "one of them"
    own = next((group for group in groups if group.name == creator), None) if creator else None
    estimated = candidates.mode == "approximate"
    other = named_instead(first, creator, own, groups, estimated=estimated)
    if other is not None:
        return (
            f"The {number_word(other.works)} works by {other.name} account for {_with_interval(other, floor)} of the"
            f" measured influence {among}; ranked first is {called if title else 'a work'}"
            f"{by or ' of an unknown creator'}, alone for {_told(first.share, floor)}."
        )
    if own is None or told_alone(first, own, estimated=estimated):
        if first.share is None:
            return f"The highest-ranked work accounts for {_told(None, floor)} of the measured influence {among}."
        named = f", {called}," if title else ""
        return f"One work{by}{named} accounts for {_with_interval(first, floor)} of the measured influence {among}."
    alone = f"; {called} alone for {_told(first.share, floor)}" if half_of(first, own) else ""
    return (
        f"The {number_word(own.works)} works{by} account for {_with_interval(own, floor)}"
        f" of the measured influence {among}{alone}."
    )


def named_instead(
    first: Part, creator: str | None, own: Together | None, groups: Sequence[G], *, estimated: bool = False
) -> G | None:
    """The creator whom the sentence names instead of the first work's, `creator` with `own`; None: nobody.

    Args:
        estimated: whether the groups' shares are estimates, so that nobody is named by the luck of a sample.
    """
    most = next(
        (
            group
            for group in groups
            if group.name != UNKNOWN_CREATOR and _beyond(group, estimated=estimated) > (first.share or 0.0)
        ),
        None,
    )
    if (
        most is None
        or most.name == creator
        or (own is not None and (most.share or 0.0) <= (own.share or 0.0))
    ):
        return None
    return most


def half_of(first: Part, own: Part) -> bool:
    """Whether the first work holds half of what all of its creator's do, `own`."""
    return (first.share or 0.0) >= (own.share or 0.0) / 2


def _beyond(group: Together, *, estimated: bool) -> float:
    """How much more it holds than its number suggests; of an estimate, at the least."""
    return ((group.low if estimated else group.share) or 0.0) - (group.share_of_index or 0.0)


def _with_interval(one: Part, floor: float) -> str:
    """`20 % (15 to 26 %)`, or the share alone."""
    share = _told(one.share, floor)
    if one.low is None or one.high is None:
        return share
    low, high = percent(one.low), percent(one.high)
    return share if low == high else f"{share} ({low.removesuffix(' %')} to {high})"


def _told(share: float | None, floor: float) -> str:
    return f"less than {100 * floor:.6g} %" if share is None else percent(share)


def notes_of(*, measured: bool, in_model: Mapping[str, Any] | None) -> list[str]:
    """What has to be said with every answer, on the page, by the API and by the command.

    Args:
        measured: whether the ranking was held against retraining, or nobody can tell any more.
        in_model: what is known of the picture being the model's own.
    """
    notes = []
    if in_model is None:
        notes.append(NOT_IN_MODEL)
    if not measured:
        notes.append(NOT_MEASURED)
    return notes


def percent(share: float) -> str:
    """A share with two significant digits at most."""
    value = 100.0 if math.isclose(share, 1, rel_tol=1e-9) else 100 * share
    if 99.5 <= value < 100:
        return "over 99 %"
    if value < 0.1:
        return "less than 0.1 %"
    return f"{value:.0f} %" if value >= 9.95 else f"{value:.1f} %"


def number_word(number: int) -> str:
    """Numbers up to ten in words."""
    return _NUMBERS[number] if number < len(_NUMBERS) else f"{number:,}"
