"""An answer's sentences in another language than English, in which they are made and stored.

The summary is told anew from the answer's own facts. Of the notes it is found out which sentence each is; one that
isn't known here, such as a worker's account of a failure, stays as it is.
"""

import re
from dataclasses import dataclass
from string import Formatter

from app import answers, redaction
from app.language import ENGLISH, Language
from app.rounding import exactly
from app.schemas import Attribution, Copy, Group, Share
from das import answer as said
from das import approximation, changes, copies, prompts, provenance
from das.index import NO_SCREENING
from das.manifest import NOT_MEASURED

NOTES = {
    said.NOT_IN_MODEL: "not_in_model",
    NOT_MEASURED: "not_measured",
    said.IN_MODEL_UNSURE: "in_model_unsure",
    said.IN_MODEL_UNLIKELY: "in_model_unlikely",
    said.LIKE_HELD_OUT: "like_held_out",
    said.FLAT: "flat",
    said.CLOSE: "close",
    said.CANDIDATES_GONE: "candidates_gone",
    redaction.NOTE: "works_hidden",
    redaction.NOTE_CREATORS: "creators_withheld",
    redaction.NOTE_HOLDERS: "holders_withheld",
    redaction.NOTE_LOOKALIKES: "lookalikes_hidden",
    redaction.NOTE_SPENT: "works_spent",
    answers.GONE: "gone",
    answers.REPLACED: "replaced",
    answers.BY_ROW: "by_row",
    answers.MISSING: "missing",
    answers.PICTURE_GONE: "picture_gone",
    answers.PROMPT_UNUSED: "prompt_unused",
    answers.SEED_UNUSED: "seed_unused",
    provenance.PROMPT_TAKEN: "prompt_taken",
    provenance.PROMPT_OVERRULED: "prompt_overruled",
    provenance.PROMPT_CUT: "prompt_cut",
    prompts.PROMPT_TOO_LONG: "prompt_too_long",
    provenance.PROMPT_BRACKETS: "prompt_brackets",
    provenance.SEED_TAKEN: "seed_taken",
    provenance.SEED_TOO_LARGE: "seed_too_large",
    provenance.GENERATED: "generated",
    copies.WITHOUT_SSCD: "without_sscd",
    approximation.APPROXIMATE: "approximate",
    changes.REMOVED: "works_removed",
    changes.STALE: "shares_stale",
    changes.COARSE: "coarse",
    f"{{index}} {NO_SCREENING}": "no_screening",
}


def _pattern(template: str) -> re.Pattern[str]:
    """What the sentences of a template look like."""
    parts = [
        re.escape(text) + ("" if name is None else f"(?P<{name}>.+)")
        for text, name, _, _ in Formatter().parse(template)
    ]
    return re.compile("".join(parts), re.DOTALL)


_PATTERNS = [(_pattern(template), f"note.{key}") for template, key in NOTES.items()]


@dataclass(frozen=True)
class Retold:
    """An answer in a language. `left` are the sentences in it that are English all the same."""

    answer: Attribution
    left: frozenset[str] = frozenset()


def retold(a: Attribution, language: Language) -> Retold:
    """The answer with its sentences in this language."""
    if language is ENGLISH:
        return Retold(a)
    copied = a.copied
    if copied is not None:
        copied = copied.model_copy(update={"summary": _copy_sentence(copied, a, language)})
    quality = a.quality
    if quality is not None and quality.note == answers.MEASURED:
        quality = quality.model_copy(update={"note": language("quality.note")})
    # Which model the picture names is said in the words that the picture uses.
    notes = [(note, _note(note, a, language)) for note in a.notes]
    summary = a.summary and summary_of(a, language)
    left = {note for note, told in notes if told is None}
    if a.summary and summary is None:
        left.add(a.summary)
    if a.error is not None:
        left.add(a.error.message)
    if a.input.declared is not None and a.input.declared.summary is not None:
        left.add(a.input.declared.summary)
    changes = {
        "summary": summary or a.summary,
        "copied": copied,
        "quality": quality,
        "notes": [note if told is None else told for note, told in notes],
    }
    return Retold(a.model_copy(update=changes), frozenset(left))


def summary_of(a: Attribution, language: Language) -> str | None:
    """The answer's first sentence, from its facts; None where they would say another, as those of old answers may."""
    if a.in_model is not None and a.in_model.verdict != "likely":
        return language(f"summary.{a.in_model.verdict}")
    return _ranking_again(a.summary, a, language)


def _ranking_again(sentence: str | None, a: Attribution, language: Language) -> str | None:
    """A sentence of the ranking: the one that names somebody or, where they may not be shown, nobody."""
    for names in (True, False):
        if sentence is not None and _ranking(a, ENGLISH, names) == sentence:
            return _ranking(a, language, names)
    return None


