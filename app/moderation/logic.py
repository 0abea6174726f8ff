"""Deciding: a policy and an answer in, an outcome with its reasons out. Pure; the same every time.

Conditions have three values: true, false, and None where the answer doesn't have what is needed (Kleene's logic: what
isn't known only counts where it could change the result). What a rule can't decide makes the decision indeterminate
unless a rule that is at least as strong fires. And whatever the rules say, only a picture that the model has likely
made is cleared.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from dataclasses import field as member
from typing import Any, Literal

from app.language import ENGLISH
from app.moderation import words
from app.moderation.causes import Cause, Compared, Seen, Truth, both, either, gathered
from app.moderation.fields import Field, Place
from app.moderation.policy import (
    FURTHER_PICTURES,
    MODEL_CODES,
    NO_RULE,
    NOT_ANSWERED,
    POLICY_UNUSABLE,
    STRENGTH,
    ChoiceTest,
    NumberTest,
    Policy,
    Rule,
    Test,
    TextTest,
)
from app.schemas import Attribution, Copy, Group, Share
from das.names import folded
from das.versions import name_in

Decided = Literal["clear", "review", "block", "indeterminate"]

# What normalisation says of a file with further pictures than its first, an animation or a document of pages.
FIRST_FRAME = "first-frame"
# What the index says of a work, and the answer as long as the index has it.
METADATA = ("creator", "rights_holder", "licence", "tdm")
# Fields of which every copied work has its own value.
COPIED = ("copy.work_id", "copy.creator")


@dataclass(frozen=True)
class Reason:
    """Why: a stable code, what it asks for, whether its rule fired or couldn't be decided, and in words."""

    code: str
    outcome: Decided
    fired: bool
    text: str
    because: str | None = None
    compared: tuple[Compared, ...] = ()
    works: tuple[str, ...] = ()
    creators: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """An outcome with its reasons, those that brought it about first, and sentences that have to be told beside."""

    outcome: Decided
    reasons: tuple[Reason, ...]
    notes: tuple[str, ...] = ()

    @property
    def codes(self) -> list[str]:
        """The codes of the reasons that brought the outcome about."""
        return [reason.code for reason in self.reasons if reason.outcome == self.outcome]

    @property
    def summary(self) -> str:
        return words.summary(self.outcome, self.codes)


def unusable(policy_id: str, version: int) -> Verdict:
    """What is said where a policy's version can't be read any more: nothing was found out."""
    text = ENGLISH("decision.policy_unusable", policy=policy_id, version=version)
    return Verdict("indeterminate", (Reason(POLICY_UNUSABLE, "indeterminate", True, text),))


@dataclass(frozen=True)
class CopiedWork:
    """A work that a picture is a copy of; `creator` is None where the index names none or hasn't the work."""

    work_id: str
    creator: str | None
    known: bool = True
    """Whether the index has the work."""


def decide(policy: Policy, answer: Attribution, copied: Sequence[CopiedWork] = ()) -> Verdict:
    """What this policy says of an answer.

    Args:
        copied: every work that has the answer's copy verdict; empty: the one that the answer names.
    """
    if answer.state != "succeeded" or answer.works is None:
        why = words.NO_ANSWER.get(answer.state, words.NO_WORKS)
        if answer.error is not None:
            why = answer.error.message.rstrip(".")
        reason = Reason(NOT_ANSWERED, "indeterminate", True, ENGLISH("decision.not_answered", why=why))
        return Verdict("indeterminate", (reason,))
    looking = _Looking(policy, answer, copied)
    found = [(rule, looking.condition(rule.when)) for rule in policy.rules]
    fired = [(rule, cause) for rule, cause in found if cause.holds]
    open_ = [(rule, cause) for rule, cause in found if cause.holds is None]

    strongest = max((STRENGTH[rule.outcome] for rule, _ in fired), default=0)
    outcome: Decided = next(
        (rule.outcome for rule, _ in fired if STRENGTH[rule.outcome] == strongest), policy.default
    )
    # What it would be if those that couldn't be decided held.
    lacking = [
        (rule, cause)
        for rule, cause in open_
        if rule.outcome != outcome and (not fired or STRENGTH[rule.outcome] > strongest)
    ]
    reasons: list[Reason] = []
    against = list(_never_cleared(answer))
    if lacking or (outcome == "clear" and against):
        outcome = "indeterminate"
        reasons += against
    elif not fired:
        reasons.append(Reason(NO_RULE, outcome, True, ENGLISH("decision.no_rule_fired", default=outcome)))
    reasons += [_lacked(rule, cause) for rule, cause in lacking]
    fired.sort(key=lambda pair: -STRENGTH[pair[0].outcome])
    reasons += [_fired(rule, cause) for rule, cause in fired]
    return Verdict(outcome, tuple(reasons), tuple(_notes(answer)))


