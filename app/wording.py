"""The page's words and numbers: what each state is called, what each stage says, how a share is written.

What is said in which language stands in app/languages; here is said which of it, when.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from jinja2 import pass_context
from jinja2.runtime import Context

from app.language import ENGLISH, Language
from app.redaction import hidden_id
from app.rounding import exactly
from app.schemas import Attribution, Copy, CopyMatch, Declared, Group, InModel, Quality, Share

LICENCES = {
    "CC0-1.0": "CC0 1.0",
    "CC-BY-4.0": "CC BY 4.0",
    "CC-BY-SA-4.0": "CC BY-SA 4.0",
}
PUBLIC_DOMAIN = "LicenseRef-public-domain"


@dataclass(frozen=True)
class StageLine:
    """One line of the progress list. `state`: done, now or later."""

    name: str
    state: str
    note: str
    done: int = 0
    total: int = 0


def headline(a: Attribution, language: Language) -> str:
    """The one sentence on top."""
    if a.state == "succeeded":
        return unbroken(a.summary or language("state.ranked"))
    if a.state in ("failed", "cancelled"):
        return language(f"state.{a.state}")
    if a.progress.attempt > 1 or (a.state == "queued" and a.progress.attempt > 0):
        return language("state.again")
    waits = a.state == "queued" and (a.progress.waiting or 0) > 1
    return language("state.waiting" if waits else "state.measuring")


def sentences(a: Attribution, language: Language) -> list[str]:
    """What has to be said below the headline."""
    model_claim = None if a.input.declared is None else a.input.declared.summary
    said = [] if model_claim is None else [model_claim]
    if a.state == "failed" and a.error is not None:
        said.append(a.error.message)
    if a.state == "cancelled":
        said.append(language("state.cancelled_note"))
    if a.state == "queued" and a.progress.attempt > 0:
        said.append(language("state.lost", attempt=a.progress.attempt + 1))
    elif a.state == "running" and a.progress.attempt > 1:
        said.append(language("state.lost_before", attempt=a.progress.attempt))
    if a.copied is not None and a.copied.summary is not None:
        said.append(a.copied.summary)
    if a.state == "succeeded" and a.quality is not None:
        said.append(_quality_sentence(a.quality, language))
    if a.state in ("succeeded", "failed", "cancelled"):
        said.extend(note for note in a.notes if note != model_claim)
    return said


def announcement(a: Attribution, language: Language) -> str:
    """What a screen reader is told when it changes; without counting every step aloud."""
    if a.state in ("queued", "running"):
        now = next((line for line in stages(a, language) if line.state == "now"), None)
        return f"{headline(a, language)} {now.name if now else ''}".strip()
    return headline(a, language)


def stages(a: Attribution, language: Language) -> list[StageLine]:
    """The four stages, in their order, with where the question is."""
    progress = a.progress
    screened = a.lookalikes is not None
    features_over = progress.stage == "scored" or (progress.total > 0 and progress.done >= progress.total)
    names = {name: language(f"stage.{name}") for name in ("received", "compared", "measured", "ranked")}
    received = StageLine(names["received"], "done", _picture(a, language))
    compared = StageLine(
        names["compared"],
        "done" if screened else "now",
        language("stage.found" if screened else "stage.looking"),
    )
    if a.state != "running":
        note = language("stage.worker", n=progress.waiting or 1)
        return [
            received,
            compared,
            StageLine(names["measured"], "now", note),
            StageLine(names["ranked"], "later", ""),
        ]
    counted = language("stage.beginning")
    if progress.total:
        counted = language("stage.steps", done=language.whole(progress.done), n=progress.total)
    if progress.eta_s and not features_over:
        counted = language("stage.left", steps=counted, seconds=max(1, round(progress.eta_s)))
    features = StageLine(
        names["measured"], "done" if features_over else "now", counted, progress.done, progress.total
    )
    return [received, compared, features, StageLine(names["ranked"], "now" if features_over else "later", "")]


def works_title(a: Attribution, language: Language) -> str:
    """What the ranked works are called: influence on a picture takes that the model made it."""
    own = a.in_model is None or a.in_model.verdict == "likely"
    return language("answer.works_title" if own else "answer.works_title_foreign")


def shares_of(a: Attribution, language: Language) -> str:
    """What the shares are shares of."""
    if a.candidates is None:
        return ""
    key = "shares.of_some" if a.candidates.mode == "screened" else "shares.of_all"
    said = [language(key, n=a.candidates.count)]
    intervals = any(group.low is not None for groups in (a.groups or {}).values() for group in groups)
    sampled = a.candidates.mode == "approximate"
    noise = any(work.low is not None for work in a.works or ())
    if intervals and (noise or not sampled):
        said.append(language("shares.intervals"))
    if intervals and sampled:
        said.append(language("shares.intervals_sampled_too" if noise else "shares.intervals_sampled"))
    return " ".join([*said, language("shares.evidence")])


# Of the facts at the foot those that say something of the picture.
ABOUT_PICTURE = frozenset({"picture", "normalisation", "sha256", "copy"})


def left_out(parts: Collection[str], works: int | None, language: Language) -> list[str]:
    """What the sender of a share has left out, `works` but for so many, in words."""
    told = [language(f"share.out_{part}") for part in parts]
    return told if works is None else [*told, language("share.out_works", n=works)]


def details(
    a: Attribution, language: Language, unsaid: Collection[str] = frozenset()
) -> list[tuple[str, str]]:
    """The facts at the foot of an answer, but for some."""
    steps = ", ".join(
        language(f"step.{step}") if f"step.{step}" in language else step for step in a.input.normalisation
    )
    facts = [
        ("question", a.id),
        ("index", a.index),
        ("method", a.method),
        ("candidates", _candidates(a, language)),
        ("asked", language.moment(a.created_at)),
        ("picture", _picture(a, language)),
        ("normalisation", steps or language("detail.nothing_changed")),
        ("sha256", a.input.sha256),
        ("quality", language("quality.none") if a.quality is None else _quality_fact(a.quality, language)),
    ]
    if a.state == "succeeded":
        facts.append(("origin", _origin_fact(a.in_model, language)))
        facts.append(("copy", _copy_fact(a.copied, language)))
    if a.client_tag:
        facts.append(("tag", a.client_tag))
    if a.prompt is not None:
        facts.append(("prompt", a.prompt or language("detail.empty_prompt")))
    if a.seed is not None:
        facts.append(("seed", str(a.seed)))
    if a.timings_ms:
        # The engine's own names for its steps.
        spent = ", ".join(
            f"{name.replace('_', ' ')} {language.number(value)} ms"
            for name, value in a.timings_ms.items()
            if value >= 0.5
        )
        facts.append(("time", spent))
    if a.progress.attempt > 1:
        facts.append(("attempts", str(a.progress.attempt)))
    return [(language(f"detail.{term}"), fact) for term, fact in facts if term not in unsaid]


def declared(said: Declared | None, language: Language) -> list[tuple[str, str]]:
    """What the picture says of itself, as terms and what is said; empty where it says nothing."""
    if said is None:
        return []
    loras = [_lora_fact(one.name, one.hash, one.weight, language) for one in said.loras]
    facts = [
        ("tool", said.tool),
        ("prompt", language("detail.empty_prompt") if said.prompt == "" else said.prompt),
        ("negative_prompt", said.negative_prompt),
        ("seed", None if said.seed is None else str(said.seed)),
        ("steps", None if said.steps is None else language.whole(said.steps)),
        ("sampler", said.sampler),
        ("guidance", None if said.guidance is None else f"{said.guidance:g}"),
        ("model", said.model),
        ("model_hash", said.model_hash),
        ("lora", "; ".join(loras) or None),
        ("ai", language("declared.ai_yes") if said.ai_generated else None),
        ("source", said.source),
        ("cut", ", ".join(said.cut).replace("_", " ") or None),
    ]
    return [(language(f"declared.{term}", n=len(loras)), value) for term, value in facts if value is not None]


def _picture(a: Attribution, language: Language) -> str:
    return language("stage.picture", format=a.input.format, width=a.input.width, height=a.input.height)


def _candidates(a: Attribution, language: Language) -> str:
    if a.candidates is None:
        return language("detail.not_known_yet")
    modes = {"all": "all", "approximate": "approximate"}
    key = f"detail.candidates_{modes.get(a.candidates.mode, 'some')}"
    scored = language.whole(a.candidates.scored or 0)
    fact = language(key, n=a.candidates.count, scored=scored)
    if a.candidates.asked == a.candidates.mode:
        return fact
    return language("detail.candidates_asked", candidates=fact, asked=a.candidates.asked)


def _lora_fact(name: str, digest: str | None, weight: float | None, language: Language) -> str:
    fact = name if weight is None else language("declared.weighted", name=name, weight=f"{weight:g}")
    return fact if digest is None else language("declared.hashed", name=fact, hash=digest)


def _origin_fact(in_model: InModel | None, language: Language) -> str:
    if in_model is None:
        return language("origin.none")
    fact = language(
        "origin.fact",
        verdict=language(f"origin.{in_model.verdict}"),
        p=_p(in_model.p_value, language),
        re_encoded=_p(in_model.p_value_re_encoded, language).removeprefix("= "),
        references=language.whole(in_model.references),
    )
    if in_model.p_value_held_out is None:
        return fact
    return language("origin.held_out", fact=fact, p=_p(in_model.p_value_held_out, language))


def _p(value: float, language: Language) -> str:
    """What stands behind a p; it is never 0."""
    return f"< {language.number(0.001, 3)}" if value < 0.001 else f"= {language.number(value, 3)}"


def _copy_fact(copied: Copy | None, language: Language) -> str:
    if copied is None:
        return language("copy.unknown")
    verdict = language(f"copy.{copied.verdict}")
    if copied.score is None:
        return verdict
    key = "copy.cosine" if copied.method == "sscd" else "copy.bits"
    likest = "_likest" if copied.work_id is None else ""
    return language(key + likest, verdict=verdict, score=language.number(copied.score, 2))


def copy_label(match: CopyMatch, language: Language) -> str:
    """What stands beside a work that the picture is a copy of, or near to."""
    what = language(f"copy.label_{match.verdict}")
    return language("copy.mirrored", what=what) if match.mirrored else what


def _quality_sentence(quality: Quality, language: Language) -> str:
    """How far the ranking can be relied on, and how far any could."""
    measured = {"queries": language.whole(quality.queries), "subsets": language.whole(quality.subsets)}
    key = "quality.reached" if quality.ceiling is None else "quality.reached_ceiling"
    return language(key, **measured, **_scores(quality, language))


def _quality_fact(quality: Quality, language: Language) -> str:
    key = "quality.fact" if quality.ceiling is None else "quality.fact_ceiling"
    return language(key, date=language.date(quality.measured_at), **_scores(quality, language))


def _scores(quality: Quality, language: Language) -> dict[str, str]:
    low, high = language.percents(quality.low, 1), language.percents(quality.high, 1)
    ceiling = {} if quality.ceiling is None else {"ceiling": language.percents(quality.ceiling, 1)}
    return {"lds": language.percents(quality.lds, 1), "between": language.between(low, high), **ceiling}


def percent(share: float | None, language: Language = ENGLISH) -> str:
    """A share as the summaries write it; a dash for what isn't known."""
    return "–" if share is None else unbroken(language.percent(share))


