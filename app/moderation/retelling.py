"""A verdict's sentences in another language than English, in which it was made and stored.

Each is made anew from what the verdict keeps beside it: codes, fields, values and what the rules ask. One that isn't
what English would say of that, such as of an earlier version, stays as it is. Codes never change.
"""

import re
from typing import Any

from app.language import ENGLISH, Language
from app.moderation import words
from app.moderation.fields import FIELDS, Field, Place
from app.moderation.policy import FURTHER_PICTURES, MODEL_CODES, NO_RULE, NOT_ANSWERED, POLICY_UNUSABLE

# What was decided, or a part of that, as it is stored.
VerdictFacts = dict[str, Any]

# Why a comparison may have no value.
MISSING = (
    "untold",
    "under_floor",
    "none_meets",
    "unnamed",
    "unfound",
    "unnamed_creators",
    "no_influence_unlikely",
    "no_influence_unsure",
)
WHY = ("state_queued", "state_running", "state_cancelled", "no_works")
# Whole sentences that are the same for every picture.
FIXED = (
    "further_pictures",
    "hidden",
    "values_untold",
    "rounded",
    *(code.replace("-", "_") for code in MODEL_CODES.values()),
)
# The service's own reasons.
OWN = (FURTHER_PICTURES, NO_RULE, NOT_ANSWERED, POLICY_UNUSABLE, *MODEL_CODES.values())
QUOTED_WORK = re.compile(r"“(?P<title>.+)”(?: by (?P<creator>.+))?", re.DOTALL)
WORK = re.compile(r"work (?P<id>\S+)(?: by (?P<creator>.+))?", re.DOTALL)


def retold_verdict(verdict: VerdictFacts, language: Language) -> VerdictFacts:
    """What a policy said, with its summary, reasons and notes in this language."""
    if language is ENGLISH:
        return verdict
    outcome, reasons = verdict["outcome"], verdict["reasons"]
    codes = [reason["code"] for reason in reasons if reason["outcome"] == outcome]
    known = verdict["summary"] == words.summary(outcome, codes)
    return {
        **verdict,
        "summary": words.summary(outcome, codes, language) if known else verdict["summary"],
        "reasons": [_reason(reason, language) for reason in reasons],
        "notes": [fixed(note, language) or note for note in verdict["notes"]],
    }


def _reason(reason: VerdictFacts, language: Language) -> VerdictFacts:
    compared = [(one, _compared(one, language)) for one in reason["compared"]]
    told = [{**one, "text": text or one["text"]} for one, text in compared]
    text = fixed(reason["text"], language)
    if text is None and reason["code"] in OWN:
        text = _own(reason, language)
    elif text is None and reason["text"] == sentence_of(reason, reason["compared"], ENGLISH):
        text = sentence_of(reason, told, language)
    return {**reason, "text": text or reason["text"], "compared": told}


def sentence_of(reason: VerdictFacts, compared: list[VerdictFacts], language: Language) -> str:
    """What a rule's reason says: its comparisons, and whether it could be decided."""
    said = words.sentence(one["text"] for one in compared)
    return said if reason["fired"] else f"{language('decision.undecided')} {said}"


def _own(reason: VerdictFacts, language: Language) -> str | None:
    """One of the service's own reasons."""
    if reason["code"] == NO_RULE:
        return language("decision.no_rule_fired", default=reason["outcome"])
    found = _found("not_answered", reason["text"])
    if found is not None:
        why = next((key for key in WHY if ENGLISH(f"decision.{key}") == found["why"]), None)
        # A worker's own words are told as they are.
        return language("decision.not_answered", why=language(f"decision.{why}") if why else found["why"])
    found = _found("policy_unusable", reason["text"])
    return None if found is None else language("decision.policy_unusable", **found)


def _found(key: str, text: str) -> dict[str, str] | None:
    """The values in a sentence that English makes of these words."""
    pattern = re.sub(r"\\{(\w+)\\}", r"(?P<\1>.+)", re.escape(ENGLISH.template(f"decision.{key}")))
    found = re.fullmatch(pattern, text, re.DOTALL)
    return None if found is None else found.groupdict()


def fixed(text: str, language: Language) -> str | None:
    """One of the sentences that are the same for every picture; None for another."""
    key = next((key for key in FIXED if ENGLISH(f"decision.{key}") == text), None)
    return None if key is None else language(f"decision.{key}")


def _compared(one: VerdictFacts, language: Language) -> str | None:
    """A comparison in this language; None where English wouldn't have said what stands there."""
    field = field_of(one["field"])
    if field is None:
        return None

    def said(missing: str, about: str, tongue: Language) -> str:
        why = tongue(f"decision.{missing}")
        return words.compared(about, field, one["value"], one["asked"], why, tongue)

    for missing in MISSING:
        english = said(missing, field.about, ENGLISH)
        name, of, rest = one["text"].rpartition(english)
        if of and not rest and (not name or name.endswith(", ")):
            told = said(missing, language(f"field.{one['field']}"), language)
            return f"{_name(name[:-2], language)}, {told}" if name else told
    return None


def field_of(name: str) -> Field | None:
    """The field of a comparison, whose name has the place before it."""
    places: tuple[Place, ...] = ("works", "creators")
    for place in places:
        if name.startswith(f"{place}."):
            return FIELDS[place].get(name.partition(".")[2])
    return FIELDS["answer"].get(name)


def _name(name: str, language: Language) -> str:
    """The work or creator that a comparison is about."""
    for pattern in (QUOTED_WORK, WORK):
        found = pattern.fullmatch(name)
        if found is not None:
            parts: dict[str, Any] = found.groupdict()
            return words.work_name(parts.get("title"), parts["creator"], parts.get("id", ""), language)
    return name
