"""What policies and decisions are told in: every sentence about them stands here."""

from collections.abc import Iterable, Sequence
from typing import Any

from app.moderation.fields import Field
from app.moderation.policy import Policy, Rule, Test, tests_in
from das.answer import percent

OUTCOMES = {
    "clear": "Clear: nothing in this policy speaks against it.",
    "review": "Review: somebody has to look.",
    "block": "Block: the policy holds it back.",
    "indeterminate": "Indeterminate: what the policy needs isn't known, so it is neither cleared nor blocked.",
}
NO_RULE = "No rule of the policy fired, and none lacked what it needs; then its outcome is {default}."
NOT_ANSWERED = "The question about the picture has no answer ({why}), so no rule could be looked at."
NO_ANSWER = {"queued": "it waits", "running": "it is being measured", "cancelled": "it was cancelled"}
NO_WORKS = "the works that it names aren't known here"
NOT_THE_MODELS = {
    "unlikely": "The picture doesn't look like one that this model made, so this policy can't clear it: its"
    " shares say nothing of where it comes from.",
    "unsure": "The picture may be one of this model's that was changed, or come from elsewhere, so this policy can't"
    " clear it.",
    None: "Whether this model made the picture isn't known, because the index was built without reference"
    " generations; so no policy can clear it.",
}
UNUSABLE = (
    "Version {version} of {policy} can't be read any more, so no rule could be looked at: send the policy again, and"
    " ask for another decision."
)
UNDECIDED = "This rule couldn't be decided."
NO_INFLUENCE = {
    "unlikely": "it says nothing, because the picture doesn't look like this model's",
    "unsure": "it says nothing, because it isn't sure that this model made the picture",
}
FURTHER_PICTURES = (
    "The file holds several pictures, an animation's or pages, and only the first was looked at, so no policy can"
    " clear it: send each as a picture of its own."
)
UNTOLD = "it isn't in the answer"
NONE_MEETS = "none that the answer names meets all that is asked"
UNNAMED = "those that the answer doesn't name could meet it: ask with a larger top_k"
UNNAMED_CREATORS = "creators that the answer doesn't name could meet it"
ERASED = "This decision was erased with the question it was about."

_PARTS = ("share", "low", "high", "share_of_index")
_OPERATORS = {
    "at_least": "at least",
    "at_most": "at most",
    "above": "more than",
    "below": "less than",
    "is": "",
    "is_not": "not",
    "in": "",
    "not_in": "none of",
    "in_list": "in the list",
    "not_in_list": "not in the list",
    "contains": "with the words",
}


def value_in_words(field: Field, value: Any) -> str:
    """A value as the sentences write it: shares in percent."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return " or ".join(value_in_words(field, one) for one in value)
    if isinstance(value, int | float):
        if field.name.rpartition(".")[2] in _PARTS:
            return _percent(value)
        return f"{value:.4g}"
    return str(value)


def _percent(value: float) -> str:
    # A threshold is told as it stands, so that two that differ never read alike.
    rounded = percent(value)
    return rounded if rounded[0].isdigit() and f"{value * 100:.4g} %" == rounded else f"{value * 100:.3g} %"


def test_in_words(field: Field, test: Test) -> str:
    """What a rule asks of a field, such as `at least 30 %`."""
    said = []
    for operator, value in test.given().items():
        if operator == "known":
            said.append("known" if value else "not known")
        else:
            said.append(f"{_OPERATORS[operator]} {value_in_words(field, value)}".strip())
    return " and ".join(said)


def compared(field: Field, value: Any, test: Test, missing: str | None = None) -> str:
    """One comparison: what it is, its value or why it has none, and what the rule asks."""
    found = (missing or UNTOLD) if value is None else value_in_words(field, value)
    if found in [value_in_words(field, bound) for bound in _bounds(test) if bound != value]:
        # It has to be seen which of the two is larger.
        found = f"{value * 100:.6g} %" if field.name.rpartition(".")[2] in _PARTS else f"{value:.7g}"
    return f"{field.about}: {found} (the rule asks: {test_in_words(field, test)})"


def _bounds(test: Test) -> list[float]:
    return [
        value
        for value in test.given().values()
        if isinstance(value, int | float) and not isinstance(value, bool)
    ]


def sentence(parts: Iterable[str]) -> str:
    """Several comparisons as one sentence."""
    said = "; ".join(parts)
    return f"{said[:1].upper()}{said[1:]}."


def work_name(title: str | None, creator: str | None, work_id: str) -> str:
    """A work as reasons name it."""
    by = f" by {creator}" if creator else ""
    return f"“{title}”{by}" if title else f"work {work_id}{by}"


def summary(outcome: str, codes: Sequence[str]) -> str:
    """A decision in one sentence, with the codes of its reasons."""
    return f"{OUTCOMES[outcome]} ({', '.join(codes)})" if codes else OUTCOMES[outcome]


def rule_in_words(rule: Rule) -> str:
    """What a rule does, for who checks a policy."""
    because = f" {rule.because}" if rule.because else ""
    return f"{rule.code}: {rule.outcome}, where {condition_in_words(rule.when)}.{because}"


def condition_in_words(condition: Any) -> str:
    """A condition with everything in it."""
    said = [f"{field.about} is {test_in_words(field, test)}" for field, test in condition.tests("answer")]
    for place, someone in (("works", "a work that is named has"), ("creators", "a creator has")):
        inner = getattr(condition, place)
        if inner is not None:
            tests = (f"{field.about} {test_in_words(field, test)}" for field, test in inner.tests(place))
            said.append(f"{someone} {', '.join(tests)}")
    if condition.all_:
        said.extend(f"({condition_in_words(inner)})" for inner in condition.all_)
    if condition.any_:
        said.append("(" + " or ".join(f"({condition_in_words(inner)})" for inner in condition.any_) + ")")
    if condition.not_ is not None:
        said.append(f"not ({condition_in_words(condition.not_)})")
    return " and ".join(said)


def default_in_words(default: str) -> str:
    """What happens where no rule fires."""
    if default != "clear":
        return f"Where no rule fires: {default}."
    return "Where no rule fires, none lacks what it needs, and the model likely made the picture: clear."


ALWAYS = (
    "A block goes before a review and both before a clear.",
    "Where a rule needs what the answer doesn't have, the decision is indeterminate, unless a stronger rule fires.",
    "A picture that this model hasn't likely made is never cleared, and its shares count as not measured.",
    "A file of several pictures is never cleared: only its first is looked at.",
)


def remarks(policy: Policy) -> list[str]:
    """What may not be meant, though it is allowed: lists that are empty or that no rule uses."""
    used = {
        name
        for number, rule in enumerate(policy.rules)
        for _, _, test in tests_in(rule.when, f"/rules/{number}")
        for name in (getattr(test, "in_list", None), getattr(test, "not_in_list", None))
    }
    said = [f"The list {name} is empty." for name, names in policy.lists.items() if not names]
    return said + [f"No rule uses the list {name}." for name in policy.lists if name not in used]