def _never_cleared(answer: Attribution) -> Iterator[Reason]:
    """Why no policy may clear this: the model hasn't likely made it, or the file holds more than was looked at."""
    verdict = None if answer.in_model is None else answer.in_model.verdict
    if verdict != "likely":
        yield Reason(MODEL_CODES[verdict], "indeterminate", True, words.NOT_THE_MODELS[verdict])
    if FIRST_FRAME in answer.input.normalisation:
        yield Reason(FURTHER_PICTURES, "indeterminate", True, words.FURTHER_PICTURES)


def _notes(answer: Attribution) -> Iterator[str]:
    """What has to be told whatever the rules say: a copy, another's picture, pictures not looked at."""
    if answer.copied is not None and answer.copied.summary is not None:
        yield answer.copied.summary
    if answer.in_model is not None and answer.in_model.verdict != "likely":
        yield words.NOT_THE_MODELS[answer.in_model.verdict]
    if FIRST_FRAME in answer.input.normalisation:
        yield words.FURTHER_PICTURES


def _fired(rule: Rule, cause: Cause) -> Reason:
    compared = tuple(seen.told() for seen in cause.compared)
    text = words.sentence(one.text for one in compared)
    return Reason(rule.code, rule.outcome, True, text, rule.because, compared, cause.works, cause.creators)


def _lacked(rule: Rule, cause: Cause) -> Reason:
    compared = tuple(seen.told() for seen in cause.compared)
    text = f"{words.UNDECIDED} {words.sentence(one.text for one in compared)}"
    return Reason(
        rule.code, "indeterminate", False, text, rule.because, compared, cause.works, cause.creators
    )