def part(one: Share | Group | Mapping[str, Any], language: Language = ENGLISH) -> str:
    """The share of a work or group, or what it is below, in an answer or a report."""
    told = one if isinstance(one, Mapping) else one.model_dump(include={"share", "below"})
    if told["share"] is None and told.get("below") is not None:
        return unbroken(language("format.under", value=exactly(told["below"], language)))
    return percent(told["share"], language)


def between(one: Share | Group, language: Language = ENGLISH) -> str:
    """The interval of a share, such as `15 to 26 %`; empty where none was measured."""
    if one.low is None or one.high is None:
        return ""
    return unbroken(language.between(language.percent(one.low), language.percent(one.high)))


def unbroken(text: str) -> str:
    """A text whose numbers stay on one line with their percent signs."""
    return text.replace(" %", "\u00a0%")


def top(value: float, language: Language = ENGLISH) -> str:
    """A percentile from the other end: 99.2 is the top 0.8 %, and nothing is less than the top 0.1 %."""
    return language("format.top", share=percent(max(0.001, (100 - value) / 100), language))


def factor(value: float | None, language: Language = ENGLISH) -> str:
    """How many times a creator's share exceeds their part of the works."""
    if value is None:
        return "–"
    if value < 0.1:
        return language("format.under", value=f"{language.number(0.1, 1)}×")
    return f"{language.number(value, 0 if value >= 9.95 else 1)}×"


