"""A verdict as it is told where the operator has shares rounded: rules were decided by the exact ones.

Of a reason that compares a share its value is rounded, and its sentence made anew; one that can't be, such as of an
earlier version, is told without its values.
"""

from app.language import ENGLISH
from app.moderation import words
from app.moderation.retelling import VerdictFacts, field_of, sentence_of
from app.rounding import Rounding

SHARES = ("share", "low", "high", "factor")
UNTOLD, ABOUT_VALUES, NOTE = (
    ENGLISH(f"decision.{key}") for key in ("under_floor", "values_untold", "rounded")
)


def rounded_verdict(verdict: VerdictFacts, rounding: Rounding) -> VerdictFacts:
    """What a policy said of an answer, with the shares in it as they may be told; the outcome and its codes stay."""
    reasons = [_reason(reason, rounding) for reason in verdict["reasons"]]
    if reasons == verdict["reasons"]:
        return verdict
    return {**verdict, "reasons": reasons, "notes": [*verdict["notes"], NOTE]}


def _reason(reason: VerdictFacts, rounding: Rounding) -> VerdictFacts:
    compared = [_compared(one, rounding) for one in reason["compared"]]
    if compared == reason["compared"]:
        return reason
    known = [one for one in compared if one is not None]
    if len(known) < len(compared) or reason["text"] != sentence_of(reason, reason["compared"], ENGLISH):
        return {**reason, "text": ABOUT_VALUES, "compared": known}
    return {**reason, "text": sentence_of(reason, known, ENGLISH), "compared": known}


def _compared(one: VerdictFacts, rounding: Rounding) -> VerdictFacts | None:
    """A comparison with its value as it may be told; None where its sentence can't be made anew."""
    part, exact = one["field"].rpartition(".")[2], one["value"]
    about_share = part in SHARES and not one["field"].startswith("quality.")
    if not (about_share or one["field"] == "certainty.percentile") or not isinstance(exact, int | float):
        return one
    field = field_of(one["field"])
    # Whatever else follows from a share says what it is to who knows how it follows.
    told = None
    if part == "share":
        told = rounding.of_group(exact) if one["field"].startswith("creators.") else rounding.share(exact)
    if field is None or told == exact:
        return None if field is None else one
    before = words.compared(field.about, field, exact, one["asked"], "")
    after = words.compared(field.about, field, told, one["asked"], UNTOLD)
    if not one["text"].endswith(before):
        return None
    return {**one, "value": told, "text": one["text"].removesuffix(before) + after}
