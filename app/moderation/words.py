"""What policies and decisions are told in: every sentence about them stands here, or in app/languages.

A decision is made, and stored, in English; `app.moderation.retelling` tells it in another language by the same words.
"""

from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any

from app.language import ENGLISH, Language
from app.moderation.fields import Field
from app.moderation.policy import MODEL_CODES, Policy, Rule, tests_in

NO_ANSWER = {state: ENGLISH(f"decision.state_{state}") for state in ("queued", "running", "cancelled")}
NO_WORKS = ENGLISH("decision.no_works")
NOT_THE_MODELS = {
    verdict: ENGLISH(f"decision.{code.replace('-', '_')}") for verdict, code in MODEL_CODES.items()
}
UNDECIDED = ENGLISH("decision.undecided")
# It says nothing, because…
NO_INFLUENCE = {verdict: ENGLISH(f"decision.no_influence_{verdict}") for verdict in ("unlikely", "unsure")}
FURTHER_PICTURES = ENGLISH("decision.further_pictures")
UNTOLD = ENGLISH("decision.untold")
NONE_MEETS = ENGLISH("decision.none_meets")
UNNAMED = ENGLISH("decision.unnamed")
UNFOUND = ENGLISH("decision.unfound")
UNNAMED_CREATORS = ENGLISH("decision.unnamed_creators")
ERASED = "This decision was erased with the question it was about."

# Digits of a part and of another number, where those are enough; and of what a rule asks, which has no more.
OF_A_PART, DIGITS, EXACT = 3, 4, 15
_PARTS = ("share", "low", "high", "share_of_index")


def value_in_words(field: Field, value: Any, language: Language = ENGLISH, digits: int = 0) -> str:
    """A value as the sentences write it: parts in percent; numbers to so many significant digits, 0: to a few."""
    if isinstance(value, bool):
        return language("decision.yes" if value else "decision.no")
    if isinstance(value, list):
        return f" {language('decision.or')} ".join(value_in_words(field, one, language) for one in value)
    if isinstance(value, int | float):
        percent = _is_part(field)
        digits = digits or (OF_A_PART if percent else DIGITS)
        written = _number(_written(100 * value if percent else value, digits), language)
        return language("format.percent", value=written) if percent else written
    return str(value)


def _is_part(field: Field) -> bool:
    return field.name.rpartition(".")[2] in _PARTS


def _number(written: str, language: Language) -> str:
    return written.replace(".", language("format.decimal"))


def _written(value: float, digits: int) -> str:
    """A number to so many significant digits and without an exponent, whole ones in full."""
    digits = max(digits, len(str(int(abs(value)))))
    return f"{Decimal(f'{value:.{digits}g}').normalize():f}"


def _digits_beside(field: Field, value: float, bounds: Sequence[float]) -> int:
    """How many digits of a value it takes to read which of it and each bound is larger."""
    scale, fewest = (100.0, OF_A_PART) if _is_part(field) else (1.0, DIGITS)
    for digits in range(fewest, EXACT):
        told = float(_written(scale * value, digits))
        asked = [float(_written(scale * bound, EXACT)) for bound in bounds]
        if all(
            (told > one, told < one) == (value > bound, value < bound)
            for one, bound in zip(asked, bounds, strict=True)
        ):
            return digits
    return EXACT


def asked_in_words(field: Field, asked: dict[str, Any], language: Language = ENGLISH) -> str:
    """What a rule asks of a field, such as `at least 30 %`."""
    said = []
    for operator, value in asked.items():
        if operator == "known":
            said.append(language("decision.known" if value else "decision.not_known"))
        else:
            # As it stands, so that two that differ never read alike.
            written = value_in_words(field, value, language, EXACT)
            said.append(language(f"decision.op_{operator}", value=written))
    return f" {language('decision.and')} ".join(said)


def compared(
    about: str, field: Field, value: Any, asked: dict[str, Any], missing: str, language: Language = ENGLISH
) -> str:
    """One comparison: what it is about, its value or why it has none, and what the rule asks."""
    bounds = [one for one in asked.values() if isinstance(one, int | float) and not isinstance(one, bool)]
    digits = 0
    if isinstance(value, int | float) and not isinstance(value, bool):
        digits = _digits_beside(field, value, bounds)
    found = missing if value is None else value_in_words(field, value, language, digits)
    said = asked_in_words(field, asked, language)
    return language("decision.compared", about=about, found=found, asked=said)


def sentence(parts: Iterable[str]) -> str:
    """Several comparisons as one sentence."""
    said = "; ".join(parts)
    return f"{said[:1].upper()}{said[1:]}."


def work_name(title: str | None, creator: str | None, work_id: str, language: Language = ENGLISH) -> str:
    """A work as reasons name it."""
    by = language("summary.by", creator=creator) if creator else ""
    if title:
        return language("summary.work", title=language("format.quoted", text=title), by=by)
    return language("decision.work", id=work_id, by=by)


def summary(outcome: str, codes: Sequence[str], language: Language = ENGLISH) -> str:
    """A decision in one sentence, with the codes of its reasons."""
    said = language(f"decision.outcome_{outcome}")
    return f"{said} ({', '.join(codes)})" if codes else said


def rule_in_words(rule: Rule) -> str:
    """What a rule does, for who checks a policy."""
    because = f" {rule.because}" if rule.because else ""
    return f"{rule.code}: {rule.outcome}, where {condition_in_words(rule.when)}.{because}"


def condition_in_words(condition: Any) -> str:
    """A condition with everything in it."""
    said = [
        f"{field.about} is {asked_in_words(field, test.given())}" for field, test in condition.tests("answer")
    ]
    for place, someone in (("works", "a work that is named has"), ("creators", "a creator has")):
        inner = getattr(condition, place)
        if inner is not None:
            tests = (
                f"{field.about} {asked_in_words(field, test.given())}" for field, test in inner.tests(place)
            )
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