def thousands(value: int, language: Language = ENGLISH) -> str:
    """A whole number."""
    return language.whole(value)


def similarity(value: float, language: Language = ENGLISH) -> str:
    """How alike two pictures look."""
    return language.number(value, 2)


def licence(text: str, language: Language = ENGLISH) -> str:
    """A licence as people write it."""
    return language("licence.public_domain") if text == PUBLIC_DOMAIN else LICENCES.get(text, text)


def rights(tdm: str, language: Language = ENGLISH) -> str:
    """What a work's owner says of text and data mining, beside its licence."""
    return language(f"rights.{tdm}") if f"rights.{tdm}" in language else tdm


def is_web(url: str | None) -> bool:
    """Whether an address from an index's metadata may become a link; anything but http(s) could run a script."""
    if not url:
        return False
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.netloc)


def _spoken(write: Callable[[Any, Language], str]) -> Callable[[Context, Any], str]:
    """A template's filter that writes in the language of its page; in English on what has none, such as a report."""

    @pass_context
    def filter_(context: Context, value: Any) -> str:
        return write(value, context.get("language", ENGLISH))

    return filter_


FILTERS: dict[str, Callable[..., Any]] = {
    "is_web": is_web,
    **{
        write.__name__: _spoken(write)
        for write in (percent, part, between, top, factor, thousands, similarity, licence, rights, copy_label)
    },
    "hidden_work": hidden_id,
}