def _ranking(a: Attribution, language: Language, names: bool) -> str | None:
    """What `das.answer.sentence_of` says, with the names that there are or without any."""
    if not a.works or a.candidates is None:
        return None
    first, candidates = a.works[0], a.candidates
    if not names:
        first = first.model_copy(update={"title": None, "creator": None})
    among = language(
        "summary.among_some" if candidates.mode == "screened" else "summary.among_all", n=candidates.count
    )
    if first.share == 0:
        return language("summary.none", among=among)
    if first.share is not None and not said.stands_out(first, candidates):
        return language("summary.flat", share=_with_interval(first, language), among=among)
    title = None if not first.title else language("format.quoted", text=first.title)
    by = language("summary.by", creator=first.creator) if first.creator else ""
    groups = (a.groups or {}).get("creator", []) if names else []
    own = next((group for group in groups if group.name == first.creator), None) if first.creator else None
    estimated = candidates.mode == "approximate"
    other = said.named_instead(first, first.creator, own, groups, estimated=estimated)
    if other is not None:
        return language(
            "summary.most",
            n=other.works,
            count=language.counted(other.works),
            creator=other.name,
            share=_with_interval(other, language),
            among=among,
            called=title or language("summary.a_work"),
            by=by or language("summary.by_unknown"),
            alone=share_in_words(first, language),
        )
    if own is None or said.told_alone(first, own, estimated=estimated):
        if first.share is None:
            return language("summary.under", share=share_in_words(first, language), among=among)
        named = language("summary.named", title=title) if title else ""
        share = _with_interval(first, language)
        return language("summary.one", by=by, named=named, share=share, among=among)
    key = "summary.group_alone" if said.half_of(first, own) else "summary.group"
    return language(
        key,
        n=own.works,
        count=language.counted(own.works),
        by=by,
        share=_with_interval(own, language),
        among=among,
        called=title or language("summary.one_of_them"),
        alone=share_in_words(first, language),
    )


def _with_interval(one: Share | Group, language: Language) -> str:
    share = share_in_words(one, language)
    if one.low is None or one.high is None:
        return share
    low, high = language.percent(one.low), language.percent(one.high)
    return (
        share
        if low == high
        else language("format.with_interval", share=share, between=language.between(low, high))
    )


def share_in_words(one: Share | Group, language: Language) -> str:
    """A share, or what it is below."""
    if one.share is not None:
        return language.percent(one.share)
    return language("format.under", value=exactly(one.below or 0.0, language))


def _note(note: str, a: Attribution, language: Language) -> str | None:
    if a.rounding is not None and note == a.rounding.note():
        return a.rounding.note(language)
    if note.startswith(said.IF_THE_MODELS):
        sentence = note.removeprefix(said.IF_THE_MODELS)
        ranking = _ranking_again(f"{sentence[:1].upper()}{sentence[1:]}", a, language)
        return ranking and language("note.if_the_models", summary=_after_colon(ranking, language))
    if note.endswith(said.NEAREST):
        why = _note(note.removesuffix(said.NEAREST).rstrip(), a, language)
        return None if why is None else f"{why} {language('note.nearest')}"
    for pattern, key in _PATTERNS:
        found = pattern.fullmatch(note)
        if found is not None:
            return language(key, **{**found.groupdict(), **_numbers(a, found, language)})
    return None


def _numbers(a: Attribution, found: re.Match[str], language: Language) -> dict[str, str | int]:
    """The numbers of a note, as the language writes them."""
    told: dict[str, str | int] = {}
    number = found.groupdict().get("count") or found.groupdict().get("works")
    if number is not None:
        told["n"] = int(number.replace(",", ""))
    if "found" in found.groupdict():
        told["found"] = language.number(float(found["found"]), 1)
    if a.in_model is not None:
        told["references"] = language.whole(a.in_model.references)
    if a.certainty is not None and a.certainty.percentile is not None:
        told["part"] = language.percent(1 - a.certainty.percentile / 100)
    elif a.rounding is not None:
        # As in English, where exactly how many isn't told.
        told["part"] = language.percent(1 - said.FLAT_BELOW / 100)
    return told


def _copy_sentence(copied: Copy, a: Attribution, language: Language) -> str | None:
    """What `das.copies.copy_sentence` says."""
    if copied.verdict == "unclear":
        return language("copy.sentence_unclear")
    if copied.verdict == "none":
        return None
    by = language("summary.by", creator=copied.creator) if copied.creator else ""
    title = None if not copied.title else language("format.quoted", text=copied.title)
    work = language("summary.work", title=title, by=by) if title else language("summary.work_untitled", by=by)
    if copied.work_id is not None and redaction.hidden_id(copied.work_id):
        work = language("summary.work_hidden")
    if copied.mirrored:
        work = language("copy.mirrored", what=work)
    if copied.verdict == "near":
        return language("copy.sentence_near", work=work)
    likely = a.in_model is not None and a.in_model.verdict == "likely"
    beware = language("copy.compared" if likely else "copy.maybe_the_work")
    return f"{language('copy.sentence_copy', work=work)} {beware}"


def _after_colon(sentence: str, language: Language) -> str:
    """A sentence as it goes on after a colon; in German it begins anew there."""
    return sentence if language.code == "de" else f"{sentence[:1].lower()}{sentence[1:]}"