@dataclass
class _Looking:
    """One answer, looked at by one policy."""

    policy: Policy
    answer: Attribution
    copied: Sequence[CopiedWork]
    influence: bool = member(init=False)
    lists: dict[str, frozenset[str]] = member(init=False)

    def __post_init__(self) -> None:
        verdict = None if self.answer.in_model is None else self.answer.in_model.verdict
        # Where it isn't known who made it, what was measured stands; where it looks like another's, it says nothing.
        self.influence = verdict in (None, "likely")
        self.lists = {name: frozenset(map(folded, names)) for name, names in self.policy.lists.items()}

    @property
    def _no_influence(self) -> str:
        return words.NO_INFLUENCE["" if self.answer.in_model is None else self.answer.in_model.verdict]

    def condition(self, condition: Any) -> Cause:
        causes = [self._test(field, test, self.answer) for field, test in condition.tests("answer")]
        if condition.works is not None:
            causes.append(self._some_work(condition.works))
        if condition.creators is not None:
            causes.append(self._some_creator(condition.creators))
        causes += [self.condition(inner) for inner in condition.all_ or ()]
        if condition.any_:
            causes.append(either(self.condition(inner) for inner in condition.any_))
        if condition.not_ is not None:
            inner = self.condition(condition.not_)
            holds = None if inner.holds is None else not inner.holds
            causes.append(Cause(holds, inner.compared, inner.works, inner.creators))
        return both(causes)

    def _test(self, field: Field, test: Test, source: Attribution | Share | Group) -> Cause:
        if field.influence and not self.influence:
            value, missing = None, self._no_influence
        else:
            value, missing = field.read(source), words.UNTOLD
        if field.name in COPIED and self.copied:
            return self._some_copied(field, test)
        holds = self._holds(field, test, value, lost=self._is_lost(field, source))
        compared = (Seen(field, test, value, missing),)
        if isinstance(source, Attribution) and value is not None:
            return Cause(holds, compared, *self._named_by(field))
        return Cause(holds, compared)

    def _some_copied(self, field: Field, test: Test) -> Cause:
        """What holds for every work that the picture is a copy of; for some of them only, it isn't known."""
        causes = []
        for one in self.copied:
            value = getattr(one, field.path[-1])
            holds = self._holds(field, test, value, lost=value is None and not one.known)
            creators = () if one.creator is None else (one.creator,)
            causes.append(Cause(holds, (Seen(field, test, value, words.UNTOLD),), (one.work_id,), creators))
        agreed = {cause.holds for cause in causes}
        return gathered(agreed.pop() if len(agreed) == 1 else None, causes)

    def _is_lost(self, field: Field, source: Attribution | Share | Group) -> bool:
        """Whether a field may have had a value that isn't known any more: of a work that isn't in the index now."""
        if field.path[-1] not in METADATA or isinstance(source, Group):
            return False
        about: Share | Copy | None = source if isinstance(source, Share) else self._about(field)
        # Whatever is known of a work, it has a thumbnail's address.
        return about is not None and about.work_id is not None and about.thumbnail is None

    def _named_by(self, field: Field) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The work that a field of the answer is about, and its creator."""
        about = self._about(field)
        if about is None or about.work_id is None:
            return (), ()
        return (about.work_id,), (() if about.creator is None else (about.creator,))

    def _about(self, field: Field) -> Share | Copy | None:
        if field.path[0] == "works" and self.answer.works:
            return self.answer.works[0]
        return self.answer.copied if field.path[0] == "copied" else None

    def _holds(self, field: Field, test: Test, value: Any, *, lost: bool = False) -> Truth:
        if value is None and lost:
            return None
        if test.known is not None:
            if (value is not None and value != field.undecided) != test.known:
                return False
            if test.model_fields_set == {"known"}:
                return True
        if value is None:
            return None
        if isinstance(test, NumberTest):
            return _between(test, float(value))
        if isinstance(test, ChoiceTest):
            if value == field.undecided and value not in words_named(test):
                return None
            return self._named(test, _spelled(field, str(value)))
        return bool(value) == getattr(test, "is_", None)

    def _named(self, test: ChoiceTest, texts: frozenset[str]) -> bool:
        checks: list[bool] = []
        if test.is_ is not None:
            checks.append(folded(test.is_) in texts)
        if test.is_not is not None:
            checks.append(folded(test.is_not) not in texts)
        if test.in_ is not None:
            checks.append(not texts.isdisjoint(map(folded, test.in_)))
        if test.not_in is not None:
            checks.append(texts.isdisjoint(map(folded, test.not_in)))
        if isinstance(test, TextTest):
            if test.in_list is not None:
                checks.append(not texts.isdisjoint(self.lists[test.in_list]))
            if test.not_in_list is not None:
                checks.append(texts.isdisjoint(self.lists[test.not_in_list]))
            if test.contains is not None:
                checks.append(any(folded(test.contains) in text for text in texts))
        return all(checks)

    def _some_work(self, condition: Any) -> Cause:
        works = self.answer.works or []
        tests = list(condition.tests("works"))
        if not self.influence or not works:
            return self._unmeasured("works", tests)
        causes = [self._element("works", tests, work) for work in works]
        last = works[-1]
        count = len(works) if self.answer.candidates is None else self.answer.candidates.count
        if len(works) < count:
            most, missing, share = last, words.UNNAMED, last.share or 0.0
            # An interval grows with its share.
            high = 1.0 if last.high is None else last.high
            if self.answer.candidates is not None and self.answer.candidates.mode == "approximate":
                # What the search missed may rank anywhere behind the first, which is taken for the first throughout.
                most, missing = works[0], words.UNFOUND
                share = min(most.share or 0.0, max(0.0, 1.0 - sum(work.share or 0.0 for work in works)))
                high = 1.0
            bounds = {
                "share": (0.0, share),
                "low": (0.0, share),
                "high": (0.0, high),
                "rank": (len(works) + 1.0, float(count)),
            }
            if most.percentile is not None:
                bounds["percentile"] = (0.0, most.percentile)
            causes.append(self._unnamed("works", tests, bounds, missing))
        return self._some("works", tests, causes)

    def _some_creator(self, condition: Any) -> Cause:
        groups = (self.answer.groups or {}).get("creator", [])
        tests = list(condition.tests("creators"))
        if not self.influence or not groups:
            return self._unmeasured("creators", tests)
        causes = [self._element("creators", tests, group) for group in groups]
        named = sum(group.works for group in groups)
        count = named if self.answer.candidates is None else self.answer.candidates.count
        if named < count:
            # The last may be named out of its turn, since the answer's sentence is about it.
            shares = sorted((group.share or 0.0 for group in groups), reverse=True)
            most = min(shares[-2] if len(shares) > 1 else shares[-1], max(0.0, 1.0 - sum(shares)))
            highs = [group.high for group in groups if (group.share or 0.0) >= most]
            high = min((1.0 if one is None else one for one in highs), default=1.0)
            if self.answer.candidates is not None and self.answer.candidates.mode == "approximate":
                # Its intervals come from a sample, and don't grow with the share.
                high = 1.0
            bounds = {
                "share": (0.0, most),
                "low": (0.0, most),
                "high": (0.0, high),
                "works": (1.0, float(count - named)),
                "share_of_index": (1 / count, (count - named) / count),
                # Of a creator's one work.
                "factor": (0.0, most * count),
            }
            causes.append(self._unnamed("creators", tests, bounds, words.UNNAMED_CREATORS))
        return self._some("creators", tests, causes)

    def _some(self, place: Place, tests: list[tuple[Field, Test]], causes: list[Cause]) -> Cause:
        found = either(causes)
        if found.holds is not False:
            return found
        return Cause(False, tuple(Seen(*pair, None, words.NONE_MEETS, f"{place}.") for pair in tests))

    def _unmeasured(self, place: Place, tests: list[tuple[Field, Test]]) -> Cause:
        """Of no work or creator anything is known, so nothing can be said but that what has to be known isn't."""
        missing = words.UNTOLD if self.influence else self._no_influence
        seen = tuple(Seen(*pair, None, missing, f"{place}.") for pair in tests)
        return Cause(False if any(test.known for _, test in tests) else None, seen)

    def _element(self, place: Place, tests: list[tuple[Field, Test]], one: Share | Group) -> Cause:
        open_: list[Seen] = []
        held: list[Seen] = []
        for field, test in tests:
            value = field.read(one)
            holds = self._holds(field, test, value, lost=self._is_lost(field, one))
            if holds is False:
                return Cause(False)
            (held if holds else open_).append(Seen(field, test, value, words.UNTOLD, f"{place}."))
        told = open_ or held
        holds = None if open_ else True
        if isinstance(one, Share):
            name = words.work_name(one.title, one.creator, one.work_id)
            creators = () if one.creator is None else (one.creator,)
            return Cause(holds, (told[0]._replace(name=name), *told[1:]), (one.work_id,), creators)
        return Cause(holds, (told[0]._replace(name=one.name), *told[1:]), (), (one.name,))

    def _unnamed(
        self,
        place: Place,
        tests: list[tuple[Field, Test]],
        bounds: dict[str, tuple[float, float]],
        missing: str,
    ) -> Cause:
        """What is known of those that the answer doesn't name: how large they can be at most.

        A rule that sets no bound means those that are named.
        """
        if not any(field.name in bounds for field, _ in tests):
            return Cause(False)
        holds: Truth = None
        for field, test in tests:
            if (
                isinstance(test, NumberTest)
                and field.name in bounds
                and not _reaches(test, *bounds[field.name])
            ):
                holds = False
        if holds is False:
            return Cause(False)
        pair = next(pair for pair in tests if pair[0].name in bounds)
        return Cause(None, (Seen(*pair, None, missing, f"{place}."),))


def _spelled(field: Field, value: str) -> frozenset[str]:
    """What a value may be called, folded: an index by its id, and by its name whatever version it is."""
    return frozenset({folded(value), folded(name_in(value))} if field.name == "index" else {folded(value)})


def words_named(test: ChoiceTest) -> set[str]:
    """The choices that a test names."""
    single = {one for one in (test.is_, test.is_not) if one is not None}
    return single | set(test.in_ or ()) | set(test.not_in or ())


def _between(test: NumberTest, value: float) -> bool:
    return (
        (test.at_least is None or value >= test.at_least)
        and (test.at_most is None or value <= test.at_most)
        and (test.above is None or value > test.above)
        and (test.below is None or value < test.below)
    )


def _reaches(test: NumberTest, low: float, high: float) -> bool:
    """Whether some value from low to high may pass."""
    if test.known is False:
        return True
    least = max((v for v in (test.at_least, test.above) if v is not None), default=low)
    most = min((v for v in (test.at_most, test.below) if v is not None), default=high)
    if least > high or most < low:
        return False
    return not (
        (test.above is not None and test.above >= high) or (test.below is not None and test.below <= low)
    )
